// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "device_calls.hpp"

// Edges and errors of calls on a device, whose kernels are executed by the emulator.
namespace {

using namespace support;
using batchnorm::Identity;
using batchnorm::ShapeError;
using batchnorm::ValueError;

/// With one read of x, with two, and with two in slices of a few chunks.
template <class Body>
void for_each_device(Body&& body) {
  for (const bool fast : {true, false}) {
    for (const int kind : {0, 1, 2}) {
      EmulatedDevice device;
      device.adds_doubles_fast = fast;
      if (kind > 0) device.device.shared_bytes = 0;
      if (kind > 1) device.policy.most_slice_chunks = 8;
      const DeviceScope scope(device);
      SCOPED_TRACE(std::to_string(kind) + (fast ? ", fast doubles" : ", slow doubles"));
      body();
    }
  }
}

template <class T>
class DeviceEdges : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(DeviceEdges, ElementTypes);

TYPED_TEST(DeviceEdges, AConstantChannelGivesExactlyBias) {
  using T = TypeParam;
  for_each_device([] {
    for (const Format format : formats) {
      auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, {5, 9, 35}), format, true);
      std::fill(call.x.begin(), call.x.end(), element<T>(10000));
      const auto result = run_on_device<T>(call);
      const Extents e = call.extents();
      for (std::int64_t c = 0; c < e.c; ++c) {
        const T bias = element<T>(static_cast<double>((*call.bias)[static_cast<std::size_t>(c)]));
        for (std::int64_t n = 0; n < e.n; ++n) {
          for (std::int64_t s = 0; s < e.s; ++s) ASSERT_EQ(real(result.y[e.index(n, c, s)]), real(bias));
        }
        EXPECT_EQ(result.batch_variance[static_cast<std::size_t>(c)], 0);
      }
    }
  });
}

TYPED_TEST(DeviceEdges, AnOffsetAndAnOutlierInFrontCostNoDigits) {
  using T = TypeParam;
  if (sizeof(T) == 2) GTEST_SKIP() << "two bytes hold no such offset";
  for_each_device([] {
    for (const Format format : formats) {
      auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, {5, 9, 35}), format, true);
      for (T& value : call.x) value = element<T>(static_cast<double>(value) + 1e4);
      const Extents e = call.extents();
      for (std::int64_t c = 0; c < e.c; c += 2) call.x[e.index(0, c, 0)] = element<T>(-1e4);
      expect_kept(errors<T, batchnorm::parameter_t<T>>(call, run_on_device<T>(call), expected(call), Isa::x86_64_v3));
    }
  });
}

TYPED_TEST(DeviceEdges, NanAndInfStayWithinTheirChannel) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for_each_device([&] {
    for (const Format format : formats) {
      const auto plain = ordinary_call<T, P>(shape_of(format, 4, {5, 9, 35}), format, true);
      const auto want = run_on_device<T>(plain);
      for (const double value : {infinity, -infinity, nan}) {
        for (const std::int64_t place : {0, 3, 34}) {
          auto call = plain;
          const Extents e = call.extents();
          call.x[e.index(2, 4, place)] = call.x[e.index(0, 4, place)] = element<T>(value);
          const auto got = run_on_device<T>(call);
          for (std::int64_t c = 0; c < e.c; ++c) {
            const auto i = static_cast<std::size_t>(c);
            EXPECT_EQ(std::isnan(got.batch_variance[i]), c == 4) << value;
            EXPECT_EQ(std::isfinite(got.batch_mean[i]), c != 4) << value;
            for (std::int64_t s = 0; s < e.s; ++s) {
              const auto at = e.index(1, c, s);
              if (c == 4) {
                ASSERT_TRUE(std::isnan(real(got.y[at])));
              } else {
                ASSERT_EQ(real(got.y[at]), real(want.y[at]));
              }
            }
          }
        }
      }
    }
  });
}

TYPED_TEST(DeviceEdges, MomentumZeroKeepsOneReplacesAndNotFiniteMayBeKept) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_device([] {
    auto call = ordinary_call<T, P>({4, 6, 5, 7}, Format::NCHW, true);
    call.options.momentum = 0;
    auto result = run_on_device<T>(call);
    EXPECT_TRUE(same_bits(result.mean, *call.mean) && same_bits(result.variance, *call.variance));
    call.options.momentum = 1;
    call.options.running_variance = batchnorm::RunningVariance::biased;
    (*call.mean)[2] = std::numeric_limits<P>::quiet_NaN();
    result = run_on_device<T>(call);
    EXPECT_TRUE(same_bits(result.mean, result.batch_mean) && same_bits(result.variance, result.batch_variance));
    call.options.momentum = 0.25;
    call.options.not_finite = batchnorm::NotFinite::keep;
    call.x[0] = element<T>(std::numeric_limits<double>::infinity());
    result = run_on_device<T>(call);
    EXPECT_EQ(result.mean[0], (*call.mean)[0]);
    EXPECT_EQ(result.variance[0], (*call.variance)[0]);
    EXPECT_NE(result.mean[1], (*call.mean)[1]);
  });
}

TYPED_TEST(DeviceEdges, AnEmptyBatchGivesZerosAndKeepsRunningStatistics) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Shape& shape : {Shape{0, 3, 4}, Shape{2, 3, 0}, Shape{2, 0, 4}}) {
    auto call = ordinary_call<T, P>(shape, Format::NCHW, true);
    const auto result = run_on_device<T>(call);
    const std::vector<P> zeros(static_cast<std::size_t>(call.extents().c));
    EXPECT_EQ(result.batch_mean, zeros);
    EXPECT_EQ(result.reserve_space_2, zeros);
    EXPECT_TRUE(same_bits(result.mean, *call.mean));
    auto gradient = ordinary_gradient_call<T, P>(shape, Format::NCHW, true);
    gradient.mean = gradient.variance = zeros;
    EXPECT_EQ(run_on_device<T>(gradient).dscale, zeros);
    call.options.is_training = false;
    EXPECT_TRUE(same_bits(run_on_device<T>(call).batch_mean, *call.mean));
  }
}

TYPED_TEST(DeviceEdges, AbsentArgumentsAreLeftOut) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_device([] {
    auto call = ordinary_call<T, P>({4, 6, 5, 7}, Format::NCHW, true);
    call.scale.reset(), call.bias.reset(), call.mean.reset(), call.variance.reset();
    expect_kept(errors<T, P>(call, run_on_device<T>(call), expected(call), Isa::x86_64_v3));
    auto gradient = ordinary_gradient_call<T, P>({4, 6, 5, 7}, Format::NCHW, true);
    gradient.scale.reset();
    expect_kept(errors<T, P>(gradient, run_on_device<T>(gradient), expected(gradient), Isa::x86_64_v3));
  });
}

// Each rank, and a matrix, which both formats read as [N, C].
TEST(DeviceCall, TakesEveryRank) {
  for (const Format format : formats) {
    for (const int rank : {2, 3, 4, 5}) {
      const auto call = ordinary_call<float, float>(shape_of(format, rank, {6, 5, rank == 2 ? 1 : 12}), format, true);
      expect_kept(errors<float, float>(call, run_on_device<float>(call), expected(call), Isa::x86_64_v3));
    }
  }
}

template <class Error, class Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(DeviceCall, SaysWhatIsWrong) {
  const Shape shape{2, 3, 4};
  const DeviceBuffer<float> x(24), y(24), wide(96), statistics(3);
  const DeviceWorkspace workspace(batchnorm::cuda::workspace_bytes<float>(Format::NCHW, shape));
  const auto run = [&](batchnorm::TensorView<const float> in, const batchnorm::cuda::Workspace& memory) {
    batchnorm::cuda::batch_norm<float>(Format::NCHW, {.is_training = true}, in, {}, {}, {}, {}, {{y.data(), shape}}, Identity{},
                                       memory, nullptr);
  };
  const std::size_t launched = emulated_device().launches.size();
  EXPECT_EQ(message_of<ValueError>([&] {
              run({wide.data(), shape, {24, 8, 1}}, workspace);
            }),
            "batchnorm::cuda::BatchNorm: x has gaps or another order; on a CUDA device tensors must be dense");
  // Channels last: rows with gaps after them, and images apart. Once they were taken for dense.
  for (const batchnorm::Strides& strides : {batchnorm::Strides{78, 26, 4, 1}, batchnorm::Strides{100, 20, 4, 1}}) {
    const DeviceBuffer<float> many(400);
    EXPECT_EQ(message_of<ValueError>([&] {
                batchnorm::cuda::batch_norm<float>(Format::NHWC, {.is_training = true},
                                                   {many.data(), Shape{2, 3, 5, 4}, strides}, {}, {}, {}, {},
                                                   {{many.data() + 200, Shape{2, 3, 5, 4}}}, Identity{}, workspace, nullptr);
              }),
              "batchnorm::cuda::BatchNorm: x has gaps or another order; on a CUDA device tensors must be dense");
  }
  const batchnorm::cuda::Workspace enough = workspace;
  EXPECT_EQ(message_of<ValueError>([&] {
              run({x.data(), shape}, {enough.data, enough.bytes - 1});
            }),
            "batchnorm::cuda::BatchNorm: workspace has " + std::to_string(enough.bytes - 1) + " bytes, expected at least " +
                std::to_string(enough.bytes) + " (workspace_bytes)");
  EXPECT_EQ(message_of<ValueError>([&] {
              run({x.data(), shape}, {nullptr, enough.bytes});
            }),
            "batchnorm::cuda::BatchNorm: workspace must be device memory aligned to 16 bytes");
  EXPECT_EQ(message_of<ShapeError>([&] {
              run({x.data(), {24}}, workspace);
            }),
            "batchnorm::cuda::BatchNorm: x has rank 1, expected 2 to 5 (x is [24], NCHW)");
  EXPECT_EQ(message_of<ShapeError>([&] {
              batchnorm::cuda::workspace_bytes<float>(Format::NHWC, {1, 2, 3, 4, 5, 6});
            }).substr(0, 56),
            "batchnorm::cuda::workspace_bytes: x has rank 6, expected");
  EXPECT_EQ(emulated_device().launches.size(), launched);
}

}  // namespace
