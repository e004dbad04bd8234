// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "calls.hpp"
#include "codes.hpp"

namespace c_interface {

using batchnorm::ShapeError, batchnorm::ValueError;

/// The arrays of a call as views that stay within their lengths.
class Views {
 public:
  explicit Views(const Setting& setting)
      : call_(setting.name),
        shape_(setting.shape),
        channels_(shape_[batchnorm::cpu::channel_axis(shape_, setting.format)]),
        is_empty_(batchnorm::element_count(shape_) == 0) {}

  /// A tensor that a call needs; without an address it is left to the call to refuse it.
  template <class T, class Given>
  batchnorm::TensorView<T> tensor(std::string_view name, const Given& given) const {
    check_memory<T>(name, given.data, given.length);
    const batchnorm::Strides strides = strides_of(name, given);
    if (given.offset < 0 || given.offset > given.length) {
      refuse<ShapeError>(name, ".offset is " + std::to_string(given.offset) + ", expected 0 to length, which is " +
                                   std::to_string(given.length));
    }
    if (given.data == nullptr) return {nullptr, shape_, strides};
    if (!is_empty_) check_reach(name, given.length, given.offset, strides);
    return {static_cast<T*>(given.data) + given.offset, shape_, strides};
  }

  template <class T, class Given>
  batchnorm::TensorView<T> optional_tensor(std::string_view name, const Given& given) const {
    const batchnorm::TensorView<T> view = tensor<T>(name, given);
    return given.data == nullptr ? batchnorm::TensorView<T>() : view;
  }

  /// A vector of the length that was given; the call compares it with C. Without channels an address means nothing, and NULL is
  /// none of absence.
  template <class P, class Given>
  batchnorm::TensorView<P> vector(std::string_view name, const Given& given) const {
    check_memory<P>(name, given.data, given.length);
    if (given.data == nullptr && channels_ != 0) return {};
    return {static_cast<P*>(given.data), batchnorm::Shape{given.length}};
  }

  /// Bytes of the length that was given; absent without an address.
  template <class B, class Given>
  batchnorm::TensorView<B> bytes(std::string_view name, const Given& given) const {
    check_memory<B>(name, given.data, given.length);
    if (given.data == nullptr) return {};
    return {static_cast<B*>(given.data), batchnorm::Shape{given.length}};
  }

 private:
  template <class Error>
  [[noreturn]] void refuse(std::string_view name, const std::string& what) const {
    batchnorm::detail::fail<Error>(std::string(call_).append(": ").append(name) + what);
  }

  /// An address and a length that can belong together.
  template <class T>
  void check_memory(std::string_view name, const void* data, std::int64_t length) const {
    if (data == nullptr && length != 0) {
      refuse<ValueError>(name, ".data is NULL while its length is " + std::to_string(length));
    }
    if (length < 0) refuse<ShapeError>(name, ".length is " + std::to_string(length) + ", it must be at least 0");
    const std::uintptr_t after = std::numeric_limits<std::uintptr_t>::max() - reinterpret_cast<std::uintptr_t>(data);
    if (static_cast<std::uint64_t>(length) > after / sizeof(T)) {
      refuse<ShapeError>(name, ".length is " + std::to_string(length) + ", which reaches beyond any memory");
    }
  }

  template <class Given>
  batchnorm::Strides strides_of(std::string_view name, const Given& given) const {
    const std::int64_t expected = given.strides == nullptr ? 0 : shape_.rank();
    if (given.strides_length != expected) {
      refuse<ShapeError>(name, ".strides_length is " + std::to_string(given.strides_length) + ", expected " +
                                   std::to_string(expected) + (expected == 0 ? ", since strides is NULL" : ", the rank"));
    }
    if (given.strides == nullptr) return batchnorm::dense_strides(shape_);
    check_address(call_, std::string(name) + ".strides", given.strides);
    batchnorm::Strides strides{};
    std::copy_n(given.strides, shape_.rank(), strides.begin());
    return strides;
  }

  /// All elements of a tensor that has some lie in its memory.
  void check_reach(std::string_view name, std::int64_t length, std::int64_t offset, const batchnorm::Strides& strides) const {
    std::int64_t before = 0, after = 0;  // of the element whose indices are all 0
    for (int axis = 0; axis < shape_.rank(); ++axis) {
      const std::int64_t stride = strides[static_cast<std::size_t>(axis)];
      std::int64_t& side = stride < 0 ? before : after;
      std::int64_t distance = 0;
      if (__builtin_mul_overflow(shape_[axis] - 1, stride, &distance) || __builtin_add_overflow(side, distance, &side)) {
        refuse<ValueError>(name, " has strides " + text_of(strides) + ", which reach beyond any memory");
      }
    }
    if (before < -offset) {
      const std::uint64_t needed = 0 - static_cast<std::uint64_t>(before);
      refuse<ShapeError>(
          name, ".offset is " + std::to_string(offset) + ", expected at least " + std::to_string(needed) + about(strides));
    }
    if (after >= length - offset) {
      const std::uint64_t needed = static_cast<std::uint64_t>(offset) + static_cast<std::uint64_t>(after) + 1;
      refuse<ShapeError>(name, ".length is " + std::to_string(length) + ", expected at least " + std::to_string(needed) +
                                   about(strides) + (offset == 0 ? "" : " and offset " + std::to_string(offset)));
    }
  }

  std::string about(const batchnorm::Strides& strides) const {
    return " for the shape " + to_string(shape_) + " with strides " + text_of(strides);
  }

  std::string text_of(const batchnorm::Strides& strides) const {
    return to_string(batchnorm::Shape(std::span(strides).first(static_cast<std::size_t>(shape_.rank()))));
  }

  std::string_view call_;
  batchnorm::Shape shape_;
  std::int64_t channels_;
  bool is_empty_;
};

}  // namespace c_interface
