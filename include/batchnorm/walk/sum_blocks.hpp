// SPDX-License-Identifier: MIT
#pragma once

// Sums of blocks, over planes (channels first) and over rows (channels last).

#include <batchnorm/walk/tensors.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// An operation that goes on beside sums.
struct Companion {
  const BesideKernels& kernels;
  const void* operation;
  PlanesToOperateOn planes;
  Progress progress;

  bool is_done() const noexcept { return progress.image >= planes.images; }
};

/// Sums blocks of a tensor.
class BlockSummation {
 public:
  BlockSummation(const Machine& machine, const Sums& sums) noexcept
      : isa_(machine.isa), tile_bytes_(machine.tuning->column_group_bytes / 2), sums_(sums) {}

  /// Doubles of scratch memory that `add` needs: the arrays of columns or of a super-row, and values of bfloat16 as float.
  std::int64_t scratch_doubles() const noexcept;

  /// Constants and sums of block `index` for channels [first, first + channels) (channels last: all of them where super-rows
  /// have several rows); `to` has room for `room` channels from the first on. The companion, unless null, goes on meanwhile,
  /// but not beside columns, nor beside a second pass.
  void add(std::int64_t index, std::int64_t first, std::int64_t channels, std::int64_t room, const SumArrays& to,
           double* scratch, Companion* companion) const noexcept;

 private:
  /// One pass over a block.
  struct Pass {
    const SumKernels& kernels;
    const void* summation;
  };

  void add_pass(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels, const SumArrays& to,
                double* scratch, Companion* companion) const noexcept;
  void add_planes(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels, const SumArrays& to,
                  Companion* companion) const noexcept;
  void add_columns(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels, const SumArrays& to,
                   double* scratch) const noexcept;
  void add_rows_of_block(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels, const SumArrays& to,
                         double* scratch) const noexcept;

  /// Rows of the tensor, `merged` of them side by side, and the columns of these that are summed.
  struct Rows {
    std::int64_t first, count, merged;
    std::int64_t begin, columns;

    /// `some` rows from row r on, columns [c, c + width).
    Rows part(std::int64_t r, std::int64_t some, std::int64_t c, std::int64_t width) const noexcept {
      return {first + r * merged, some, merged, begin + c, width};
    }
  };

  void add_rows(const Pass& pass, const Rows& rows, const SumArrays& to, float* floats) const noexcept;
  void add_tile(const Pass& pass, const Rows& tile, std::int64_t after, const SumArrays& to) const noexcept;
  void add_widened(const Pass& pass, const Rows& tile, std::int64_t after, const SumArrays& to, float* floats) const noexcept;
  ColumnsToSum columns_of(const Rows& tile, const SumArrays& to) const noexcept;
  std::int64_t safe_images(const Block& block, std::int64_t end) const noexcept;
  std::int64_t safe_rows(const Rows& tile) const noexcept;
  std::int64_t super_row_doubles() const noexcept;

  Isa isa_;
  std::int64_t tile_bytes_;  // of planes summed in columns: this tile and the next share half of L2
  const Sums& sums_;
};

// ----------------------------------------------------------------------------------------------------------------------------

namespace detail {

/// Per-position arrays of the column form, for one tile of adjacent planes.
inline constexpr std::int64_t column_positions = 4096, column_stride = column_positions + channel_padding;

/// Floats that a tile of values becomes: half of the first-level cache; and columns of it, which leave it 8 rows.
inline constexpr std::int64_t wide_floats = 4096, wide_columns = 512;

/// Runs of fewer values are short: their sums are closed before a long chain of additions could have begun.
inline constexpr std::int64_t long_run = 128;

/// Adds `rows` rows of `columns` sums by halving: a chain of `rows` additions would lose as many roundings.
inline void fold(double* sums, std::int64_t rows, std::int64_t columns, double* to) noexcept {
  while (rows > 1) {
    const std::int64_t half = rows / 2, kept = rows - half;
    for (std::int64_t i = 0; i < half * columns; ++i) sums[i] += sums[kept * columns + i];
    rows = kept;
  }
  for (std::int64_t i = 0; i < columns; ++i) to[i] += sums[i];
}

}  // namespace detail

inline std::int64_t BlockSummation::super_row_doubles() const noexcept {
  const std::int64_t k = sums_.partition.super_row;
  return k == 1 ? 0 : sums_.array_count() * padded(k * sums_.geometry.c);
}

inline std::int64_t BlockSummation::scratch_doubles() const noexcept {
  if (!sums_.geometry.channels_last) {
    return sums_.partition.columns ? sums_.array_count() * detail::column_stride : 0;
  }
  const std::int64_t floats = detail::wide_floats + sums_.kernels.inputs * channel_padding;
  return super_row_doubles() + (sums_.kernels.widen != nullptr ? floats / 2 : 0);
}

inline void BlockSummation::add(std::int64_t index, std::int64_t first, std::int64_t channels, std::int64_t room,
                                const SumArrays& to, double* scratch, Companion* companion) const noexcept {
  const StatisticKernels& k = sums_.kernels;
  const Block block = block_at(sums_.geometry, sums_.partition, index);
  for (int j = 0; j < k.sums.constants; ++j) {  // the last vector reads beyond the channels
    std::fill(to.constant[static_cast<std::size_t>(j)] + channels, to.constant[static_cast<std::size_t>(j)] + room, 0.0);
  }
  for (int j = 0; j < k.sums.sums; ++j) std::fill_n(to.sum[static_cast<std::size_t>(j)], room, 0.0);
  k.begin(sums_.statistic, sums_.in, block, first, channels, to);
  const Pass sums{k.sums, sums_.summation};
  if (k.refine == nullptr) return add_pass(sums, block, first, channels, to, scratch, companion);
  add_pass({k.rough, sums_.rough}, block, first, channels, to, scratch, companion);
  k.refine(sums_.statistic, isa_, block, channels, to);
  add_pass(sums, block, first, channels, to, scratch, nullptr);
}

inline void BlockSummation::add_pass(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels,
                                     const SumArrays& to, double* scratch, Companion* companion) const noexcept {
  if (sums_.geometry.channels_last) return add_rows_of_block(pass, block, first, channels, to, scratch);
  if (sums_.partition.columns) return add_columns(pass, block, first, channels, to, scratch);
  add_planes(pass, block, first, channels, to, companion);
}

inline void BlockSummation::add_planes(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels,
                                       const SumArrays& to, Companion* companion) const noexcept {
  const Geometry& g = sums_.geometry;
  const PlanesToSum planes{sums_.pointers(block.first_image, first, block.first_position),
                           pitches(sums_.in, &Pitch::outer),
                           pitches(sums_.in, &Pitch::channel),
                           block.images,
                           channels,
                           block.length,
                           sums_.bit_reader(),
                           g.index(block.first_image, first, block.first_position),
                           g.image_step(),
                           g.channel_step(),
                           to};
  const bool is_short = block.length < detail::long_run;
  if (companion != nullptr) {
    const SumBeside beside = is_short ? companion->kernels.short_planes : companion->kernels.planes;
    return beside(pass.summation, planes, companion->operation, companion->planes, companion->progress);
  }
  (is_short ? pass.kernels.short_planes : pass.kernels.planes)(pass.summation, planes);
}

/// Tiles of channels that stay in L2 while they are summed down the images, each prefetched in memory order.
inline void BlockSummation::add_columns(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels,
                                        const SumArrays& to, double* scratch) const noexcept {
  const Geometry& g = sums_.geometry;
  const std::int64_t s = g.s, value_bytes = sums_.kernels.value_bytes;
  const std::int64_t channel_bytes = block.images * s * value_bytes * sums_.kernels.inputs;
  const std::int64_t most = (std::min)(tile_bytes_ / channel_bytes, detail::column_positions / s);
  const std::int64_t tile = (std::min)(channels, (std::max<std::int64_t>)(1, most));
  const SumArrays wide = SumArrays::in(scratch, detail::column_stride, pass.kernels.constants, pass.kernels.sums);
  ColumnsToSum columns{};
  columns.row_stride = pitches(sums_.in, &Pitch::outer);
  columns.rows = block.images;
  columns.bits = sums_.bit_reader();
  columns.row_bits = g.image_step();
  columns.arrays = wide;
  for (std::int64_t c = 0; c < channels; c += tile) {
    const std::int64_t some = (std::min)(tile, channels - c), next = (std::min)(tile, channels - c - some);
    for (std::size_t j = 0; j < static_cast<std::size_t>(pass.kernels.constants); ++j) {
      for (std::int64_t i = 0; i < some; ++i) std::fill_n(wide.constant[j] + i * s, s, to.constant[j][c + i]);
      std::fill_n(wide.constant[j] + some * s, channel_padding, 0.0);
    }
    for (std::size_t j = 0; j < static_cast<std::size_t>(pass.kernels.sums); ++j) {
      std::fill_n(wide.sum[j], some * s + channel_padding, 0.0);
    }
    columns.in = sums_.pointers(block.first_image, first + c);
    columns.columns = some * s;
    columns.safe_rows = safe_images(block, first + c + some);
    columns.first_bit = g.index(block.first_image, first + c);
    columns.ahead = {};
    for (std::size_t j = 0; j < static_cast<std::size_t>(sums_.kernels.inputs) && next > 0; ++j) {
      columns.ahead[j] = Prefetcher(columns.in[j] + some * s * value_bytes, columns.row_stride[j] * value_bytes, block.images,
                                    next * s * value_bytes);
    }
    pass.kernels.columns(pass.summation, columns);
    for (std::size_t j = 0; j < static_cast<std::size_t>(pass.kernels.sums); ++j) {
      run(isa_, SumSegments{wide.sum[j], some, s, to.sum[j] + c});
    }
  }
}

/// Images of the block in which a vector may reach past the last value of the channel before `end`.
inline std::int64_t BlockSummation::safe_images(const Block& block, std::int64_t end) const noexcept {
  const Geometry& g = sums_.geometry;
  if (sums_.is_overwritten || g.is_of_rows()) return 0;
  constexpr std::int64_t reach = pair_of<64> - 1;
  if ((g.c - end) * g.s >= reach) return block.images;
  const bool is_dense = have_pitch(sums_.in, sums_.kernels.inputs, &Pitch::outer, g.c * g.s);
  const bool next_image_follows = block.first_image + block.images < g.n;
  if (!is_dense || g.c * g.s < reach) return 0;
  return next_image_follows ? block.images : block.images - 1;
}

inline void BlockSummation::add_rows_of_block(const Pass& pass, const Block& block, std::int64_t first, std::int64_t channels,
                                              const SumArrays& to, double* scratch) const noexcept {
  const std::int64_t k = sums_.partition.super_row, c = sums_.geometry.c;
  float* floats = reinterpret_cast<float*>(scratch + super_row_doubles());
  if (k == 1 || block.images < k) return add_rows(pass, {block.first_image, block.images, 1, first, channels}, to, floats);
  const SumArrays wide = SumArrays::in(scratch, padded(k * c), pass.kernels.constants, pass.kernels.sums);
  std::fill_n(scratch, super_row_doubles(), 0.0);
  for (std::size_t j = 0; j < static_cast<std::size_t>(pass.kernels.constants); ++j) {
    for (std::int64_t i = 0; i < k; ++i) std::copy_n(to.constant[j], c, wide.constant[j] + i * c);
  }
  const std::int64_t whole = block.images / k, rest = block.images % k;
  add_rows(pass, {block.first_image, whole, k, 0, k * c}, wide, floats);
  if (rest > 0) add_rows(pass, {block.first_image + whole * k, rest, 1, 0, c}, to, floats);
  for (std::size_t j = 0; j < static_cast<std::size_t>(pass.kernels.sums); ++j) detail::fold(wide.sum[j], k, c, to.sum[j]);
}

/// Tiles of a few rows, so that the sums of many columns are loaded once for several values, and the memory still sees one row
/// after the other.
inline void BlockSummation::add_rows(const Pass& pass, const Rows& rows, const SumArrays& to, float* floats) const noexcept {
  // At most 8 lines at the same place of rows that are a multiple of 4 KB apart: more do not stay in the first-level cache.
  constexpr std::int64_t most = 128;
  const std::int64_t inputs = sums_.kernels.inputs, least = 8 / inputs;
  if (sums_.kernels.widen != nullptr) {
    const std::int64_t width = (std::min)(rows.columns, detail::wide_columns);
    const std::int64_t tile = std::clamp<std::int64_t>(detail::wide_floats / (width * inputs), 1, most);
    for (std::int64_t r = 0; r < rows.count; r += tile) {
      const std::int64_t after = (std::min)(tile, (std::max<std::int64_t>)(0, rows.count - r - tile));
      for (std::int64_t c = 0; c < rows.columns; c += width) {
        const Rows part = rows.part(r, (std::min)(tile, rows.count - r), c, (std::min)(width, rows.columns - c));
        add_widened(pass, part, after, to.at(c), floats);
      }
    }
    return;
  }
  const std::int64_t row_bytes = rows.columns * sums_.kernels.value_bytes * inputs;
  // An even number, since rows are added two at a time (SumColumns): which two must not depend on how many columns there are.
  const std::int64_t tile = std::clamp<std::int64_t>((16 << 10) / row_bytes / 2 * 2, least, most);
  for (std::int64_t r = 0; r < rows.count; r += tile) {
    const std::int64_t some = (std::min)(tile, rows.count - r);
    add_tile(pass, rows.part(r, some, 0, rows.columns), (std::min)(tile, rows.count - r - some), to);
  }
}

inline ColumnsToSum BlockSummation::columns_of(const Rows& tile, const SumArrays& to) const noexcept {
  ColumnsToSum columns{};
  columns.rows = tile.count;
  columns.columns = tile.columns;
  columns.bits = sums_.bit_reader();
  columns.first_bit = sums_.geometry.index(tile.first, tile.begin);
  columns.row_bits = tile.merged * sums_.geometry.c;
  columns.arrays = to;
  return columns;
}

/// The `after` rows after the tile are prefetched meanwhile.
inline void BlockSummation::add_tile(const Pass& pass, const Rows& tile, std::int64_t after,
                                     const SumArrays& to) const noexcept {
  const std::int64_t value_bytes = sums_.kernels.value_bytes;
  ColumnsToSum columns = columns_of(tile, to);
  columns.in = sums_.pointers(tile.first, tile.begin);
  columns.row_stride = pitches(sums_.in, &Pitch::outer);
  for (std::int64_t& stride : columns.row_stride) stride *= tile.merged;
  columns.safe_rows = safe_rows(tile);
  for (std::size_t j = 0; j < static_cast<std::size_t>(sums_.kernels.inputs) && after > 0; ++j) {
    const std::int64_t row = columns.row_stride[j] * value_bytes;
    columns.ahead[j] = Prefetcher(columns.in[j] + tile.count * row, row, after, tile.columns * value_bytes);
  }
  pass.kernels.columns(pass.summation, columns);
}

/// By way of a copy as float in the first-level cache.
inline void BlockSummation::add_widened(const Pass& pass, const Rows& tile, std::int64_t after, const SumArrays& to,
                                        float* floats) const noexcept {
  const std::int64_t value_bytes = sums_.kernels.value_bytes;
  ColumnsToSum columns = columns_of(tile, to);
  RowsToWiden widened{sums_.pointers(tile.first, tile.begin), pitches(sums_.in, &Pitch::outer), {}, tile.count, tile.columns};
  for (std::size_t j = 0; j < static_cast<std::size_t>(sums_.kernels.inputs); ++j) {
    widened.stride[j] *= tile.merged;
    const std::int64_t row = widened.stride[j] * value_bytes;
    float* copy = floats + static_cast<std::int64_t>(j) * (tile.count * tile.columns + channel_padding);
    std::fill_n(copy + tile.count * tile.columns, channel_padding, 0.0F);  // read by the last vector of the last row
    widened.to[j] = copy;
    columns.in[j] = reinterpret_cast<const std::byte*>(copy);
    columns.row_stride[j] = tile.columns;
    columns.ahead[j] = Prefetcher(widened.from[j] + tile.count * row, row, after, tile.columns * value_bytes);
  }
  columns.safe_rows = tile.count;
  sums_.kernels.widen(widened);
  pass.kernels.widened_columns(pass.summation, columns);
}

/// Rows of the tile in which a vector may reach past the last column: those after which enough of dense tensors follows.
inline std::int64_t BlockSummation::safe_rows(const Rows& tile) const noexcept {
  const Geometry& g = sums_.geometry;
  const bool is_dense = have_pitch(sums_.in, sums_.kernels.inputs, &Pitch::outer, g.c);
  if (sums_.is_overwritten || !g.is_one_run() || !is_dense) return 0;
  const std::int64_t after_first = g.elements() - g.index(tile.first, tile.begin + tile.columns) - (pair_of<64> - 1);
  return after_first < 0 ? 0 : (std::min)(tile.count, after_first / (tile.merged * g.c) + 1);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
