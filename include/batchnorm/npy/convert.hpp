// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <batchnorm/detail/numbers.hpp>
#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npy/tensor.hpp>
#include <batchnorm/tensor.hpp>

/// @file
/// Arrays of one type as tensors of another.

namespace batchnorm::npy {

namespace detail {

using batchnorm::detail::bits_of_magnitude, batchnorm::detail::is_finite;

/// The float next to a number, the one whose last bit is 1 where the number lies between two. Rounding it once more, to a
/// narrower type, gives what rounding the number once would (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums:
/// proved algorithms using rounding to odd", 2008).
inline float rounded_to_odd(double value) noexcept {
  const auto nearest = static_cast<float>(value);
  const auto bits = std::bit_cast<std::uint32_t>(nearest);
  const auto wide = static_cast<double>(nearest);
  const bool is_exact = std::bit_cast<std::uint64_t>(wide) == std::bit_cast<std::uint64_t>(value);
  if (is_exact || !is_finite(value) || !is_finite(wide) || bits % 2 == 1) return nearest;
  return std::bit_cast<float>(bits_of_magnitude(wide) > bits_of_magnitude(value) ? bits - 1 : bits + 1);
}

/// A number as T, rounded once to nearest, ties to even. Beyond the largest number it is infinite.
template <Element T>
T rounded(double value) noexcept {
  if constexpr (std::same_as<T, double> || std::same_as<T, float>) {
    return static_cast<T>(value);
  } else {
    return static_cast<T>(rounded_to_odd(value));
  }
}

inline std::string number_text(double value) {
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), result.ptr};
}

/// The data of an open array whose elements are Source, each as T.
template <Element T, class Source, class Array>
Tensor<T> read_as(Array& array, const Shape& shape, const FileReporter& report) {
  std::vector<Source> values(static_cast<std::size_t>(array.byte_count()) / sizeof(Source));
  array.read(std::as_writable_bytes(std::span(values)), report);
  if (report.failed()) return {};
  Tensor<T> tensor(shape);
  const auto refuse = [&](std::int64_t i, const std::string& value, const std::string& why) {
    report.fail("its value " + std::to_string(i) + " is " + value + why);
    return Tensor<T>();
  };
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    const Source& source = values[static_cast<std::size_t>(i)];
    double value = 0;
    if constexpr (std::same_as<Source, std::int64_t>) {
      constexpr std::int64_t largest = std::int64_t{1} << 53;
      if (source < -largest || source > largest) {
        return refuse(i, std::to_string(source), ", a whole number of more than 53 bits");
      }
      value = static_cast<double>(source);
    } else {
      value = widened(source);
    }
    tensor[i] = rounded<T>(value);
    if (is_finite(value) && !is_finite(widened(tensor[i]))) {
      return refuse(i, number_text(value), ", beyond the range of " + std::string(element_name<T>()));
    }
  }
  return tensor;
}

template <Element T, class Array>
Tensor<T> read_converted(Array& array, const FileReporter& report) {
  const Shape shape{std::span(array.header().shape)};
  const Type type = array.header().type;
  if (type == type_of<T>() && !std::same_as<T, bfloat16>) return detail::read_tensor<T>(array, report);
  switch (type) {
    case Type::float16: return read_as<T, half>(array, shape, report);
    case Type::float32: return read_as<T, float>(array, shape, report);
    case Type::float64: return read_as<T, double>(array, shape, report);
    case Type::int64: break;
  }
  return read_as<T, std::int64_t>(array, shape, report);
}

}  // namespace detail

/// Reads the data of an open array of any type. Each value is rounded once to nearest, ties to even: what is too small becomes
/// subnormal or 0, NaN and the infinities stay what they are. An array of T's own type gives every bit.
///
///   array   npy::Reader, npz::Array
///   error   if given, takes the error instead of a throw; the tensor is then empty
/// @throws FileError   a finite value beyond T's largest, an integer beyond 2^53, or the file cannot be read; the message names
///                     the element
/// @throws std::bad_alloc
template <Element T, class Array>
Tensor<T> read_converted(Array& array, std::optional<Error>* error = nullptr) {
  return detail::read_converted<T>(array, array.reporter(error));
}

}  // namespace batchnorm::npy
