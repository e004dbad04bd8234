// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include <batchnorm/tensor.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The two memory layouts that every tensor is reduced to. Channels first: n images of c planes of s values next to each other.
/// Channels last: n rows of c channels next to each other, s == 1.
///
/// Where the rows of pictures have gaps between them, images (rows) follow run by run: `run` of them at one distance, then the
/// next run. Channels first, an image is then one row of a picture, and a batch entry has `rows` of them.
///
/// A mask is in memory order: channels first, it has the channels outside or inside of the batch, as x has them.
struct Geometry {
  bool channels_last = false;
  std::int64_t n = 0;
  std::int64_t c = 0;
  std::int64_t s = 1;
  std::int64_t run = n;         ///< images that follow at one distance; n is a multiple of it
  std::int64_t rows = 1;        ///< channels first: images that are rows of one plane
  std::int64_t in_mask = rows;  ///< channels first: images of one channel that follow each other in a mask

  /// Values per channel.
  std::int64_t values() const noexcept { return n * s; }
  std::int64_t elements() const noexcept { return n * c * s; }
  bool is_one_run() const noexcept { return run == n; }
  bool is_of_rows() const noexcept { return rows != 1 || !is_one_run(); }
  /// The image after the last one of the same run.
  std::int64_t end_of_run(std::int64_t image) const noexcept { return (image / run + 1) * run; }

  /// The place of an element in a mask, that is in a dense tensor of this layout, and the distances there between images of a
  /// run and between channels.
  std::int64_t index(std::int64_t image, std::int64_t channel, std::int64_t position = 0) const noexcept {
    return image / in_mask * (in_mask * c * s) + channel * channel_step() + image % in_mask * s + position;
  }
  std::int64_t image_step() const noexcept { return in_mask == 1 ? c * s : s; }
  std::int64_t channel_step() const noexcept { return in_mask * s; }
  /// Whether the channels of an image follow each other, in a mask as in a tensor whose channels are `s` apart.
  bool has_whole_images() const noexcept { return rows == 1 && in_mask == 1; }
};

namespace detail {

/// Extent and stride.
struct Axis {
  std::int64_t extent = 1;
  std::int64_t stride = 0;

  friend bool operator==(const Axis&, const Axis&) = default;
};

}  // namespace detail

/// Where a tensor of some geometry lies: elements from image to image (row to row) and from channel to channel, and, if there
/// are several runs of images, how these follow each other.
struct Pitch {
  std::int64_t outer = 0;
  std::int64_t channel = 1;
  std::int64_t run = 0;                ///< images of a run; 0: there is only one run
  std::array<detail::Axis, 3> runs{};  ///< innermost first

  /// The distance from the first image to this one.
  std::int64_t of_image(std::int64_t image) const noexcept {
    if (run == 0) return image * outer;
    std::int64_t distance = image % run * outer, index = image / run;
    for (const auto& [extent, stride] : runs) {
      distance += index % extent * stride;
      index /= extent;
    }
    return distance;
  }

  friend bool operator==(const Pitch&, const Pitch&) = default;
};

/// The pitch of a dense tensor, whose images are one run.
inline Pitch dense_pitch(const Geometry& g) noexcept { return {g.c * g.s, g.s}; }

/// The axis that holds the channels.
inline int channel_axis(const Shape& shape, Format format) noexcept {
  return format == Format::NCHW || shape.rank() == 2 ? 1 : shape.rank() - 1;
}

namespace detail {

/// Axes [first, last) as one, if their strides allow it. Axes of extent 1 do not matter.
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

/// The axes that make the images of a geometry of rows, innermost first, without those of extent 1.
struct ImageAxes {
  std::array<Axis, Shape::max_rank> of{};
  std::size_t count = 0;

  ImageAxes(const Shape& shape, const Strides& strides, int channel, bool channels_last) noexcept {
    for (int i = shape.rank() - 1; i >= 0; --i) {
      if (i == channel || shape[i] == 1 || (!channels_last && i == last_spatial_axis(shape, channel))) continue;
      of[count++] = {shape[i], strides[static_cast<std::size_t>(i)]};
    }
  }

  static int last_spatial_axis(const Shape& shape, int channel) noexcept {
    return channel == shape.rank() - 1 ? channel - 1 : shape.rank() - 1;
  }
};

/// The pitch in a geometry of rows of pictures.
inline std::optional<Pitch> pitch_of_rows(const Geometry& g, const Shape& shape, const Strides& strides, int channel) noexcept {
  const std::int64_t channel_stride = strides[static_cast<std::size_t>(channel)];
  const std::int64_t in_row = strides[static_cast<std::size_t>(ImageAxes::last_spatial_axis(shape, channel))];
  const bool fits = g.channels_last ? channel_stride == 1 || g.c == 1 : in_row == 1 || g.s == 1;
  if (!fits) return std::nullopt;
  const ImageAxes images(shape, strides, channel, g.channels_last);
  const std::int64_t dense = g.channels_last ? 1 : g.channel_step();
  Pitch pitch{images.of[0].stride, g.c == 1 ? dense : channel_stride, g.run, {}};
  for (std::size_t i = 1; i < images.count; ++i) pitch.runs[i - 1] = images.of[i];
  return pitch;
}

inline std::optional<Pitch> pitch_of_whole_images(const Geometry& g, const Shape& shape, const Strides& strides,
                                                  int channel) noexcept {
  const std::int64_t channel_stride = strides[static_cast<std::size_t>(channel)];
  const bool last = channel == shape.rank() - 1;
  if (g.channels_last) {
    if (channel_stride != 1 && g.c != 1) return std::nullopt;
    if (last) {
      const auto rows = collapse(shape, strides, 0, channel);
      return rows ? std::optional(Pitch{rows->extent == 1 ? g.c : rows->stride, 1}) : std::nullopt;
    }
    // NCHW with the channels innermost: batch and space must make one axis.
    const auto space = collapse(shape, strides, 2, shape.rank());
    if (!space) return std::nullopt;
    const std::int64_t batch_stride = strides[0];
    if (space->extent == 1) return Pitch{shape[0] == 1 ? g.c : batch_stride, 1};
    if (shape[0] != 1 && batch_stride != space->extent * space->stride) return std::nullopt;
    return Pitch{space->stride, 1};
  }
  const std::int64_t channel_pitch = g.c == 1 ? g.s : channel_stride;
  if (last) {
    // One image: all positions of a channel next to each other (a column-major matrix, or a single channel).
    const auto rows = collapse(shape, strides, 0, channel);
    if (!rows || (rows->extent != 1 && rows->stride != 1)) return std::nullopt;
    return Pitch{g.c * g.s, channel_pitch};
  }
  const auto space = collapse(shape, strides, 2, shape.rank());
  if (!space || (space->extent != 1 && space->stride != 1)) return std::nullopt;
  return Pitch{g.n == 1 ? g.c * g.s : strides[0], channel_pitch};
}

}  // namespace detail

/// Where a non-empty tensor lies in a geometry that its shape fits; nothing when its strides do not allow that layout.
inline std::optional<Pitch> pitch_in(const Geometry& g, const Shape& shape, const Strides& strides, Format format) noexcept {
  const int channel = channel_axis(shape, format);
  if (!g.is_of_rows()) return detail::pitch_of_whole_images(g, shape, strides, channel);
  return detail::pitch_of_rows(g, shape, strides, channel);
}

namespace detail {

/// The geometry of a memory layout with whole images.
inline Geometry geometry_of_whole_images(const Shape& shape, int channel, bool channels_last) noexcept {
  std::int64_t values = 1;
  for (int i = 0; i < shape.rank(); ++i) values *= i == channel ? 1 : shape[i];
  if (channels_last) return {true, values, shape[channel], 1};
  const std::int64_t images = channel == shape.rank() - 1 ? 1 : shape[0];
  return {false, images, shape[channel], values / images};
}

/// The geometry in which pictures may have gaps between their rows; nothing where pictures have no rows. It also serves tensors
/// without gaps.
inline std::optional<Geometry> geometry_of_rows(const Shape& shape, int channel, bool channels_last) noexcept {
  const ImageAxes images(shape, {}, channel, channels_last);
  // Where the channels are last in the shape, all images of a channel make one plane.
  const bool is_one_plane = !channels_last && channel == shape.rank() - 1;
  const std::int64_t planes = is_one_plane ? 1 : shape[0];
  if (images.count < (planes == 1 ? 1U : 2U)) return std::nullopt;
  std::int64_t n = 1;
  for (std::size_t i = 0; i < images.count; ++i) n *= images.of[i].extent;
  if (channels_last) return Geometry{true, n, shape[channel], 1, images.of[0].extent};
  const std::int64_t s = shape[ImageAxes::last_spatial_axis(shape, channel)];
  return Geometry{false, n, shape[channel], s, images.of[0].extent, n / planes};
}

/// Channels first: whether masks have the channels outside or inside the batch, where the strides of x determine that.
inline void order_masks(Geometry& g, const Shape& shape, const Strides& strides, int channel) noexcept {
  const auto distance = [&](int axis) {
    const std::int64_t stride = strides[static_cast<std::size_t>(axis)];
    return stride < 0 ? -stride : stride;
  };
  if (g.channels_last || g.c == 1 || shape[0] == 1) return;
  const std::int64_t of_batch = distance(0), of_channel = distance(channel);
  if (of_batch == 0 || of_channel == 0) return;
  if (of_channel > of_batch) g.in_mask = g.n;
  if (of_batch > of_channel) g.in_mask = (std::max<std::int64_t>)(1, g.n / shape[0]);
}

}  // namespace detail

/// The geometry of one of the two memory layouts for tensors of one shape, not empty, of which the first is x: with whole
/// images where all of them allow that; nothing where one of them does not fit that layout.
inline std::optional<Geometry> geometry_in(bool channels_last, const Shape& shape, std::span<const Strides> tensors,
                                           Format format) noexcept {
  const int channel = channel_axis(shape, format);
  const auto serves = [&](const Geometry& g) {
    return std::ranges::all_of(tensors,
                               [&](const Strides& strides) { return pitch_in(g, shape, strides, format).has_value(); });
  };
  std::optional<Geometry> g = detail::geometry_of_whole_images(shape, channel, channels_last);
  if (!serves(*g)) g = detail::geometry_of_rows(shape, channel, channels_last);
  if (!g || !serves(*g)) return std::nullopt;
  detail::order_masks(*g, shape, tensors[0], channel);
  return g;
}

/// The geometry of x alone: the layout that its strides allow, of whole images where they allow that; channels last where both
/// layouts fit and s is 1.
inline std::optional<Geometry> geometry_of(const Shape& shape, const Strides& strides, Format format) noexcept {
  const std::span<const Strides> x(&strides, 1);
  const auto rows = geometry_in(true, shape, x, format), planes = geometry_in(false, shape, x, format);
  if (!rows || !planes) return rows ? rows : planes;
  if (rows->is_of_rows() || planes->is_of_rows()) return rows->is_of_rows() && !planes->is_of_rows() ? planes : rows;
  return planes->s == 1 && planes->c != 1 ? rows : planes;
}

/// What `geometry_of` finds for a dense tensor of that many elements, more than 0, in less time.
inline Geometry dense_geometry(const Shape& shape, std::int64_t elements, Format format) noexcept {
  const bool is_last = format == Format::NHWC || shape.rank() == 2;
  const std::int64_t c = shape[channel_axis(shape, format)], n = is_last ? (c == 1 ? 1 : elements / c) : shape[0];
  const std::int64_t s = elements / n / c;
  return {s == 1 && c != 1, n, c, s};
}

/// The geometry of x and others, of which `of_x` is that of x alone; nothing where they do not lie in one layout. Where x fits
/// both layouts that of the others decides, and masks keep the order of x alone: where that cannot be, there is none.
inline std::optional<Geometry> geometry_of_all(const Geometry& of_x, const Shape& shape, std::span<const Strides> tensors,
                                               Format format) noexcept {
  if (const auto same = geometry_in(of_x.channels_last, shape, tensors, format)) return same;
  auto other = geometry_in(!of_x.channels_last, shape, tensors, format);
  if (!other || other->c == 1) return other;
  if (of_x.channels_last && other->s == 1) {
    other->in_mask = 1;
    return other;
  }
  return of_x.s == 1 && of_x.in_mask == 1 ? other : std::nullopt;
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
