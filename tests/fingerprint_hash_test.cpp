// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <set>

#include "support/fingerprint.hpp"

// The hash of the fingerprint tests must notice every bit, and no difference between NaNs.
namespace {

using namespace support;
using support::fingerprint::Hash;

template <class T>
std::uint64_t hash_of(const std::vector<T>& values) {
  Hash hash;
  hash.add(values);
  return hash.value();
}

template <class T>
using BitsOf =
    std::conditional_t<sizeof(T) == 8, std::uint64_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;

template <class T>
T with_bits(std::uint64_t bits) {
  const auto own = static_cast<BitsOf<T>>(bits);
  T value{};
  std::memcpy(static_cast<void*>(&value), &own, sizeof value);
  return value;
}

template <class T>
std::uint64_t infinity() {
  BitsOf<T> bits = 0;
  const T value = element<T>(std::numeric_limits<double>::infinity());
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class T>
class FingerprintHash : public testing::Test {};
TYPED_TEST_SUITE(FingerprintHash, support::fingerprint::Elements, support::fingerprint::ElementNames);

TYPED_TEST(FingerprintHash, ChangesWithEveryBitOfEveryElement) {
  using T = TypeParam;
  constexpr int width = 8 * sizeof(T);
  const std::vector<T> values(11, with_bits<T>(infinity<T>() / 4 + 5));  // far from NaN, whichever bit flips
  std::set<std::uint64_t> seen{hash_of(values)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (int bit = 0; bit < width; ++bit) {
      auto changed = values;
      changed[i] = with_bits<T>((infinity<T>() / 4 + 5) ^ std::uint64_t{1} << bit);
      EXPECT_TRUE(seen.insert(hash_of(changed)).second) << "bit " << bit << " of element " << i;
    }
  }
  EXPECT_TRUE(seen.insert(hash_of(std::vector<T>(10, values[0]))).second);
  EXPECT_NE(hash_of(std::vector<T>{T(0), T(0)}), hash_of(std::vector<T>{T(-0.0F), T(-0.0F)}));
}

TYPED_TEST(FingerprintHash, TakesAllNaNsForOneAndNothingElseForNaN) {
  using T = TypeParam;
  constexpr int width = 8 * sizeof(T);
  const std::uint64_t sign = std::uint64_t{1} << (width - 1), above = infinity<T>() + 1;
  const auto hash_with = [](std::uint64_t bits) {
    std::vector<T> values(9, T(1));
    values[2] = values[8] = with_bits<T>(bits);
    return hash_of(values);
  };
  for (const std::uint64_t nan : {above, above + 1, sign - 1, sign | above, sign | (sign - 1)}) {
    EXPECT_EQ(hash_with(nan), hash_with(above)) << nan;
  }
  const std::set<std::uint64_t> all{
      hash_with(above), hash_with(infinity<T>()), hash_with(sign | infinity<T>()), hash_with(infinity<T>() - 1),
      hash_with(0),     hash_with(sign)};
  EXPECT_EQ(all.size(), 6U);
}

}  // namespace
