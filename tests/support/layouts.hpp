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

}  // namespace support
