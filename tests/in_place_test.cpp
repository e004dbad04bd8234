// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/calls.hpp"
#include "support/executors.hpp"
#include "support/messages.hpp"

// Training that keeps one buffer: y in place of x, and gradients from y alone.
namespace {

using namespace support;
using batchnorm::InPlaceBatchNorm;
using batchnorm::LeakyRelu;
using batchnorm::TensorView;
using batchnorm::ValueError;

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 613}, {9, 33, 15}, {64, 67, 1}, {16, 5, 49}};

/// What one training step of the in-place form leaves.
template <class T, class P>
struct Step {
  std::vector<T> y, dx, dresidual;
  std::vector<P> batch_mean, batch_variance, dscale, dbias;
};

/// A call whose scale is away from 0, as the in-place form needs it.
template <class T, class P>
Call<T, P> invertible_call(const Sizes& sizes, Format format) {
  auto call = ordinary_call<T, P>(shape_of(format, 4, sizes), format, true);
  for (std::size_t c = 0; c < call.scale->size(); ++c) (*call.scale)[c] = element<P>(c % 2 == 0 ? 1.25 : -0.75);
  return call;
}

template <Format F, class T, class P>
Step<T, P> step_of(const Call<T, P>& call, const std::vector<T>& dy, double slope, const batchnorm::CallOptions& options) {
  const auto channels = static_cast<std::size_t>(call.extents().c);
  Step<T, P> step{call.x,
                  std::vector<T>(dy.size()),
                  std::vector<T>(dy.size()),
                  std::vector<P>(channels),
                  std::vector<P>(channels),
                  std::vector<P>(channels),
                  std::vector<P>(channels)};
  auto mean = *call.mean, variance = *call.variance;
  const InPlaceBatchNorm<T, F, P> layer(call.options, {slope});
  const TensorView<T> y(step.y.data(), call.shape);
  layer.forward({.x = y,
                 .scale = view(call.scale),
                 .bias = view(call.bias),
                 .mean = mean,
                 .variance = variance,
                 .batch_mean = step.batch_mean,
                 .batch_variance = step.batch_variance},
                options);
  layer.backward({.dy = {dy.data(), call.shape},
                  .y = y,
                  .scale = view(call.scale),
                  .bias = view(call.bias),
                  .variance = step.batch_variance},
                 {{step.dx.data(), call.shape}, step.dscale, step.dbias, {step.dresidual.data(), call.shape}}, options);
  return step;
}

template <class T, class P>
Step<T, P> step_of(const Call<T, P>& call, const std::vector<T>& dy, double slope, const batchnorm::CallOptions& options = {}) {
  return call.format == Format::NCHW ? step_of<Format::NCHW>(call, dy, slope, options)
                                     : step_of<Format::NHWC>(call, dy, slope, options);
}

/// The same step with x kept.
template <class T, class P>
Step<T, P> reference_of(const Call<T, P>& call, const std::vector<T>& dy, double slope) {
  Step<T, P> step = step_of(call, dy, slope);  // for the sizes
  auto mean = *call.mean, variance = *call.variance;
  const TensorView<T> y(step.y.data(), call.shape);
  const TensorView<const T> x(call.x.data(), call.shape);
  batchnorm::batch_norm<T, P>(call.format, call.options, x, view(call.scale), view(call.bias), mean, variance,
                              {.output_x = y, .batch_mean = step.batch_mean, .batch_variance = step.batch_variance},
                              LeakyRelu{slope});
  batchnorm::batch_norm_backward<T, P>(
      call.format, call.options, {dy.data(), call.shape}, x, view(call.scale), step.batch_mean, step.batch_variance,
      {{step.dx.data(), call.shape}, step.dscale, step.dbias, {step.dresidual.data(), call.shape}},
      ThroughLeakyOutput<T>{y, {slope}});
  return step;
}

template <class T>
std::vector<T> gradient_like(const std::vector<T>& x) {
  return uniform<T>(static_cast<std::int64_t>(x.size()), -1, 1.5, 31);
}

// |xh| < 3, |bias / scale| < 4/3 and dy < 1.5: the recovered xh is off by 2 u (|xh| + |bias / scale|) at most. In dx it stands
// beside dscale / m, and dscale / m beside it, both below 1; |scale * r| < 1.25.
template <class T>
constexpr Real recovered_error() {
  return 2 * (3 + 1.4L) * std::ldexp(Real(1), -precision<T>().digits);
}

template <class T>
class InPlace : public testing::Test {};
using ElementTypes = testing::Types<float, batchnorm::half>;  // the two computing widths; each type is a minute to compile
TYPED_TEST_SUITE(InPlace, ElementTypes);

TYPED_TEST(InPlace, GradientsAreThoseOfTheKeptInput) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      const auto call = invertible_call<T, P>(sizes, format);
      SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)));
      const auto dy = gradient_like(call.x);
      for (const double slope : {0.01, 0.25, 1.0}) {
        for_each_isa([&](Isa) {
          const auto got = step_of(call, dy, slope), want = reference_of(call, dy, slope);
          EXPECT_TRUE(same_bits(got.y, want.y));
          EXPECT_TRUE(same_bits(got.batch_variance, want.batch_variance));
          EXPECT_TRUE(same_bits(got.dbias, want.dbias));
          EXPECT_TRUE(same_bits(got.dresidual, want.dresidual));
          const Real m = static_cast<Real>(sizes.n * sizes.s);
          for (std::size_t c = 0; c < got.dscale.size(); ++c) {
            ASSERT_LE(std::abs(real(got.dscale[c]) - real(want.dscale[c])), 1.5L * m * recovered_error<T>()) << c;
          }
          for (std::size_t i = 0; i < dy.size(); ++i) {
            const Real rounding = 2 * ulp_at<T>(std::abs(real(want.dx[i])));
            ASSERT_LE(std::abs(real(got.dx[i]) - real(want.dx[i])), 6 * recovered_error<T>() + rounding) << i;
          }
        });
      }
    }
  }
}

TYPED_TEST(InPlace, IsBitwiseTheSameForAnyNumberOfThreads) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  batchnorm::Tuning tuning;
  tuning.serial_bytes = 1;
  tuning.sweep_task_bytes = 256;
  for (const Format format : formats) {
    const auto call = invertible_call<T, P>({9, 33, 15}, format);
    const auto dy = gradient_like(call.x);
    const auto serial = step_of(call, dy, 0.1);
    for (const int threads : {2, 3, 8}) {
      batchnorm::ThreadTeam team(threads);
      const auto parallel = step_of(call, dy, 0.1, {.executor = &team, .tuning = &tuning});
      EXPECT_TRUE(same_bits(parallel.y, serial.y));
      EXPECT_TRUE(same_bits(parallel.dx, serial.dx));
      EXPECT_TRUE(same_bits(parallel.dscale, serial.dscale));
    }
  }
}

TEST(InPlaceErrors, AScaleFromWhichXCannotBeRecoveredIsRefusedAndLeavesXAsItWas) {
  const auto refused = [](float scale, float bias, double slope) {
    auto call = invertible_call<float, float>({3, 5, 7}, Format::NCHW);
    (*call.scale)[3] = scale, (*call.bias)[3] = bias;
    const std::vector<float> before = call.x;
    const InPlaceBatchNorm<float> layer({}, {slope});
    const std::string message = message_of<ValueError>([&] {
      layer.forward({.x = {call.x.data(), call.shape},
                     .scale = view(call.scale),
                     .bias = view(call.bias),
                     .mean = *call.mean,
                     .variance = *call.variance});
    });
    EXPECT_TRUE(message == "<no exception>" || same_bits(call.x, before));
    return message;
  };
  EXPECT_EQ(
      refused(0, 0.5F, 1),
      "batchnorm::InPlaceBatchNorm: scale[3] is 0, with bias 0.5 x could not be recovered from y; |scale| must be at least "
      "|bias| / 1024 and 1.1754943508222875e-38");
  EXPECT_NE(refused(1e-4F, 0.5F, 1), "<no exception>");
  EXPECT_EQ(refused(1e-3F, 0.5F, 1), "<no exception>");
  EXPECT_NE(refused(2e-38F, 0, 0.01), "<no exception>");
  EXPECT_EQ(refused(2e-38F, 0, 1), "<no exception>");
  EXPECT_NE(refused(std::numeric_limits<float>::quiet_NaN(), 0.5F, 1), "<no exception>");
}

TEST(InPlaceErrors, AnActivationThatCannotBeUndoneIsRefused) {
  for (const double slope : {0.0, -0.1, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(message_of<ValueError>([&] { InPlaceBatchNorm<float>({}, {slope}); }),
              "batchnorm::InPlaceBatchNorm: the activation cannot be undone: its slope must be above 0");
  }
}

TEST(InPlaceErrors, BackwardNamesTheOutputThatItIsGiven) {
  const auto call = invertible_call<float, float>({3, 5, 7}, Format::NCHW);
  const std::vector<float> dy(call.x.size());
  const InPlaceBatchNorm<float> layer;
  EXPECT_EQ(message_of<batchnorm::ShapeError>([&] {
              layer.backward({.dy = {dy.data(), Shape{3, 5, 7}},
                              .y = {call.x.data(), call.shape},
                              .scale = *call.scale,
                              .bias = *call.bias,
                              .variance = *call.variance},
                             {});
            }),
            "batchnorm::InPlaceBatchNorm::backward: dy has shape [3, 5, 7], expected the shape of y (y is " +
                to_string(call.shape) + ", NCHW)");
}

TEST(InPlaceEdges, EmptyBatchesAndAbsentParametersWork) {
  const InPlaceBatchNorm<float> layer;
  std::vector<float> variance(3, 777), dscale(3, 777), dbias(3, 777);
  layer.forward({.x = {nullptr, Shape{0, 3, 2, 2}}, .batch_variance = variance});
  EXPECT_EQ(variance, std::vector<float>(3, 0));
  layer.backward({.dy = {nullptr, Shape{0, 3, 2, 2}}, .y = {nullptr, Shape{0, 3, 2, 2}}, .variance = variance},
                 {.dscale = dscale, .dbias = dbias});
  EXPECT_EQ(dscale, std::vector<float>(3, 0));
  EXPECT_EQ(dbias, std::vector<float>(3, 0));
  auto call = invertible_call<float, float>({3, 5, 7}, Format::NHWC);
  call.scale.reset();
  call.bias.reset();
  const auto dy = gradient_like(call.x);
  const auto got = step_of(call, dy, 0.1), want = reference_of(call, dy, 0.1);
  EXPECT_TRUE(same_bits(got.dbias, want.dbias));
  EXPECT_LE(std::abs(real(got.dscale[0]) - real(want.dscale[0])), 21 * 1.5L * recovered_error<float>());
}

}  // namespace
