// SPDX-License-Identifier: MIT
#pragma once

// The walk over rows of channels.

#include <batchnorm/cpu/problem.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Sums of blocks of a channels-last tensor, rows in memory order.
template <Element T>
class RowBlocks {
 public:
  RowBlocks(const Machine& machine, const Input<T>& input) noexcept : machine_(machine), input_(input) {}

  /// Doubles of scratch memory that `sums` needs: pivot and sums of a super-row.
  std::int64_t scratch_doubles() const noexcept { return input_.partition.super_row == 1 ? 0 : 3 * padded(columns()); }

  /// Pivot and sums of one block for all channels.
  void sums(std::int64_t index, const BlockSums& to, double* scratch) const noexcept {
    const Block block = block_at(input_.geometry, input_.partition, index);
    const std::int64_t c = input_.geometry.c;
    std::fill_n(to.pivot, padded(c), 0.0);
    for (std::int64_t i = 0; i < c; ++i) to.pivot[i] = pivot_of(*input_.at(block.first_image, i));
    std::fill_n(to.sum, padded(c), 0.0);
    std::fill_n(to.sum_sq, padded(c), 0.0);
    add(block, to, scratch);
    if constexpr (std::same_as<T, double>) {
      run(machine_.isa, RefinePivots{to, c, block.values()});
      add(block, to, scratch);
    }
  }

 private:
  std::int64_t columns() const noexcept { return input_.partition.super_row * input_.geometry.c; }

  void add(const Block& block, const BlockSums& to, double* scratch) const noexcept {
    const std::int64_t k = input_.partition.super_row, c = input_.geometry.c;
    if (k == 1) {
      add_rows(block.first_image, block.images, c, input_.pitch.outer, to);
      return;
    }
    const BlockSums wide{scratch, scratch + padded(columns()), scratch + 2 * padded(columns())};
    std::fill_n(wide.pivot, 3 * padded(columns()), 0.0);
    for (std::int64_t i = 0; i < k; ++i) std::copy_n(to.pivot, c, wide.pivot + i * c);
    const std::int64_t whole = block.images / k, rest = block.images % k;
    add_rows(block.first_image, whole, k * c, k * c, wide);
    if (rest > 0) add_rows(block.first_image + whole * k, rest, c, c, to);
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j < c; ++j) {
        to.sum[j] += wide.sum[i * c + j];
        to.sum_sq[j] += wide.sum_sq[i * c + j];
      }
    }
  }

  /// `rows` rows of `columns` values from row `first` of x on: tiles of a few rows, so that the accumulators of many columns
  /// are loaded once for several values, and the memory still sees one row after the other.
  void add_rows(std::int64_t first, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                const BlockSums& to) const noexcept {
    const std::int64_t tile = std::clamp<std::int64_t>((16 << 10) / (columns * static_cast<std::int64_t>(sizeof(T))), 8, 128);
    for (std::int64_t r = 0; r < rows; r += tile) {
      const T* x = input_.at(first, 0) + r * stride;
      const std::int64_t some = (std::min)(tile, rows - r);
      Prefetcher<T> ahead;
      if (r + some < rows) ahead = Prefetcher<T>(x + some * stride, stride, (std::min)(tile, rows - r - some), columns);
      run(machine_.isa,
          ColumnSums<T>{x, stride, some, columns, safe_rows(x, some, columns, stride), to.pivot, to.sum, to.sum_sq, ahead});
    }
  }

  /// Rows from x on in which a vector may reach past the last column: those after which enough of a dense x follows.
  std::int64_t safe_rows(const T* x, std::int64_t rows, std::int64_t columns, std::int64_t stride) const noexcept {
    const Geometry& g = input_.geometry;
    if (input_.pitch.outer != g.c) return 0;
    const std::int64_t after_first = input_.x + g.elements() - (x + columns) - (pair_of<64> - 1);
    return after_first < 0 ? 0 : (std::min)(rows, after_first / stride + 1);
  }

  Machine machine_;
  Input<T> input_;
};

/// Rows of a matrix whose positions have coefficients of their own: the rows of a channels-last tensor, or the images of a
/// channels-first one whose planes are less than a cache line.
template <Element T, class Activation, bool adds_residual>
class RowSweep {
 public:
  using Compute = compute_t<T>;

  RowSweep(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output) noexcept
      : machine_(machine), input_(input), output_(output), columns_(input.geometry.c * input.geometry.s) {
    const bool is_dense = input.pitch.outer == columns_ && output.pitch.outer == columns_ &&
                          (!adds_residual || output.residual_pitch.outer == columns_);
    // While the coefficients stay in L1 beside x, one long row is best: it has no ends, and memory is read in order.
    const std::int64_t coefficient_bytes = 3 * columns_ * static_cast<std::int64_t>(sizeof(Compute));
    is_flat_ = is_dense && (coefficient_bytes <= 16 << 10 || columns_ % line_of<T> != 0);
    period_ = is_flat_ ? detail::ceiling(least_period, columns_) * columns_ : columns_;
  }

  /// Positions that the expanded coefficients cover: whole rows, and the line behind them that a vector may begin in.
  std::int64_t positions() const noexcept { return period_ + line_of<T>; }

  /// Normalises all rows, in ascending order or from the end in blocks.
  void normalize(const Coefficients<Compute>& channels, const Coefficients<Compute>& positions, bool streams,
                 bool reversed) const noexcept {
    expand(channels, input_.geometry.c, input_.geometry.s, positions, this->positions());
    const Tuning& t = *machine_.tuning;
    const std::int64_t row_bytes = columns_ * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t task_bytes = reversed ? t.reverse_block_bytes : t.sweep_task_bytes;
    const std::int64_t rows = (std::max<std::int64_t>)(1, task_bytes / row_bytes);
    const std::int64_t tasks = detail::ceiling(input_.geometry.n, rows);
    for_each(machine_, machine_.workers(input_.bytes()), tasks, [&](int, std::int64_t task) {
      const std::int64_t first = (reversed ? tasks - 1 - task : task) * rows;
      normalize_rows(first, (std::min)(rows, input_.geometry.n - first), positions, streams);
    });
  }

 private:
  void normalize_rows(std::int64_t first, std::int64_t rows, const Coefficients<Compute>& positions,
                      bool streams) const noexcept {
    const std::int64_t merged = is_flat_ ? rows : 1;  // as one long row
    run(machine_.isa, RowNormalize<T, Activation, adds_residual>{input_.at(first, 0),
                                                                 output_.residual_at(first, 0),
                                                                 output_.at(first, 0),
                                                                 input_.pitch.outer,
                                                                 output_.residual_pitch.outer,
                                                                 output_.pitch.outer,
                                                                 rows / merged,
                                                                 merged * columns_,
                                                                 period_,
                                                                 positions,
                                                                 output_.normalization,
                                                                 streams,
                                                                 {}});
  }

  /// Coefficients repeat at least so far apart: a long inner loop, and still 6 KB at most of float.
  static constexpr std::int64_t least_period = 512;

  Machine machine_;
  Input<T> input_;
  Output<T, Activation, adds_residual> output_;
  std::int64_t columns_;
  bool is_flat_;
  std::int64_t period_;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
