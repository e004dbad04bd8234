// SPDX-License-Identifier: MIT
#pragma once

// Numbers that a call is given, told apart by their bits: a compiler that is told that there is no NaN (-ffast-math,
// -ffinite-math-only) takes every comparison with one for true or for false, as it likes.

#include <bit>
#include <cstdint>

namespace batchnorm::detail {

inline constexpr std::uint64_t bits_of_one = 0x3ff0'0000'0000'0000, bits_of_infinity = 0x7ff0'0000'0000'0000;

/// The bits of a number that is not NaN and not below 0, in the order of the numbers; of any other, more than those of
/// infinity.
constexpr std::uint64_t bits_from_0(double value) noexcept {
  const auto bits = std::bit_cast<std::uint64_t>(value);
  constexpr std::uint64_t minus_0 = std::uint64_t{1} << 63;
  return bits == minus_0 ? 0 : bits;
}

constexpr bool is_from_0_to_1(double value) noexcept { return bits_from_0(value) <= bits_of_one; }
constexpr bool is_from_0(double value) noexcept { return bits_from_0(value) <= bits_of_infinity; }
constexpr bool is_above_0(double value) noexcept { return is_from_0(value) && bits_from_0(value) != 0; }
constexpr bool is_finite_from_0(double value) noexcept { return bits_from_0(value) < bits_of_infinity; }

/// The bits of |value|.
constexpr std::uint64_t bits_of_magnitude(double value) noexcept {
  return std::bit_cast<std::uint64_t>(value) & ~std::uint64_t{0} >> 1;
}

constexpr bool is_finite(double value) noexcept { return bits_of_magnitude(value) < bits_of_infinity; }

}  // namespace batchnorm::detail
