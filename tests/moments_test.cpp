// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/calls.hpp"

// The pieces that the operator is made of: moments -> merge -> finalize -> normalize.
namespace {

using namespace support;
using batchnorm::Moments;
using batchnorm::TensorView;

template <class Both>
class Pieces : public testing::Test {};
TYPED_TEST_SUITE(Pieces, EveryElement, TypesNames);

constexpr Sizes some_sizes[] = {{6, 5, 7}, {2, 3, 613}, {10, 33, 16}, {42, 2, 1}, {6, 70, 1}, {2, 2, 20003}};

/// body(call) for every shape above, in both formats, training.
template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 3, sizes), format, true);
      SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)));
      body(call);
    }
  }
}

bool same_moments(const Moments& a, const Moments& b) {
  return a.count == b.count && same_bits(a.mean, b.mean) && same_bits(a.mean_low, b.mean_low) && same_bits(a.m2, b.m2);
}

/// The moments of images [first, last) of a call, whose images are outermost in both formats.
template <class T, class P>
Moments moments_of_images(const Call<T, P>& call, std::int64_t first, std::int64_t last) {
  std::vector<std::int64_t> some(call.shape.extents().begin(), call.shape.extents().end());
  const std::int64_t image = call.extents().c * call.extents().s;
  some[0] = last - first;
  return batchnorm::moments<T>({call.x.data() + first * image, Shape(some)}, call.format);
}

/// The promise of the statistics, for moments.
template <class P>
void expect_moments(const Moments& got, const std::vector<Statistics>& want) {
  for (std::size_t c = 0; c < want.size(); ++c) {
    const Real at = std::max(std::abs(want[c].mean), std::sqrt(want[c].variance));
    const Real mean = static_cast<Real>(got.mean[c]) + static_cast<Real>(got.mean_low[c]);
    ASSERT_EQ(got.count, want[c].count);
    ASSERT_LE(std::abs(mean - (want[c].mean + want[c].rest)), allowed_mean_error<P>(at));
    ASSERT_LE(error(got.variance(static_cast<std::int64_t>(c)), want[c].variance), allowed_variance_error<P>(want[c].variance));
    ASSERT_LE(std::abs(got.mean_low[c]), ulp_at<double>(std::abs(static_cast<Real>(got.mean[c]))) / 2);
  }
}

TYPED_TEST(Pieces, MomentsKeepThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call) {
    const Expected want = expected(call);
    for_each_isa([&](Isa) {
      expect_moments<batchnorm::parameter_t<T>>(batchnorm::moments<T>({call.x.data(), call.shape}, call.format), want.channel);
    });
  });
}

TYPED_TEST(Pieces, ComposedGiveTheOperatorsBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call) {
    for_each_isa([&](Isa) {
      const auto want = run(call);
      const TensorView<const T> x(call.x.data(), call.shape);
      const Moments moments = batchnorm::moments<T>(x, call.format);
      std::vector<P> batch_mean = *call.mean, batch_variance = *call.mean, mean = *call.mean, variance = *call.variance;
      batchnorm::finalize<P>(moments, call.options, {batch_mean, batch_variance, mean, variance});
      EXPECT_TRUE(same_bits(batch_mean, want.batch_mean));
      EXPECT_TRUE(same_bits(batch_variance, want.batch_variance));
      EXPECT_TRUE(same_bits(mean, want.mean));
      EXPECT_TRUE(same_bits(variance, want.variance));
      Guarded<T> y(call.x.size(), 1, element<T>(unwritten));
      batchnorm::normalize<T, P>(call.format, {.x = x, .scale = view(call.scale), .bias = view(call.bias)}, moments,
                                 call.options.epsilon, {y.data(), call.shape});
      EXPECT_TRUE(same_bits(y.values(), want.y));
      EXPECT_TRUE(y.guards_intact());
    });
  });
}

TYPED_TEST(Pieces, NormalizeWithGivenStatisticsIsInference) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& training) {
    auto call = training;
    call.options.is_training = false;
    for_each_isa([&](Isa) {
      const auto want = run(call);
      Guarded<T> y(call.x.size(), 0, element<T>(unwritten));
      const TensorView<const P> variance(*call.variance);
      batchnorm::normalize<T, P>(call.format,
                                 {.x = {call.x.data(), call.shape},
                                  .scale = view(call.scale),
                                  .bias = view(call.bias),
                                  .mean = *call.mean,
                                  .variance = variance},
                                 call.options.epsilon, {y.data(), call.shape});
      EXPECT_TRUE(same_bits(y.values(), want.y));
      std::copy(call.x.begin(), call.x.end(), y.data());  // on its input
      batchnorm::normalize<T, P>(call.format,
                                 {.x = {y.data(), call.shape},
                                  .scale = view(call.scale),
                                  .bias = view(call.bias),
                                  .mean = *call.mean,
                                  .variance = variance},
                                 call.options.epsilon, {y.data(), call.shape});
      EXPECT_TRUE(same_bits(y.values(), want.y));
    });
  });
}

TYPED_TEST(Pieces, MergedSplitsKeepThePromiseOfTheWhole) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call) {
    const Extents e = call.extents();
    const Expected want = expected(call);
    for_each_isa([&](Isa isa) {
      for (const std::int64_t step : {std::int64_t{1}, (e.n + 2) / 3, e.n - 1}) {
        Moments merged;
        for (std::int64_t first = 0; first < e.n; first += step) {
          const Moments part = moments_of_images(call, first, std::min(first + step, e.n));
          if (first == 0) {
            merged = part;
          } else {
            batchnorm::merge(merged, part);
          }
        }
        expect_moments<batchnorm::parameter_t<T>>(merged, want.channel);
        std::vector<T> y(call.x.size());
        batchnorm::normalize<T, P>(call.format,
                                   {.x = {call.x.data(), call.shape}, .scale = view(call.scale), .bias = view(call.bias)},
                                   merged, call.options.epsilon, {y.data(), call.shape});
        expect_kept(y_errors<T>(y, want, e, isa, true), "y");
      }
    });
  });
}

TEST(Merge, IntoTheMomentsOfNothingCopies) {
  const auto call = ordinary_call<float, float>({6, 5, 7}, Format::NCHW, true);
  const Moments some = batchnorm::moments<float>({call.x.data(), call.shape}, call.format);
  Moments into(5);
  batchnorm::merge(into, some);
  EXPECT_TRUE(same_moments(into, some));
}

TEST(Merge, OfNothingChangesNothing) {
  const auto call = ordinary_call<float, float>({6, 5, 7}, Format::NCHW, true);
  const Moments some = batchnorm::moments<float>({call.x.data(), call.shape}, call.format);
  Moments into = some;
  batchnorm::merge(into, Moments(5));
  EXPECT_TRUE(same_moments(into, some));
  Moments nothing(5);
  batchnorm::merge(nothing, Moments(5));
  EXPECT_TRUE(same_moments(nothing, Moments(5)));
}

TEST(Merge, OfFarOffsetsLosesNoDigits) {
  Moments near(1), far(1);
  near.count = 1000, near.mean[0] = 1, near.m2[0] = 500;
  far.count = 1000, far.mean[0] = 1e15, far.m2[0] = 250;
  batchnorm::merge(near, far);
  EXPECT_EQ(near.count, 2000);
  EXPECT_EQ(near.mean[0] + near.mean_low[0], 5e14 + 0.5);
  const Real between = (1e15L - 1) * (1e15L - 1) * 500;  // delta^2 * n_a * n_b / (n_a + n_b)
  EXPECT_LE(std::abs(static_cast<Real>(near.m2[0]) - (between + 750)), double_variance_error * between);
}

TEST(Merge, RefusesAnotherNumberOfChannels) {
  Moments five(5), four(4);
  EXPECT_THROW(batchnorm::merge(five, four), batchnorm::ShapeError);
}

TEST(Moments, OfNothingAreZero) {
  for (const Format format : formats) {
    const Moments got = batchnorm::moments<float>({nullptr, shape_of(format, 3, 0, 5, 7)}, format);
    EXPECT_TRUE(same_moments(got, Moments(5)));
    EXPECT_EQ(got.channels(), 5);
    EXPECT_EQ(got.variance(4), 0);
  }
}

TEST(Finalize, OfNothingWritesZerosAndLeavesTheRunningStatistics) {
  std::vector<float> batch_mean(3, 7), batch_variance(3, 7), mean(3, 7), variance(3, 7);
  batchnorm::finalize<float>(Moments(3), {.is_training = true, .momentum = 1}, {batch_mean, batch_variance, mean, variance});
  EXPECT_EQ(batch_mean, std::vector<float>(3, 0));
  EXPECT_EQ(batch_variance, std::vector<float>(3, 0));
  EXPECT_EQ(mean, std::vector<float>(3, 7));
  EXPECT_EQ(variance, std::vector<float>(3, 7));
}

TEST(Finalize, HonoursEveryOption) {
  Moments moments(2);
  moments.count = 5;
  moments.mean = {2, std::numeric_limits<double>::quiet_NaN()};
  moments.m2 = {40, 40};
  const auto finalized = [&](const batchnorm::Options& options, std::int64_t batch_number) {
    std::vector<double> mean{4, 4}, variance{16, 16};
    batchnorm::finalize<double>(moments, options, {.running_mean = mean, .running_variance = variance},
                                {.batch_number = batch_number});
    return std::array{mean[0], variance[0], mean[1], variance[1]};
  };
  using batchnorm::NotFinite;
  using batchnorm::RunningVariance;
  const auto keep = NotFinite::keep;
  EXPECT_EQ(finalized({.momentum = 0.5, .not_finite = keep}, 0), (std::array{3.0, 13.0, 4.0, 16.0}));
  EXPECT_EQ(finalized({.momentum = 0.5, .running_variance = RunningVariance::biased, .not_finite = keep}, 0),
            (std::array{3.0, 12.0, 4.0, 16.0}));
  EXPECT_EQ(finalized({.momentum = 0, .not_finite = keep}, 0), (std::array{4.0, 16.0, 4.0, 16.0}));
  EXPECT_EQ(finalized({.momentum = 0.3, .not_finite = keep}, 1), (std::array{2.0, 10.0, 4.0, 16.0}));
  EXPECT_EQ(finalized({.momentum = 0.3, .not_finite = keep}, 2), (std::array{3.0, 13.0, 4.0, 16.0}));
  EXPECT_TRUE(std::isnan(finalized({.momentum = 0.5}, 0)[2]));
}

}  // namespace
