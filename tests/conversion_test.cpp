// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstring>

#include "support/calls.hpp"

// half and bfloat16 are read exactly and written with one rounding to nearest even, on every instruction set and in both
// layouts: all values, all midpoints of neighbours, and the floats beside them. The expected numbers come from the formats'
// definition.
namespace {

using namespace support;

template <class T>
T from_bits(std::uint16_t bits) {
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, sizeof bits);
  return value;
}

template <class T>
std::uint16_t bits_of(const T& value) {
  std::uint16_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// What finite bits stand for; the first pattern past them, infinity's, stands for the power of two that follows the largest.
template <class T>
double decoded(std::uint16_t bits) {
  constexpr Precision p = precision<T>();
  const int fraction_bits = p.digits - 1;
  const int exponent = (bits & 0x7FFF) >> fraction_bits, fraction = bits & ((1 << fraction_bits) - 1);
  const double magnitude = exponent == 0 ? std::ldexp(fraction, p.lowest - fraction_bits)
                                         : std::ldexp(fraction + (1 << fraction_bits), p.lowest + exponent - 1 - fraction_bits);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <class T>
std::uint16_t infinity_bits() {
  constexpr Precision p = precision<T>();
  return static_cast<std::uint16_t>((p.highest - p.lowest + 2) << (p.digits - 1));
}

template <class T>
bool is_nan(std::uint16_t bits) {
  return (bits & 0x7FFF) > infinity_bits<T>();
}

/// Floats and the bits that they round to.
struct Rounding {
  std::vector<float> from;
  std::vector<std::uint16_t> to;

  void add(float value, unsigned bits) {
    for (const bool negative : {false, true}) {
      from.push_back(negative ? -value : value);
      to.push_back(static_cast<std::uint16_t>(bits | (negative ? 0x8000U : 0U)));
    }
  }
};

/// Every value, every midpoint of neighbours (its even neighbour), and the floats around midpoints.
template <class T>
Rounding roundings() {
  Rounding all;
  const unsigned infinity = infinity_bits<T>();
  for (unsigned bits = 0; bits < infinity; ++bits) {
    const double low = decoded<T>(static_cast<std::uint16_t>(bits)), high = decoded<T>(static_cast<std::uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    EXPECT_EQ(static_cast<double>(middle), (low + high) / 2) << "midpoints are floats";
    all.add(static_cast<float>(low), bits);
    all.add(middle, bits % 2 == 0 ? bits : bits + 1);
    all.add(std::nextafter(middle, 0.0F), bits);
    all.add(std::nextafter(middle, std::numeric_limits<float>::infinity()), bits + 1);
  }
  all.add(std::numeric_limits<float>::infinity(), infinity);
  all.add(std::numeric_limits<float>::max(), infinity);
  if (precision<T>().digits == 11) all.add(1e30F, infinity), all.add(65536.0F, infinity), all.add(1e-30F, 0);
  all.add(std::numeric_limits<float>::denorm_min(), 0);
  return all;
}

template <class T>
class Conversion : public testing::Test {};
using SixteenBits = testing::Types<batchnorm::half, batchnorm::bfloat16>;
struct SixteenBitsNames {
  template <class T>
  static std::string GetName(int) {
    return std::string(batchnorm::element_name<T>());
  }
};
TYPED_TEST_SUITE(Conversion, SixteenBits, SixteenBitsNames);

// Identity: mean 0, variance + epsilon == 1, bias -0 (so that -0 stays -0).
TYPED_TEST(Conversion, EveryValuePassesUnchanged) {
  using T = TypeParam;
  std::vector<T> x(65536);
  for (unsigned bits = 0; bits < 65536; ++bits) x[bits] = from_bits<T>(static_cast<std::uint16_t>(bits));
  for (const Shape& shape : {Shape{1, 1, 65536}, Shape{64, 1024}, Shape{2, 4096, 8}, Shape{16, 256, 4, 4}}) {
    for (std::size_t offset = 0; offset < 2; ++offset) {
      const auto c = shape[1];
      const auto channels = static_cast<std::size_t>(c);
      Call<T, float> call{shape, Format::NCHW, {.is_training = false, .epsilon = 0.5}, x};
      call.bias = std::vector<float>(channels, -0.0F);
      call.mean = std::vector<float>(channels, 0.0F);
      call.variance = std::vector<float>(channels, 0.5F);
      SCOPED_TRACE(to_string(shape));
      for_each_isa([&](Isa) {
        const auto y = run(call, {}, offset, 1 - offset).y;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const std::uint16_t bits = bits_of(x[i]);
          if (is_nan<T>(bits)) {
            ASSERT_TRUE(is_nan<T>(bits_of(y[i]))) << std::hex << bits << " became " << bits_of(y[i]);
          } else {
            ASSERT_EQ(bits_of(y[i]), bits);
          }
        }
      });
    }
  }
}

// x is 0 and y == bias, rounded: bias is a float, one per channel.
TYPED_TEST(Conversion, OutputIsRoundedToNearestEven) {
  using T = TypeParam;
  const Rounding all = roundings<T>();
  const auto channels = static_cast<std::int64_t>(all.from.size());
  for (const std::int64_t s : {1, 3}) {
    for (const Format format : formats) {
      Call<T, float> call{shape_of(format, 3, 1, channels, s), format};
      call.x.assign(all.from.size() * static_cast<std::size_t>(s), from_bits<T>(0));
      call.bias = all.from;
      call.mean = std::vector<float>(all.from.size(), 0.0F);
      call.variance = std::vector<float>(all.from.size(), 1.0F);
      const Extents e = call.extents();
      for_each_isa([&](Isa) {
        const auto y = run(call).y;
        for (std::int64_t c = 0; c < channels; ++c) {
          const auto i = static_cast<std::size_t>(c);
          for (std::int64_t position = 0; position < s; ++position) {
            const std::uint16_t got = bits_of(y[e.index(0, c, position)]);
            // 0 + -0 is 0: the sign of a bias of -0 is lost before it is rounded.
            const bool zero = all.from[i] == 0 && (got & 0x7FFF) == 0;
            ASSERT_TRUE(got == all.to[i] || zero) << all.from[i] << " became " << std::hex << got << ", not " << all.to[i];
          }
        }
      });
    }
  }
}

// Planes of more than a cache line are rounded several vectors at a time.
TYPED_TEST(Conversion, PlanesAreRoundedToNearestEvenBesideNaN) {
  using T = TypeParam;
  const Rounding all = roundings<T>();
  Call<T, float> call{{1, 1, 1}, Format::NCHW};
  constexpr std::int64_t s = 3 * 67;
  std::vector<std::uint16_t> want;
  call.bias.emplace();
  for (std::size_t i = 0; i < all.from.size(); i += 61) {
    call.bias->push_back(all.from[i]);
    want.push_back(all.to[i]);
  }
  const auto channels = static_cast<std::int64_t>(want.size());
  call.shape = Shape{1, channels, s};
  call.x.assign(want.size() * static_cast<std::size_t>(s), from_bits<T>(0));
  call.mean = std::vector<float>(want.size(), 0.0F);
  call.variance = std::vector<float>(want.size(), 1.0F);
  // One in each channel, at every place of a line and of the vectors that two channels share.
  const auto nan_at = [](std::int64_t c) { return c % s; };
  for (std::int64_t c = 0; c < channels; ++c) call.x[static_cast<std::size_t>(c * s + nan_at(c))] = from_bits<T>(0x7FFF);
  for_each_isa([&](Isa) {
    for (const double share : {0.0, 1e9}) {
      batchnorm::Tuning tuning;
      tuning.inference_stream_share = share;
      const auto y = run(call, {.tuning = &tuning}).y;
      for (std::int64_t c = 0; c < channels; ++c) {
        for (std::int64_t i = 0; i < s; ++i) {
          const std::uint16_t got = bits_of(y[static_cast<std::size_t>(c * s + i)]),
                              rounded = want[static_cast<std::size_t>(c)];
          if (i == nan_at(c)) {
            ASSERT_TRUE(is_nan<T>(got)) << "channel " << c << ", element " << i << ": " << std::hex << got;
          } else {
            const bool zero = (rounded & 0x7FFF) == 0 && (got & 0x7FFF) == 0;
            ASSERT_TRUE(got == rounded || zero) << "channel " << c << ", element " << i << ": " << std::hex << got;
          }
        }
      }
    }
  });
}

// One value per channel: the batch mean is x itself, a float, stored as a 16-bit statistic.
TEST(ConversionOfStatistics, HalfStatisticsOfFloatAreRoundedToNearestEven) {
  const Rounding all = roundings<batchnorm::half>();
  const auto channels = static_cast<std::int64_t>(all.from.size());
  Call<float, batchnorm::half> call{{1, channels}, Format::NCHW, {.is_training = true}, all.from};
  for_each_isa([&](Isa) {
    const auto mean = run(call).batch_mean;
    for (std::size_t i = 0; i < mean.size(); ++i) {
      if (std::isinf(all.from[i]) || all.from[i] == 0) continue;
      ASSERT_EQ(bits_of(mean[i]), all.to[i]) << all.from[i];
    }
  });
}

// Payloads must not be shifted out: a NaN whose high payload bits are all zero would turn into infinity.
TYPED_TEST(Conversion, NotANumberStaysNotANumberWhateverItsPayload) {
  using T = TypeParam;
  std::vector<float> bias;
  for (const std::uint32_t payload : {0x1U, 0x1FFFU, 0x2000U, 0xFFFFU, 0x10000U, 0x400000U, 0x7FFFFFU}) {
    for (const std::uint32_t sign : {0U, 0x80000000U}) {
      const std::uint32_t bits = sign | 0x7F800000U | payload;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      bias.push_back(value);
    }
  }
  const auto channels = static_cast<std::int64_t>(bias.size());
  for (const std::int64_t s : {1, 67}) {
    Call<T, float> call{{1, channels, s}, Format::NCHW, {}, std::vector<T>(bias.size() * static_cast<std::size_t>(s))};
    call.bias = bias;
    call.mean = std::vector<float>(bias.size(), 0.0F);
    call.variance = std::vector<float>(bias.size(), 1.0F);
    for_each_isa([&](Isa) {
      for (const T& y : run(call).y) ASSERT_TRUE(is_nan<T>(bits_of(y)));
    });
  }
}

}  // namespace
