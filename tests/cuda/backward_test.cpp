// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "device_calls.hpp"

// Gradients on a device, its kernels executed by the emulator: held to the promise of the CPU.
namespace {

using namespace support;

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 613}, {9, 33, 15}, {41, 2, 1}, {17, 67, 1}, {5, 16, 64}, {1, 1, 1}};

template <class T>
class DeviceBackward : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(DeviceBackward, ElementTypes);

template <class Body>
void for_each_device(Body&& body) {
  for (const bool fast : {true, false}) {
    for (const std::int64_t chunks : {1 << 16, 16}) {
      EmulatedDevice device;
      device.adds_doubles_fast = fast;
      device.policy.most_slice_chunks = chunks;
      const DeviceScope scope(device);
      SCOPED_TRACE(std::string(fast ? "fast" : "slow") + " doubles, slices of " + std::to_string(chunks));
      body();
    }
  }
}

TYPED_TEST(DeviceBackward, KeepsThePromise) {
  using T = TypeParam;
  for_each_device([] {
    for (const Sizes& sizes : some_sizes) {
      for (const Format format : formats) {
        for (const bool is_training : {true, false}) {
          const auto call =
              ordinary_gradient_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, sizes), format, is_training);
          SCOPED_TRACE(text_of(call));
          expect_kept(errors<T, batchnorm::parameter_t<T>>(call, run_on_device(call), expected(call), Isa::x86_64_v3));
        }
      }
    }
  });
}

TYPED_TEST(DeviceBackward, TakesEveryAlignment) {
  using T = TypeParam;
  const auto size = static_cast<std::size_t>(16 / sizeof(T));
  for (const Format format : formats) {
    const auto call = ordinary_gradient_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, {3, 9, 35}), format, true);
    const auto want = expected(call);
    for (std::size_t in = 0; in < size; ++in) {
      for (const std::size_t out : {in, (in + 1) % size}) {
        const auto result = run_on_device(call, batchnorm::Identity{}, {in, out});
        expect_kept(errors<T, batchnorm::parameter_t<T>>(call, result, want, Isa::x86_64_v3));
      }
    }
  }
}

// The mean of dy, about 1, is not a float; what is lost of it is in the last coefficient.
TEST(DeviceBackwardPieces, KeepWhatAFloatLosesOfTheMeanOfDy) {
  for_each_device([] {
    for (const Format format : formats) {
      auto call = ordinary_gradient_call<float, float>(shape_of(format, 4, {5, 3, 35}), format, true);
      std::fill(call.dy.begin(), call.dy.end(), 1.0F);
      const Extents e = call.extents();
      for (std::int64_t c = 0; c < e.c; ++c) call.dy[e.index(1, c, 2)] = 1.0F + 0x1p-20F;
      expect_kept(errors<float, float>(call, run_on_device(call), expected(call), Isa::x86_64_v3));
    }
  });
}

}  // namespace
