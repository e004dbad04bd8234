// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "parts.hpp"
#include "support/messages.hpp"

// Edges and errors of a batch in parts, whose kernels are executed by the emulator.
namespace {

using namespace support;
using batchnorm::Identity;
using batchnorm::Relu;
using batchnorm::ShapeError;
using batchnorm::ThroughMask;
using batchnorm::ValueError;

template <class T>
class DeviceRanksEdges : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(DeviceRanksEdges, ElementTypes);

TYPED_TEST(DeviceRanksEdges, ConventionsOfTheRunningVarianceHoldForTheWholeBatch) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Format format : formats) {
    for (const auto running : {batchnorm::RunningVariance::biased, batchnorm::RunningVariance::unbiased}) {
      auto call = ordinary_call<T, P>(shape_of(format, 4, {4, 6, 1}), format, true);
      call.options.running_variance = running;
      expect_kept(errors<T, P>(call, run_in_parts<T>(call, {1, 0, 2, 1}), expected(call), Isa::x86_64_v3));
      call.options.momentum = 0;
      auto result = run_in_parts<T>(call, {1, 3});
      EXPECT_TRUE(same_bits(result.mean, *call.mean) && same_bits(result.variance, *call.variance));
    }
  }
}

TYPED_TEST(DeviceRanksEdges, OffsetsAndOutliersCostNoDigits) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  if (sizeof(T) == 2) GTEST_SKIP() << "two bytes hold no such offset";
  for (const bool fast : {true, false}) {
    EmulatedDevice device;
    device.adds_doubles_fast = fast;
    const DeviceScope scope(device);
    for (const Format format : formats) {
      auto call = ordinary_call<T, P>(shape_of(format, 4, {17, 9, 15}), format, true);
      for (T& value : call.x) value = element<T>(static_cast<double>(value) + 1e4);
      const Extents e = call.extents();
      for (std::int64_t c = 0; c < e.c; c += 2) call.x[e.index(0, c, 0)] = element<T>(-1e4);
      for (const Parts& parts : {Parts{0, 16, 1}, Parts{1, 16}, Parts{1, 0, 3, 0, 9, 4, 0}}) {
        SCOPED_TRACE(images_of(parts));
        expect_kept(errors<T, P>(call, run_in_parts<T>(call, parts), expected(call), Isa::x86_64_v3));
      }
    }
  }
}

// Sums of means near the end of the range are never formed, whether the first rank has values or not.
TYPED_TEST(DeviceRanksEdges, AConstantChannelGivesExactlyBias) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  const double large = std::is_same_v<T, double> ? 1.5e308 : std::is_same_v<T, batchnorm::half> ? 6e4 : 1e37;
  for (const Format format : formats) {
    auto call = ordinary_call<T, P>(shape_of(format, 4, {17, 6, 15}), format, true);
    std::fill(call.x.begin(), call.x.end(), element<T>(large));
    const Extents e = call.extents();
    for (const Parts& parts : some_parts) {
      SCOPED_TRACE(images_of(parts));
      const auto result = run_in_parts<T>(call, parts);
      for (std::int64_t c = 0; c < e.c; ++c) {
        const T bias = element<T>(static_cast<double>((*call.bias)[static_cast<std::size_t>(c)]));
        EXPECT_EQ(result.batch_variance[static_cast<std::size_t>(c)], 0);
        EXPECT_EQ(real(element<T>(result.batch_mean[static_cast<std::size_t>(c)])), real(element<T>(large)));
        for (std::int64_t s = 0; s < e.s; ++s) ASSERT_EQ(real(result.y[e.index(16, c, s)]), real(bias));
      }
    }
  }
}

TYPED_TEST(DeviceRanksEdges, NanAndInfStayWithinTheirChannel) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const Format format : formats) {
    const auto plain = ordinary_call<T, P>(shape_of(format, 4, {17, 6, 15}), format, true);
    for (const double value : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
      for (const Parts& parts : some_parts) {
        SCOPED_TRACE(std::to_string(value) + ", " + images_of(parts));
        const auto want = run_in_parts<T>(plain, parts);
        auto call = plain;
        const Extents e = call.extents();
        call.x[e.index(3, 4, 2)] = element<T>(value);
        const auto got = run_in_parts<T>(call, parts);
        for (std::int64_t c = 0; c < e.c; ++c) {
          const auto i = static_cast<std::size_t>(c);
          EXPECT_EQ(std::isnan(got.batch_variance[i]), c == 4);
          EXPECT_TRUE(c == 4 || got.batch_mean[i] == want.batch_mean[i]) << c;
          EXPECT_EQ(std::isnan(real(got.y[e.index(16, c, 0)])), c == 4);
        }
        if (std::isinf(value)) {
          EXPECT_EQ(got.batch_mean[4], value);
        } else {
          EXPECT_TRUE(std::isnan(got.batch_mean[4]));
        }
      }
    }
  }
}

TYPED_TEST(DeviceRanksEdges, WhereNoRankHasValuesThereAreZerosAndRunningStatisticsStay) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Shape& shape : {Shape{0, 3, 4}, Shape{0, 0, 4}}) {
    const auto call = ordinary_call<T, P>(shape, Format::NCHW, true);
    const auto result = run_in_parts<T>(call, {0, 0, 0});
    const std::vector<P> zeros(static_cast<std::size_t>(shape[1]));
    EXPECT_EQ(result.batch_mean, zeros);
    EXPECT_EQ(result.batch_variance, zeros);
    EXPECT_TRUE(same_bits(result.mean, *call.mean) && same_bits(result.variance, *call.variance));
    auto gradient = ordinary_gradient_call<T, P>(shape, Format::NCHW, true);
    gradient.mean = zeros, gradient.variance.assign(zeros.size(), std::numeric_limits<P>::quiet_NaN());
    const auto gradients = run_in_parts<T>(gradient, {0, 0});
    EXPECT_EQ(gradients.dscale, zeros);
    EXPECT_EQ(gradients.dbias, zeros);
  }
}

TYPED_TEST(DeviceRanksEdges, OneValueInAllRanksGivesBias) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  const auto call = ordinary_call<T, P>({1, 5, 1}, Format::NCHW, true);
  const auto result = run_in_parts<T>(call, {0, 1, 0});
  for (std::size_t c = 0; c < 5; ++c) {
    EXPECT_EQ(real(result.y[c]), real(element<T>(static_cast<double>((*call.bias)[c]))));
    EXPECT_EQ(result.batch_variance[c], 0);
    EXPECT_TRUE(std::isfinite(result.variance[c]));
  }
}

// Activation, mask and residual gradient are those of each element: what they make of the plain results is exact.
TYPED_TEST(DeviceRanksEdges, ActivationMaskAndGradientThroughIt) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  const Parts parts{2, 0, 1};
  for (const Format format : formats) {
    const auto call = ordinary_call<T, P>(shape_of(format, 4, {3, 9, 15}), format, true);
    const auto gradient = ordinary_gradient_call<T, P>(call.shape, format, true);
    const auto plain = run_in_parts<T>(call, parts);
    auto gated = gradient;
    for (std::size_t i = 0; i < plain.y.size(); ++i) {
      if (real(plain.y[i]) <= 0) gated.dy[i] = element<T>(0);
    }
    const auto want = run_in_parts<T>(gated, parts);
    VirtualRanks(parts.size()).run([&](const VirtualRanks::Rank& rank) {
      const auto own = static_cast<std::size_t>(rank.rank());
      const std::int64_t first = first_image(parts, own);
      const auto part = part_of(gradient, parts, own);
      const auto forward = run_on_device<T>(part_of(call, parts, own), Relu{}, true, {}, rank);
      std::vector<T> y = images(plain.y, call.shape, first, parts[own]);
      for (T& value : y) value = real(value) <= 0 ? element<T>(0) : value;
      EXPECT_TRUE(same_bits(forward.y, y)) << own;
      const DeviceBuffer<std::uint8_t> mask(forward.mask);
      DeviceBuffer<T> dresidual(part.x.size());
      const auto backward = run_on_device<T>(part, ThroughMask<Relu>{mask.span()}, {}, &dresidual, rank);
      EXPECT_TRUE(same_bits(backward.dx, images(want.dx, call.shape, first, parts[own]))) << own;
      EXPECT_TRUE(same_bits(backward.dscale, want.dscale) && same_bits(backward.dbias, want.dbias)) << own;
      EXPECT_TRUE(same_bits(dresidual.values(), images(gated.dy, call.shape, first, parts[own]))) << own;
    });
  }
}

/// What check_agreement says on each rank, where rank r has shapes[r].
template <class Error>
std::vector<std::string> disagreements(const std::vector<Shape>& shapes, const std::vector<bool>& training) {
  std::vector<std::string> messages(shapes.size());
  VirtualRanks(shapes.size()).run([&](const VirtualRanks::Rank& rank) {
    const auto own = static_cast<std::size_t>(rank.rank());
    messages[own] = message_of<Error>([&] {
      batchnorm::cuda::detail::check_agreement<float>(rank, Format::NHWC, {.is_training = training[own]}, shapes[own]);
    });
  });
  return messages;
}

TEST(DeviceRanksAgreement, EveryRankThrowsOrNoneDoes) {
  const std::string call = "batchnorm::cuda::SyncBatchNorm::check_agreement: ";
  using Messages = std::vector<std::string>;
  const Messages none(3, message_of<ShapeError>([] {}));
  EXPECT_EQ(disagreements<ShapeError>({{2, 4, 8}, {0, 8}, {7, 1, 2, 3, 8}}, {true, true, true}), none);
  EXPECT_EQ(
      disagreements<ShapeError>({{2, 4, 8}, {2, 4, 9}, {2, 4, 6}}, {true, true, true}),
      (Messages{call + "C is 8 here, but from 6 to 9 among the ranks", call + "C is 9 here, but from 6 to 9 among the ranks",
                call + "C is 6 here, but from 6 to 9 among the ranks"}));
  const Messages refused = disagreements<ShapeError>({{2, 4, 8}, {8}, {2, 8}}, {true, true, true});
  EXPECT_EQ(refused[0], call + "the shape of another rank is refused there");
  EXPECT_EQ(refused[1], call + "x has rank 1, expected 2 to 5 (x is [8], NHWC)");
  EXPECT_EQ(refused[2], refused[0]);
  EXPECT_EQ(disagreements<ValueError>({{2, 4, 8}, {2, 4, 8}, {2, 8}}, {true, false, true}),
            Messages(3, call + "some ranks are in training, others in inference"));
}

TEST(DeviceRanksCall, ChecksBeforeItEnqueues) {
  const Shape shape{2, 3, 4};
  const DeviceBuffer<float> x(24), y(24);
  VirtualRanks(1).run([&](const VirtualRanks::Rank& rank) {
    const DeviceWorkspace memory(rank.workspace_bytes<float>(Format::NCHW, shape));
    const batchnorm::cuda::Workspace enough = memory;
    // 4 C + 1 doubles of the rank, to a multiple of 16 bytes.
    EXPECT_EQ(enough.bytes, batchnorm::cuda::workspace_bytes<float>(Format::NCHW, shape) + 112);
    const auto run = [&](const batchnorm::cuda::Workspace& workspace) {
      rank.forward<float>(Format::NCHW, batchnorm::Options{.is_training = true},
                          batchnorm::TensorView<const float>(x.data(), shape), batchnorm::TensorView<const float>(),
                          batchnorm::TensorView<const float>(), batchnorm::TensorView<float>(), batchnorm::TensorView<float>(),
                          batchnorm::OutputViews<float, float>{{y.data(), shape}}, Identity{}, workspace, nullptr);
    };
    const std::size_t launched = emulated_device().launches.size();
    EXPECT_EQ(message_of<ValueError>([&] {
                run({enough.data, enough.bytes - 1});
              }),
              "batchnorm::cuda::SyncBatchNorm: workspace has " + std::to_string(enough.bytes - 1) +
                  " bytes, expected at least " + std::to_string(enough.bytes) + " (workspace_bytes)");
    EXPECT_EQ(message_of<ValueError>([&] {
                run({nullptr, enough.bytes});
              }),
              "batchnorm::cuda::SyncBatchNorm: workspace must be device memory aligned to 16 bytes");
    EXPECT_EQ(emulated_device().launches.size(), launched);
  });
}

}  // namespace
