// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <batchnorm/tensor.hpp>

#include "calls.hpp"

// Tensors that are slices of larger ones.
namespace support {

using batchnorm::Strides;

/// Where the elements of a tensor lie in a buffer of `size` elements.
struct Layout {
  Strides strides{};
  std::int64_t first = 0, size = 0;
};

/// body(dense index, place in the buffer) for every element.
template <class Body>
void for_each_place(const Shape& shape, const Layout& layout, Body&& body) {
  const std::int64_t count = batchnorm::element_count(shape);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t rest = i, place = layout.first;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      place += rest % shape[axis] * layout.strides[static_cast<std::size_t>(axis)];
      rest /= shape[axis];
    }
    body(static_cast<std::size_t>(i), static_cast<std::size_t>(place));
  }
}

template <class T>
std::vector<T> scattered(const std::vector<T>& dense, const Shape& shape, const Layout& layout) {
  std::vector<T> buffer(static_cast<std::size_t>(layout.size), element<T>(unwritten));
  for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { buffer[place] = dense[i]; });
  return buffer;
}

inline Layout dense(const Shape& shape) { return {batchnorm::dense_strides(shape), 0, batchnorm::element_count(shape)}; }

/// Channels [2, 2 + C) of a dense tensor with five channels more.
inline Layout channel_slice(Format format, const Sizes& sizes) {
  const std::int64_t wide = sizes.c + 5;
  const Shape outer = shape_of(format, 4, sizes.n, wide, sizes.s);
  return {batchnorm::dense_strides(outer), format == Format::NCHW ? 2 * sizes.s : 2, sizes.n * wide * sizes.s};
}

/// 5 meaningless elements after each row of a picture, and 11 more after each picture.
inline Layout padded_pictures(const Shape& shape, Format format) {
  Layout layout;
  std::int64_t stride = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    layout.strides[static_cast<std::size_t>(axis)] = stride;
    stride *= shape[axis];
    const int last_spatial = format == Format::NCHW ? shape.rank() - 1 : shape.rank() - 2;
    if (axis == last_spatial) stride += 5;
    if (axis == 1) stride += 11;
  }
  return {layout.strides, 3, stride + 3};
}

inline const Shape some_pictures[] = {{1, 3, 5, 7},  {3, 2, 4, 33},    {9, 17, 4, 3}, {2, 4, 3, 5, 6}, {2, 3, 100, 90},
                                      {1, 1, 9, 20}, {2, 1, 6, 2, 17}, {2, 5, 1, 30}, {40, 3, 2, 2}};

}  // namespace support
