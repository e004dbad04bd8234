// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include <batchnorm/cpu/config.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The two memory layouts that every tensor is reduced to. Channels first: n images of c planes of s values next to each other.
/// Channels last: n rows of c channels next to each other, s == 1.
///
/// Where the rows of pictures have gaps behind them, images (rows) follow run by run: `run` of them at one distance, then the
/// next run. Channels first, an image is then one row of a picture, and a batch entry has `rows` of them.
struct Geometry {
  bool channels_last = false;
  std::int64_t n = 0;
  std::int64_t c = 0;
  std::int64_t s = 1;
  std::int64_t run = n;   ///< images that follow at one distance; n is a multiple of it
  std::int64_t rows = 1;  ///< channels first: images that are rows of one plane

  /// Values per channel.
  std::int64_t values() const noexcept { return n * s; }
  std::int64_t elements() const noexcept { return n * c * s; }
  bool is_one_run() const noexcept { return run == n; }
  bool is_of_rows() const noexcept { return rows != 1 || !is_one_run(); }
  /// The image behind the last one of the same run.
  std::int64_t end_of_run(std::int64_t image) const noexcept { return (image / run + 1) * run; }

  /// The place of an element in a dense tensor of this layout, and the distances there between images of a run and between
  /// channels.
  std::int64_t index(std::int64_t image, std::int64_t channel, std::int64_t position = 0) const noexcept {
    return image / rows * (rows * c * s) + channel * channel_step() + image % rows * s + position;
  }
  std::int64_t image_step() const noexcept { return rows == 1 ? c * s : s; }
  std::int64_t channel_step() const noexcept { return rows * s; }
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

/// The geometry of a memory layout in which pictures may have gaps behind their rows; nothing where pictures have no rows. It
/// serves tensors without gaps, too.
inline std::optional<Geometry> geometry_of_rows(const Shape& shape, Format format, bool channels_last) noexcept {
  const int channel = channel_axis(shape, format);
  const detail::ImageAxes images(shape, {}, channel, channels_last);
  // Where the channels are outermost in memory and last in the shape, all images of a channel make one plane.
  const bool is_one_plane = !channels_last && channel == shape.rank() - 1;
  const std::int64_t planes = is_one_plane ? 1 : shape[0];
  if (images.count < (planes == 1 ? 1U : 2U)) return std::nullopt;
  std::int64_t n = 1;
  for (std::size_t i = 0; i < images.count; ++i) n *= images.of[i].extent;
  if (channels_last) return Geometry{true, n, shape[channel], 1, images.of[0].extent};
  const std::int64_t s = shape[detail::ImageAxes::last_spatial_axis(shape, channel)];
  return Geometry{false, n, shape[channel], s, images.of[0].extent, n / planes};
}

/// The geometry of a non-empty tensor: the layout that its strides allow, of whole images where they allow that; channels last
/// where both layouts fit and s is 1.
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
  for (const bool channels_last : {true, false}) {
    const auto of_rows = geometry_of_rows(shape, format, channels_last);
    if (of_rows && pitch_in(*of_rows, shape, strides, format)) return of_rows;
  }
  return std::nullopt;
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
