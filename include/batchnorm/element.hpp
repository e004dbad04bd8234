// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The types of elements and parameters.

#include <concepts>
#include <string_view>
#include <type_traits>

#if defined(__has_include) && __has_include(<stdfloat>)
#include <stdfloat>
#endif

#include <Eigen/Core>

namespace batchnorm {

/// IEEE 754 binary16, as Eigen defines it: 2 bytes, conversions from and to float.
using half = Eigen::half;

/// The upper half of a float, with its exponent of 8 bits, as Eigen defines it: 2 bytes, conversions from and to float.
using bfloat16 = Eigen::bfloat16;

namespace detail {

/// The compiler's own types of the same bits as half and bfloat16: _Float16, std::float16_t, std::bfloat16_t.
template <class U>
struct SameBits {};
#if defined(__FLT16_MAX__)
template <>
struct SameBits<_Float16> {
  using type = half;
};
#elif defined(__STDCPP_FLOAT16_T__)
template <>
struct SameBits<std::float16_t> {
  using type = half;
};
#endif
#if defined(__STDCPP_BFLOAT16_T__)
template <>
struct SameBits<std::bfloat16_t> {
  using type = bfloat16;
};
#endif

}  // namespace detail

/// What x and y may hold.
template <class T>
concept Element = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, half> || std::same_as<T, bfloat16>;

/// The default type of scale, bias, mean and variance: double for double, float for all others.
template <Element T>
using parameter_t = std::conditional_t<std::same_as<T, double>, double, float>;

/// The types that scale, bias, mean and variance may have beside x of type T: T = float or half: float or half;
/// T = bfloat16: float or bfloat16; T = double: double.
template <class P, class T>
concept ParameterOf = Element<T> && Element<P> &&
    (std::same_as<P, parameter_t<T>> || (std::same_as<T, half> && std::same_as<P, half>) ||
     (std::same_as<T, float> && std::same_as<P, half>) || (std::same_as<T, bfloat16> && std::same_as<P, bfloat16>));

/// The type in which y is computed before its one rounding: double for double, float for all others.
template <Element T>
using compute_t = std::conditional_t<std::same_as<T, double>, double, float>;

/// The same number as a double.
template <Element T>
double widened(const T& value) noexcept {
  return static_cast<double>(static_cast<compute_t<T>>(value));
}

/// "float", "double", "half", "bfloat16".
template <Element T>
constexpr std::string_view element_name() noexcept {
  if constexpr (std::same_as<T, float>) return "float";
  if constexpr (std::same_as<T, double>) return "double";
  if constexpr (std::same_as<T, half>) return "half";
  if constexpr (std::same_as<T, bfloat16>) return "bfloat16";
}

}  // namespace batchnorm
