// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "device_calls.hpp"

// What is promised of statistics at the edges (docs/numerics.md), on an emulated device.
namespace {

using namespace support;

TEST(DeviceStatistics, OutputIsExactlyBiasWhereXIsTheMean) {
  for (const Format format : formats) {
    // Thirds in every slice, and 1 over all.
    Call<double, double> call{shape_of(format, 3, {3, 2, 334}), format, {.is_training = true}};
    const Extents e = call.extents();
    call.x.assign(static_cast<std::size_t>(e.n * e.c * e.s), 1);
    for (std::int64_t c = 0; c < e.c; ++c) {
      for (std::int64_t i = 0; i < 300; ++i) call.x[e.index(0, c, i)] = -2;
      for (std::int64_t i = 0; i < 300; ++i) call.x[e.index(2, c, i)] = 4;
    }
    EmulatedDevice device;
    device.device.shared_bytes = 0;
    device.policy.most_slice_chunks = 8;
    const DeviceScope scope(device);
    const auto result = run_on_device<double>(call);
    for (std::int64_t c = 0; c < e.c; ++c) {
      EXPECT_EQ(result.batch_mean[static_cast<std::size_t>(c)], 1);
      for (std::int64_t i = 0; i < e.s; ++i) ASSERT_EQ(result.y[e.index(1, c, i)], 0);
    }
  }
}

TEST(DeviceStatistics, RunningMeanOfLargeValuesOfOppositeSignIsFinite) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Call<double, double> call{Shape{2, 2}, Format::NCHW, {.is_training = true, .momentum = 0.1}};
  call.x = {-1e300, 3, -1e300, 3};
  call.mean = std::vector<double>{std::numeric_limits<double>::max(), infinity};
  call.variance = std::vector<double>{1, 1};
  const EmulatedDevice device;
  const DeviceScope scope(device);
  const auto result = run_on_device<double>(call);
  EXPECT_DOUBLE_EQ(result.mean[0], 0.9 * std::numeric_limits<double>::max() - 1e299);
  EXPECT_EQ(result.mean[1], infinity);
}

TEST(DeviceStatistics, VarianceBeyondDoubleIsInfiniteAndOutputNaN) {
  Call<double, double> call{Shape{2, 2}, Format::NCHW, {.is_training = true}};
  call.x = {1e160, 1, -2e160, 2};
  const EmulatedDevice device;
  const DeviceScope scope(device);
  const auto result = run_on_device<double>(call);
  EXPECT_DOUBLE_EQ(result.batch_mean[0], -5e159);
  EXPECT_EQ(result.batch_variance[0], std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(result.y[0]) && std::isnan(result.y[2]));
  EXPECT_TRUE(std::isfinite(result.y[1]) && std::isfinite(result.y[3]));
}

}  // namespace
