// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include <batchnorm/element.hpp>
#include <batchnorm/plan/geometry.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The blocks that statistics are summed in. They decide the result's last bits, so they follow from shape, strides and type
/// alone; how blocks are shared among threads does not matter.
struct Partition {
  std::int64_t blocks = 0;
  std::int64_t of_run = 0;     ///< blocks of each run of images; none reaches into the next run
  std::int64_t images = 1;     ///< images (rows) per block; the last block may hold fewer
  std::int64_t parts = 1;      ///< blocks per plane, when one plane is more than a block; then images == 1
  std::int64_t length = 0;     ///< values of a part; the last part may hold fewer
  bool columns = false;        ///< channels first: small planes are summed column by column
  std::int64_t super_row = 1;  ///< channels last: rows that are summed side by side, so that few channels fill vectors
};

/// The part of a tensor that a block covers.
struct Block {
  std::int64_t first_image, images;
  std::int64_t first_position, length;

  std::int64_t values() const noexcept { return images * length; }
};

inline Block block_at(const Geometry& g, const Partition& p, std::int64_t index) noexcept {
  if (p.parts == 1) {
    const std::int64_t first = index % p.of_run * p.images;
    return {index / p.of_run * g.run + first, (std::min)(p.images, g.run - first), 0, g.s};
  }
  const std::int64_t first = index % p.parts * p.length;
  return {index / p.parts, 1, first, (std::min)(p.length, g.s - first)};
}

namespace detail {

/// One pivot serves so many values: cancellation in the block's variance costs at most log2(8193) of double's 53 bits. double
/// data is summed in two passes with chains of at most 128 additions: 8 chains of 128 on the narrowest instruction set.
template <Element T>
inline constexpr std::int64_t block_values = std::same_as<T, double> ? 1024 : 8192;

/// Planes from this size on are summed run by run, whose ends then cost less than reading with the stride of an image, at which
/// too many lines want the same place of the first-level cache.
inline constexpr std::int64_t least_run = 32;

/// Fewer images than this leave nothing to sum along a column.
inline constexpr std::int64_t column_images = 8;

constexpr std::int64_t ceiling(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

template <Element T>
Partition partition_of_planes(const Geometry& g, bool is_gapless) noexcept {
  Partition p;
  p.columns = g.s < least_run && g.run >= column_images && is_gapless;
  if (g.s > block_values<T>) {
    p.length = ceiling(ceiling(g.s, ceiling(g.s, block_values<T>)), 64) * 64;
    p.parts = ceiling(g.s, p.length);
    p.blocks = g.n * p.parts;
    return p;
  }
  std::int64_t images = (std::max<std::int64_t>)(1, block_values<T> / g.s);
  if (std::same_as<T, double> && p.columns) images = (std::min<std::int64_t>)(images, 128);
  p.images = ceiling(g.run, ceiling(g.run, images));
  p.of_run = ceiling(g.run, p.images);
  p.blocks = g.n / g.run * p.of_run;
  p.length = g.s;
  return p;
}

/// Rows side by side: as many as leave the fewest lanes of a 64-byte vector empty, within 512 columns.
inline std::int64_t super_row_of(std::int64_t c) noexcept {
  std::int64_t best = 1;
  for (std::int64_t k = 1; k * c <= 512; ++k) {
    const auto waste = [c](std::int64_t rows) { return ceiling(rows * c, 16) * 16 - rows * c; };
    const bool too_few = best * c < 64;
    if (too_few || waste(k) * best < waste(best) * k) best = k;
    if (best * c >= 64 && waste(best) == 0) break;  // nothing is better
  }
  return best;
}

template <Element T>
Partition partition_of_rows(const Geometry& g, bool is_gapless) noexcept {
  Partition p;
  p.super_row = is_gapless ? super_row_of(g.c) : 1;
  // About half a megabyte a block: enough of them for many threads. But merging a block costs a channel as much as two dozen
  // rows: wide rows make blocks of 256, where there are enough for 8 of them, and never less than 64.
  const std::int64_t row_bytes = g.c * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t most = std::same_as<T, double> ? 128 * p.super_row : block_values<T>;
  const std::int64_t least = (std::min)(std::clamp<std::int64_t>(g.n / 8, 64, 256), most);
  const std::int64_t rows = std::clamp<std::int64_t>((512 << 10) / row_bytes, least, most);
  const std::int64_t even = ceiling(g.run, ceiling(g.run, rows));
  p.images = (std::min)(ceiling(even, p.super_row) * p.super_row, most);
  p.of_run = ceiling(g.run, p.images);
  p.blocks = g.n / g.run * p.of_run;
  p.length = 1;
  return p;
}

}  // namespace detail

/// `is_gapless`: in every tensor that is summed, the channels of an image (channels last: the rows of a run) lie without gaps.
template <Element T>
Partition partition_of(const Geometry& g, bool is_gapless) noexcept {
  return g.channels_last ? detail::partition_of_rows<T>(g, is_gapless) : detail::partition_of_planes<T>(g, is_gapless);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
