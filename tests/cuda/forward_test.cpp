// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "device_calls.hpp"

// The forward pass on a device, its kernels executed by the emulator: held to the promise of the CPU.
namespace {

using namespace support;

/// Devices whose plans differ.
struct Kind {
  const char* name = "";
  EmulatedDevice device{};
};

std::vector<Kind> kinds() {
  std::vector<Kind> result(5);
  result[0].name = "clusters";
  result[1].name = "no clusters, small shared memory";
  result[2].name = "slow doubles";
  result[3].name = "many slices";
  result[4].name = "a grid";
  result[1].device.device.largest_cluster = 1;
  result[1].device.device.shared_bytes = 1 << 10;
  result[2].device.adds_doubles_fast = false;
  result[3].device.device.shared_bytes = 0;
  result[3].device.policy.most_slice_chunks = 16;
  result[4].device.device = {.multiprocessors = 6, .largest_cluster = 0};
  return result;
}

constexpr Sizes some_sizes[] = {{3, 5, 7},   {2, 3, 613}, {9, 33, 15}, {41, 2, 1},
                                {17, 67, 1}, {5, 16, 64}, {4, 40, 49}, {1, 1, 1}};

template <class T>
class DeviceForward : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(DeviceForward, ElementTypes);

TYPED_TEST(DeviceForward, KeepsThePromise) {
  using T = TypeParam;
  for (const Kind& kind : kinds()) {
    const DeviceScope scope(kind.device);
    for (const Sizes& sizes : some_sizes) {
      for (const Format format : formats) {
        for (const bool is_training : {true, false}) {
          SCOPED_TRACE(std::string(kind.name) + ", " + text_of(shape_of(format, 4, sizes), format, is_training));
          const auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, sizes), format, is_training);
          const auto result = run_on_device(call);
          expect_kept(errors<T, batchnorm::parameter_t<T>>(call, result, expected(call), Isa::x86_64_v3));
          EXPECT_TRUE(same_bits(result.batch_mean, result.reserve_space_1));
          EXPECT_TRUE(same_bits(result.batch_variance, result.reserve_space_2));
        }
      }
    }
  }
}

TYPED_TEST(DeviceForward, TakesEveryAlignment) {
  using T = TypeParam;
  const auto size = static_cast<std::size_t>(16 / sizeof(T));
  for (const Kind& kind : kinds()) {
    const DeviceScope scope(kind.device);
    for (const Format format : formats) {
      const auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, {3, 9, 35}), format, true);
      const auto want = expected(call);
      for (std::size_t in = 0; in < size; ++in) {
        for (const std::size_t out : {in, (in + 1) % size}) {
          SCOPED_TRACE(std::string(kind.name) + ", x at " + std::to_string(in) + ", y at " + std::to_string(out));
          expect_kept(errors<T, batchnorm::parameter_t<T>>(call, run_on_device(call, batchnorm::Identity{}, false, {in, out}),
                                                           want, Isa::x86_64_v3));
        }
      }
    }
  }
}

TYPED_TEST(DeviceForward, DoesNotDependOnTheSchedule) {
  using T = TypeParam;
  for (const Kind& kind : kinds()) {
    for (const Format format : formats) {
      const auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, {5, 9, 35}), format, true);
      std::vector<DeviceResult<T>> results;
      for (const std::uint64_t seed : {1U, 2U, 3U}) {
        EmulatedDevice device = kind.device;
        device.options.seed = seed;
        const DeviceScope scope(device);
        results.push_back(run_on_device(call));
        EXPECT_TRUE(same_bits(results.back().y, results.front().y)) << kind.name;
        EXPECT_TRUE(same_bits(results.back().variance, results.front().variance)) << kind.name;
      }
    }
  }
}

}  // namespace
