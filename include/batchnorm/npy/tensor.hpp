// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <batchnorm/npy/npy.hpp>
#include <batchnorm/tensor.hpp>

/// @file
/// Tensors in the arrays of npy.hpp.

namespace batchnorm::npy {

/// The type as which a file holds elements T. NumPy has no bfloat16: a file holds them as float32, which loses nothing.
template <Element T>
constexpr Type type_of() noexcept {
  if constexpr (std::same_as<T, half>) return Type::float16;
  if constexpr (std::same_as<T, float> || std::same_as<T, bfloat16>) return Type::float32;
  if constexpr (std::same_as<T, double>) return Type::float64;
}

/// The tensor whose elements a file holds: the tensor itself, or of bfloat16 a copy in float.
template <Element T>
decltype(auto) as_written(const Tensor<T>& tensor) {
  if constexpr (std::same_as<T, bfloat16>) {
    Tensor<float> wide(tensor.shape());
    std::ranges::transform(tensor, wide.begin(), [](bfloat16 value) { return static_cast<float>(value); });
    return wide;
  } else {
    return (tensor);
  }
}

/// The header that a file has for a tensor.
template <Element T>
Header header_of(const Tensor<T>& tensor) {
  const auto extents = tensor.shape().extents();
  return {type_of<T>(), {extents.begin(), extents.end()}};
}

/// Calls write(header, data) with the array that a file holds for a tensor.
template <Element T, std::invocable<const Header&, std::span<const std::byte>> Write>
void write_tensor(const Tensor<T>& tensor, Write&& write) {
  const auto& written = as_written(tensor);
  write(header_of(tensor), std::as_bytes(std::span(written.begin(), written.end())));
}

namespace detail {

template <Element T, class Array>
Tensor<T> read_tensor(Array& array, const FileReporter& report) {
  if (!array.is_open()) {
    report.fail("it is not open");
    return {};
  }
  const Header& header = array.header();
  if (header.type != type_of<T>()) {
    report.fail("it is " + type_name(header.type) + ", expected is " + type_name(type_of<T>()) +
                (std::same_as<T, bfloat16> ? ", as which a file holds bfloat16" : ""));
    return {};
  }
  const Shape shape{std::span(header.shape)};
  if constexpr (std::same_as<T, bfloat16>) {
    const Tensor<float> wide = read_tensor<float>(array, report);
    if (report.failed()) return {};
    Tensor<bfloat16> tensor(shape);
    for (std::int64_t i = 0; i < wide.size(); ++i) {
      // A bfloat16 is the upper half of a float, NaNs included.
      const auto bits = std::bit_cast<std::uint32_t>(wide[i]);
      if ((bits & 0xFFFFU) != 0) {
        report.fail("its value " + std::to_string(i) + " is not one of bfloat16's");
        return {};
      }
      tensor[i] = Eigen::bfloat16_impl::raw_uint16_to_bfloat16(static_cast<std::uint16_t>(bits >> 16));
    }
    return tensor;
  } else {
    Tensor<T> tensor(shape);
    array.read(std::as_writable_bytes(std::span(tensor.begin(), tensor.end())), report);
    if (report.failed()) return {};
    return tensor;
  }
}

}  // namespace detail

/// Reads the data of an open array. No value is changed: the array must have the type type_of<T>(), and for bfloat16 each
/// value must be one of bfloat16's.
///
///   array   npy::Reader, npz::Array
///   error   if given, takes the error instead of a throw; the tensor is then empty
/// @throws FileError   another type, a value that bfloat16 lacks, or the file cannot be read
/// @throws std::bad_alloc
template <Element T, class Array>
Tensor<T> read_tensor(Array& array, std::optional<Error>* error = nullptr) {
  return detail::read_tensor<T>(array, array.reporter(error));
}

}  // namespace batchnorm::npy
