// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>

#include <batchnorm/cpu/config.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The two memory layouts that every tensor is reduced to. Channels first: n images of c planes of s values next to each other.
/// Channels last: n rows of c channels next to each other, s == 1.
struct Geometry {
  bool channels_last = false;
  std::int64_t n = 0;
  std::int64_t c = 0;
  std::int64_t s = 1;

  /// Values per channel.
  std::int64_t values() const noexcept { return n * s; }
  std::int64_t elements() const noexcept { return n * c * s; }
  /// The place of an element in a dense tensor of this layout.
  std::int64_t index(std::int64_t image, std::int64_t channel, std::int64_t position = 0) const noexcept {
    return (image * c + channel) * s + position;
  }
};

/// Where a tensor of some geometry lies: elements from image to image (row to row) and from channel to channel.
struct Pitch {
  std::int64_t outer = 0;
  std::int64_t channel = 1;

  friend bool operator==(const Pitch&, const Pitch&) = default;
};

/// The pitch of a dense tensor.
inline Pitch dense_pitch(const Geometry& g) noexcept { return {g.c * g.s, g.s}; }

/// The axis that holds the channels.
inline int channel_axis(const Shape& shape, Format format) noexcept {
  return format == Format::NCHW || shape.rank() == 2 ? 1 : shape.rank() - 1;
}

namespace detail {

/// Axes [first, last) as one: extent and stride, if their strides allow it. Axes of extent 1 do not matter.
struct Axis {
  std::int64_t extent = 1;
  std::int64_t stride = 1;
};

inline std::optional<Axis> collapse(const Shape& shape, const Strides& strides, int first, int last) noexcept {
  Axis axis;
  bool begun = false;
  for (int i = last - 1; i >= first; --i) {
    const std::int64_t extent = shape[i], stride = strides[static_cast<std::size_t>(i)];
    if (extent == 1) continue;
    if (begun && stride != axis.stride * axis.extent) return std::nullopt;
    if (!begun) axis.stride = stride;
    axis.extent *= extent;
    begun = true;
  }
  if (!begun) axis.stride = 0;  // a single position: any stride fits
  return axis;
}

}  // namespace detail

/// Where a non-empty tensor lies in a geometry that its shape fits; nothing when its strides do not allow that layout.
inline std::optional<Pitch> pitch_in(const Geometry& g, const Shape& shape, const Strides& strides, Format format) noexcept {
  const int channel = channel_axis(shape, format);
  const std::int64_t channel_stride = strides[static_cast<std::size_t>(channel)];
  const bool last = channel == shape.rank() - 1;
  if (g.channels_last) {
    if (channel_stride != 1 && g.c != 1) return std::nullopt;
    if (last) {
      const auto rows = detail::collapse(shape, strides, 0, channel);
      return rows ? std::optional(Pitch{rows->extent == 1 ? g.c : rows->stride, 1}) : std::nullopt;
    }
    // NCHW with the channels innermost: batch and space must make one axis.
    const auto space = detail::collapse(shape, strides, 2, shape.rank());
    if (!space) return std::nullopt;
    const std::int64_t batch_stride = strides[0];
    if (space->extent == 1) return Pitch{shape[0] == 1 ? g.c : batch_stride, 1};
    if (shape[0] != 1 && batch_stride != space->extent * space->stride) return std::nullopt;
    return Pitch{space->stride, 1};
  }
  const std::int64_t channel_pitch = g.c == 1 ? g.s : channel_stride;
  if (last) {
    // One image: all positions of a channel next to each other (a column-major matrix, or a single channel).
    const auto rows = detail::collapse(shape, strides, 0, channel);
    if (!rows || (rows->extent != 1 && rows->stride != 1)) return std::nullopt;
    return Pitch{g.c * g.s, channel_pitch};
  }
  const auto space = detail::collapse(shape, strides, 2, shape.rank());
  if (!space || (space->extent != 1 && space->stride != 1)) return std::nullopt;
  return Pitch{g.n == 1 ? g.c * g.s : strides[0], channel_pitch};
}

/// The geometry of a non-empty tensor: the layout that its strides allow; channels last where both do and s is 1.
inline std::optional<Geometry> geometry_of(const Shape& shape, const Strides& strides, Format format) noexcept {
  const int channel = channel_axis(shape, format);
  const bool last = channel == shape.rank() - 1;
  std::int64_t values = 1, space = 1;
  for (int i = 0; i < shape.rank(); ++i) {
    values *= i == channel ? 1 : shape[i];
    space *= i == channel || i == 0 ? 1 : shape[i];
  }
  const std::int64_t c = shape[channel];
  const Geometry rows{true, values, c, 1};
  const Geometry planes = last ? Geometry{false, 1, c, values} : Geometry{false, shape[0], c, space};
  const bool fits_rows = pitch_in(rows, shape, strides, format).has_value();
  const bool fits_planes = pitch_in(planes, shape, strides, format).has_value();
  if (fits_rows && (!fits_planes || (planes.s == 1 && c != 1))) return rows;
  if (fits_planes) return planes;
  return std::nullopt;
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
