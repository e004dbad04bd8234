// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "parts.hpp"

// One batch in parts, each on a device of its own: the kernels are executed by the emulator, the ranks take turns. Held to the
// promise for the whole batch; every rank has the same bits.
namespace {

using namespace support;

constexpr Sizes some_sizes[] = {{17, 5, 1}, {17, 3, 149}, {17, 33, 15}, {17, 8, 8}};

/// With fast doubles in few slices, with slow ones in many.
template <class Body>
void for_each_device(Body&& body) {
  for (const bool fast : {true, false}) {
    EmulatedDevice device;
    device.adds_doubles_fast = fast;
    if (!fast) device.policy.most_slice_chunks = 8;
    const DeviceScope scope(device);
    SCOPED_TRACE(fast ? "fast doubles, few slices" : "slow doubles, many slices");
    body();
  }
}

/// More ranks than a warp has lanes.
Parts many_parts() {
  Parts parts(41, 0);
  for (std::size_t r = 0; r < 17; ++r) parts[r * 5 % 41] = 1;
  return parts;
}

template <class T>
class DeviceRanks : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(DeviceRanks, ElementTypes);

TYPED_TEST(DeviceRanks, ForwardKeepsThePromiseOfTheWholeBatch) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_device([] {
    for (const Sizes& sizes : some_sizes) {
      for (const Format format : formats) {
        for (const bool is_training : {true, false}) {
          const auto call = ordinary_call<T, P>(shape_of(format, 4, sizes), format, is_training);
          const auto want = expected(call);
          for (const Parts& parts : some_parts) {
            if (!is_training && parts.size() != 3) continue;  // the ranks meet in the same way
            SCOPED_TRACE(text_of(call.shape, format, is_training) + ", " + images_of(parts));
            expect_kept(errors<T, P>(call, run_in_parts<T>(call, parts), want, Isa::x86_64_v3));
          }
        }
      }
    }
  });
}

TYPED_TEST(DeviceRanks, BackwardKeepsThePromiseOfTheWholeBatch) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_device([] {
    for (const Sizes& sizes : some_sizes) {
      for (const Format format : formats) {
        for (const bool is_training : {true, false}) {
          const auto call = ordinary_gradient_call<T, P>(shape_of(format, 4, sizes), format, is_training);
          const auto want = expected(call);
          for (const Parts& parts : some_parts) {
            if (!is_training && parts.size() != 3) continue;  // the ranks meet in the same way
            SCOPED_TRACE(text_of(call) + ", " + images_of(parts));
            expect_kept(errors<T, P>(call, run_in_parts<T>(call, parts), want, Isa::x86_64_v3));
          }
        }
      }
    }
  });
}

TYPED_TEST(DeviceRanks, TakesMoreRanksThanAWarpHasLanesAndEveryAlignment) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Format format : formats) {
    const auto call = ordinary_call<T, P>(shape_of(format, 4, {17, 9, 15}), format, true);
    const auto gradient = ordinary_gradient_call<T, P>(call.shape, format, true);
    const auto want = expected(call);
    const auto want_gradient = expected(gradient);
    expect_kept(errors<T, P>(call, run_in_parts<T>(call, many_parts()), want, Isa::x86_64_v3));
    expect_kept(errors<T, P>(gradient, run_in_parts<T>(gradient, many_parts()), want_gradient, Isa::x86_64_v3));
    for (std::size_t in = 0; in < 16 / sizeof(T); ++in) {
      for (const std::size_t out : {in, std::size_t{1}}) {
        const DeviceOffsets offsets{in, out};
        expect_kept(errors<T, P>(call, run_in_parts<T>(call, {7, 10}, offsets), want, Isa::x86_64_v3));
        expect_kept(errors<T, P>(gradient, run_in_parts<T>(gradient, {7, 10}, offsets), want_gradient, Isa::x86_64_v3));
      }
    }
  }
}

/// Within one ulp at the larger of the two.
template <class P>
void expect_close(const std::vector<P>& got, const std::vector<P>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const Real magnitude = std::max(std::abs(real(got[i])), std::abs(real(want[i])));
    ASSERT_LE(error(got[i], real(want[i])), ulp_at<P>(magnitude)) << i;
  }
}

TYPED_TEST(DeviceRanks, OneRankIsTheCallAloneToRounding) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_device([] {
    for (const Format format : formats) {
      const auto call = ordinary_call<T, P>(shape_of(format, 4, {17, 9, 35}), format, true);
      const auto one = run_in_parts<T>(call, {17}), alone = run_on_device<T>(call);
      expect_close(one.batch_mean, alone.batch_mean);
      expect_close(one.batch_variance, alone.batch_variance);
      expect_close(one.mean, alone.mean);
      expect_close(one.variance, alone.variance);
      // The sums of a backward pass are those of the call alone, bit by bit.
      const auto gradient = ordinary_gradient_call<T, P>(call.shape, format, true);
      EXPECT_TRUE(same(run_in_parts<T>(gradient, {17}), run_on_device<T>(gradient)));
    }
  });
}

}  // namespace
