// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/calls.hpp"

// The mask that the forward pass stores for the gradient: numpy.packbits(y > 0 or y is NaN, bitorder="little") of y as it was
// rounded, in the memory order of a dense tensor laid out like x.
namespace {

using namespace support;
using batchnorm::Relu;

/// Bits of y in the order in which it is given; those after the last are 0.
template <class T>
std::vector<std::uint8_t> packed(const std::vector<T>& y) {
  std::vector<std::uint8_t> bytes((y.size() + 7) / 8);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const Real value = real(y[i]);
    if (value > 0 || std::isnan(value)) bytes[i / 8] = static_cast<std::uint8_t>(bytes[i / 8] | 1U << i % 8);
  }
  return bytes;
}

template <class T>
struct Masked {
  std::vector<T> y;
  std::vector<std::uint8_t> mask;
};

/// y and mask of the call with an epilogue, both between guards, the mask prefilled with ones.
template <class T, class P, class E>
Masked<T> run_masked(const Call<T, P>& call, const E& epilogue, std::size_t offset = 0) {
  Guarded<T> y(call.x.size(), offset, element<T>(unwritten));
  Guarded<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(call.shape)), 3 * offset, 0xFF);
  auto mean = *call.mean, variance = *call.variance;
  batchnorm::batch_norm<T, P>(call.format, call.options, {call.x.data(), call.shape}, view(call.scale), view(call.bias), mean,
                              variance, {.output_x = {y.data(), call.shape}, .mask = mask.values()}, epilogue);
  EXPECT_TRUE(y.guards_intact()) << "bytes beside y were written";
  EXPECT_TRUE(mask.guards_intact()) << "bytes beside the mask were written";
  return {{y.values().begin(), y.values().end()}, {mask.values().begin(), mask.values().end()}};
}

template <class T, class P, class E>
std::vector<T> run_without_mask(const Call<T, P>& call, const E& epilogue) {
  std::vector<T> y(call.x.size());
  auto mean = *call.mean, variance = *call.variance;
  batchnorm::batch_norm<T, P>(call.format, call.options, {call.x.data(), call.shape}, view(call.scale), view(call.bias), mean,
                              variance, {{y.data(), call.shape}}, epilogue);
  return y;
}

// Planes and rows of every length modulo 8 and modulo a vector; long planes; many small planes; one element.
constexpr Sizes odd_sizes[] = {{1, 1, 1},    {3, 5, 7},    {2, 3, 8},  {2, 3, 63},  {2, 3, 64},  {2, 3, 65},
                               {2, 3, 613},  {9, 33, 15},  {41, 2, 1}, {17, 67, 1}, {5, 257, 1}, {8, 64, 49},
                               {7, 31, 49},  {3, 2, 5003}, {33, 9, 4}, {1, 7, 1},   {1, 9, 1},   {13, 8, 1},
                               {2, 16, 512}, {1, 3, 511},  {64, 3, 2}, {6, 1, 9}};

template <class T>
class Mask : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(Mask, ElementTypes);

template <class T, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : odd_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(call);
      }
    }
  }
}

TYPED_TEST(Mask, TellsWhereTheRoundedOutputIsPositive) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -3, 3, 21);
    for_each_isa([&](Isa) {
      for (std::size_t offset = 0; offset < 3; ++offset) {
        const auto relu = run_masked(call, Relu{}, offset);
        EXPECT_TRUE(same_bits(relu.mask, packed(relu.y)));
        const auto sum = run_masked(call, LeakySum<T>{{residual.data(), call.shape}, {0.25}}, offset);
        EXPECT_TRUE(same_bits(sum.mask, packed(sum.y)));
      }
    });
  });
}

TYPED_TEST(Mask, DoesNotChangeTheOutput) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -3, 3, 22);
    const LeakySum<T> sum{{residual.data(), call.shape}, {0.01}};
    for_each_isa([&](Isa) {
      EXPECT_TRUE(same_bits(run_masked(call, Relu{}).y, run_without_mask(call, Relu{})));
      EXPECT_TRUE(same_bits(run_masked(call, sum).y, run_without_mask(call, sum)));
    });
  });
}

/// An inference call whose normalised values are those of x, whatever they are: epsilon is below half an ulp of 1.
template <class T>
Call<T, batchnorm::parameter_t<T>> identical_call(const Sizes& sizes, Format format) {
  using P = batchnorm::parameter_t<T>;
  Call<T, P> call{shape_of(format, 3, sizes), format, {.is_training = false, .epsilon = 1e-30}};
  const auto channels = static_cast<std::size_t>(sizes.c);
  call.mean.emplace(channels, P(0));
  call.variance.emplace(channels, P(1));
  call.x.resize(static_cast<std::size_t>(sizes.n * sizes.c * sizes.s));
  return call;
}

TYPED_TEST(Mask, OfZeroIsZeroAndOfNotANumberOne) {
  using T = TypeParam;
  const double special[] = {0.0, -0.0, std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN(),
                            1.0, -1.0, std::numeric_limits<double>::infinity(),  -std::numeric_limits<double>::infinity()};
  for (const Sizes& sizes : {Sizes{3, 5, 67}, Sizes{41, 2, 1}, Sizes{9, 33, 15}}) {
    for (const Format format : formats) {
      auto call = identical_call<T>(sizes, format);
      Random random(31);
      std::vector<bool> want;
      const std::vector<T> zeros(call.x.size(), T(0));
      for (T& x : call.x) {
        const std::int64_t kind = random.integer(0, 7);
        x = element<T>(special[kind]);
        want.push_back(kind == 2 || kind == 3 || kind == 4 || kind == 6);
      }
      for_each_isa([&](Isa) {
        const LeakySum<T> leaky{{zeros.data(), call.shape}, {0.25}};
        for (const auto& mask : {run_masked(call, Relu{}).mask, run_masked(call, leaky).mask}) {
          for (std::size_t i = 0; i < want.size(); ++i) {
            ASSERT_EQ((mask[i / 8] >> i % 8 & 1) != 0, want[i]) << "x is " << real(call.x[i]);
          }
        }
      });
    }
  }
}

// z > 0 in the type that computes, y == 0 once it is rounded: the gradient must not pass where backward from y would stop it.
TYPED_TEST(Mask, OfAnOutputThatRoundsToZeroIsZero) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  // The smallest T is 2^lowest / 2^(digits - 1); a quarter of it rounds to 0, three quarters do not.
  const int smallest = precision<T>().lowest - (precision<T>().digits - 1);
  for (const Sizes& sizes : {Sizes{3, 5, 67}, Sizes{41, 2, 1}, Sizes{9, 33, 15}}) {
    for (const Format format : formats) {
      auto call = identical_call<T>(sizes, format);
      call.scale.emplace(static_cast<std::size_t>(sizes.c), element<P>(0.25));
      Random random(32);
      for (T& x : call.x) x = element<T>(std::ldexp(static_cast<double>(random.integer(0, 3)), smallest));
      for_each_isa([&](Isa) {
        const auto got = run_masked(call, Relu{});
        EXPECT_TRUE(same_bits(got.mask, packed(got.y)));
        for (std::size_t i = 0; i < got.y.size(); ++i) {
          const bool passes = real(call.x[i]) > std::ldexp(Real(2.5), smallest);  // 3, of which a quarter rounds up
          ASSERT_EQ((got.mask[i / 8] >> i % 8 & 1) != 0, passes) << "x is " << real(call.x[i]);
        }
      });
    }
  }
}

TYPED_TEST(Mask, WithTheOutputOnItsInputIsTheSame) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    for_each_isa([&](Isa) {
      const auto beside = run_masked(call, Relu{});
      std::vector<T> both = call.x;
      std::vector<std::uint8_t> mask(beside.mask.size());
      auto mean = *call.mean, variance = *call.variance;
      batchnorm::batch_norm<T, batchnorm::parameter_t<T>>(call.format, call.options, {both.data(), call.shape},
                                                          view(call.scale), view(call.bias), mean, variance,
                                                          {.output_x = {both.data(), call.shape}, .mask = mask}, Relu{});
      EXPECT_TRUE(same_bits(both, beside.y) && same_bits(mask, beside.mask));
    });
  });
}

// The same memory under both names has the same mask: bits follow the memory, not the name.
TYPED_TEST(Mask, FollowsTheMemoryOrderOfX) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Sizes& sizes : odd_sizes) {
    const auto nhwc = ordinary_call<T, P>(shape_of(Format::NHWC, 4, sizes), Format::NHWC, true);
    const Shape nchw = shape_of(Format::NCHW, 4, sizes);
    const batchnorm::Strides strides{sizes.s * sizes.c, 1, nchw[3] * sizes.c, sizes.c};
    SCOPED_TRACE(to_string(nhwc.shape));
    for_each_isa([&](Isa) {
      const auto want = run_masked(nhwc, Relu{});
      std::vector<T> y(nhwc.x.size());
      std::vector<std::uint8_t> mask(want.mask.size());
      auto mean = *nhwc.mean, variance = *nhwc.variance;
      batchnorm::batch_norm<T, P>(Format::NCHW, nhwc.options, {nhwc.x.data(), nchw, strides}, view(nhwc.scale), view(nhwc.bias),
                                  mean, variance, {.output_x = {y.data(), nchw, strides}, .mask = mask}, Relu{});
      EXPECT_TRUE(same_bits(y, want.y) && same_bits(mask, want.mask));
    });
  }
}

TEST(MaskBytes, IsOneBitPerElement) {
  EXPECT_EQ(batchnorm::mask_bytes({1, 1}), 1);
  EXPECT_EQ(batchnorm::mask_bytes({2, 4}), 1);
  EXPECT_EQ(batchnorm::mask_bytes({3, 3}), 2);
  EXPECT_EQ(batchnorm::mask_bytes({8, 64, 14, 14}), 12544);
  EXPECT_EQ(batchnorm::mask_bytes({0, 64}), 0);
}

// Rows whose coefficients do not stay in the first-level cache are worked on a few at a time, whatever their length: they share
// bytes of the mask.
TYPED_TEST(Mask, OfWideRowsOfAnyLength) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const std::int64_t channels : {1503, 1504, 2049, 3001}) {
    const auto call = ordinary_call<T, P>(Shape{11, channels}, Format::NHWC, false);
    const Masked<T> got = run_masked(call, Relu{});
    EXPECT_EQ(got.mask, packed(got.y)) << channels;
    for (std::int64_t row = 0; row < 11; ++row) {
      auto alone = call;
      alone.shape = Shape{1, channels};
      const auto begin = call.x.begin() + row * channels;
      alone.x.assign(begin, begin + channels);
      const std::vector<T> y(got.y.begin() + row * channels, got.y.begin() + (row + 1) * channels);
      EXPECT_TRUE(same_bits(run_masked(alone, Relu{}).y, y)) << channels << " channels, row " << row;
    }
  }
}

}  // namespace
