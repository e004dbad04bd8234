// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Formats and shapes.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include <batchnorm/errors.hpp>

namespace batchnorm {

/// Which axis holds the channels. Rank 2 is (N, C) in both.
enum class Format {
  NCHW,  ///< (N, C, spatial...), channels first
  NHWC   ///< (N, spatial..., C), channels last
};

/// "NCHW" or "NHWC".
constexpr std::string_view to_string(Format format) noexcept { return format == Format::NCHW ? "NCHW" : "NHWC"; }

/// The format of that name, in capitals.
/// @throws ValueError   any other name; the message lists the known ones
inline Format parse_format(std::string_view name) {
  for (const Format format : {Format::NCHW, Format::NHWC}) {
    if (name == to_string(format)) return format;
  }
  detail::fail<ValueError>("batchnorm: unknown format '" + std::string(name) + "', known are NCHW and NHWC");
}

/// The extents of a tensor, outermost first; at most max_rank of them. Rank 0 (no extents) is the shape of nothing.
class Shape {
 public:
  static constexpr int max_rank = 8;  ///< the most extents that a shape has

  /// Rank 0.
  constexpr Shape() = default;

  /// These extents, as in Shape{8, 64, 14, 14}. They may be anything; what takes a shape checks them.
  /// @throws ShapeError   more than max_rank extents
  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}

  /// These extents, outermost first.
  /// @throws ShapeError   more than max_rank extents
  explicit Shape(std::span<const std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
    if (extents.size() > static_cast<std::size_t>(max_rank)) {
      detail::fail<ShapeError>("batchnorm::Shape: rank " + std::to_string(extents.size()) + " exceeds the largest, " +
                               std::to_string(max_rank));
    }
    for (std::size_t axis = 0; axis < extents.size(); ++axis) extents_[axis] = extents[axis];
  }

  constexpr int rank() const noexcept { return rank_; }  ///< the number of extents

  /// Extent of an axis in [0, rank()).
  constexpr std::int64_t operator[](int axis) const noexcept { return extents_[static_cast<std::size_t>(axis)]; }

  /// All extents, outermost first; valid as long as this shape is.
  constexpr std::span<const std::int64_t> extents() const noexcept {
    return std::span(extents_).first(static_cast<std::size_t>(rank_));
  }

  /// Of the same rank, with the same extents.
  friend constexpr bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, max_rank> extents_{};
  int rank_ = 0;
};

/// "[8, 64, 14, 14]", as error messages print a shape.
inline std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(shape[axis]);
  }
  return text + "]";
}

namespace detail {

/// Calls refuse more elements of a tensor, and more channels or values of one: so sizes in bytes of what they need do not
/// overflow, though a stride of 0 lets any number of elements share memory, and doubles count them.
inline constexpr std::int64_t most_elements = std::int64_t{1} << 53;

/// The number of elements of a shape, or what a message says around the name of a tensor that cannot have it.
struct ElementCount {
  std::int64_t elements = 0;
  const char* before_name = nullptr;  // null where nothing is wrong
  const char* after_name = nullptr;
};

inline ElementCount count_elements(const Shape& shape) noexcept {
  std::int64_t product = 1;
  bool empty = false;
  bool overflow = false;
  for (const std::int64_t extent : shape.extents()) {
    if (extent < 0) return {0, "", " has a negative extent"};
    empty = empty || extent == 0;
    overflow = __builtin_mul_overflow(product, extent == 0 ? 1 : extent, &product) || overflow;
  }
  if (overflow) return {0, "the number of elements of ", " overflows 64 bits"};
  return {empty ? 0 : product};
}

inline std::string problem_of(const ElementCount& count, const Shape& shape, std::string_view name) {
  return std::string(count.before_name).append(name).append(count.after_name).append(", its shape is ") + to_string(shape);
}

}  // namespace detail

/// Number of elements: the product of the extents, 0 when one of them is 0, 1 for rank 0.
/// @throws ShapeError   a negative extent, or a product beyond 2^63 - 1; `call` and `name` stand in the message
inline std::int64_t element_count(const Shape& shape, std::string_view call = "batchnorm",
                                  std::string_view name = "the tensor") {
  const detail::ElementCount count = detail::count_elements(shape);
  if (count.before_name == nullptr) return count.elements;
  detail::fail<ShapeError>(std::string(call).append(": ") + detail::problem_of(count, shape, name));
}

}  // namespace batchnorm
