// SPDX-License-Identifier: MIT
#pragma once

// The walk over rows of channels.

#include <batchnorm/cpu/operate_on_rows.hpp>
#include <batchnorm/cpu/problem.hpp>
#include <batchnorm/cpu/sum_columns.hpp>
#include <batchnorm/cpu/widen.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Sums of blocks of a channels-last tensor, rows in memory order.
template <Element T, class Statistic>
class RowBlocks {
 public:
  using Summation = typename Statistic::Summation;
  using Arrays = SumArrays<Summation>;

  RowBlocks(const Machine& machine, const Reduction<T, Statistic>& reduction) noexcept
      : machine_(machine), reduction_(reduction) {}

  /// Doubles of scratch memory that `sums` needs: the arrays of a super-row, and values of bfloat16 as float.
  std::int64_t scratch_doubles() const noexcept { return super_row_doubles() + (widens ? wide_doubles : 0); }

  /// Whether channels may be summed apart.
  bool can_slice() const noexcept { return reduction_.partition.super_row == 1; }

  /// Constants and sums of one block for channels [first, first + channels), all of them unless `can_slice`; `to` has room for
  /// `room` channels from the first on.
  void sums(std::int64_t index, std::int64_t first, std::int64_t channels, std::int64_t room, const Arrays& to,
            double* scratch) const noexcept {
    const Block block = block_at(reduction_.geometry, reduction_.partition, index);
    sum_block(machine_, reduction_, block, first, channels, room, to,
              [&](const auto& summation, const auto& arrays) { add(summation, block, first, channels, arrays, scratch); });
  }

 private:
  static constexpr int inputs = Summation::inputs;
  // half has an instruction that widens as it loads.
  static constexpr bool widens = std::same_as<T, bfloat16>;
  /// Floats that a tile of values becomes: half of the first-level cache; and columns of it, which leave it 8 rows.
  static constexpr std::int64_t wide_floats = 4096, wide_columns = 512;
  static constexpr std::int64_t wide_doubles = (wide_floats + inputs * channel_padding) / 2;

  std::int64_t super_row_columns() const noexcept { return reduction_.partition.super_row * reduction_.geometry.c; }
  std::int64_t super_row_doubles() const noexcept {
    return reduction_.partition.super_row == 1 ? 0 : Arrays::count * padded(super_row_columns());
  }

  template <class Sums>
  void add(const Sums& summation, const Block& block, std::int64_t first, std::int64_t channels, const SumArrays<Sums>& to,
           double* scratch) const noexcept {
    const std::int64_t k = reduction_.partition.super_row, c = reduction_.geometry.c;
    float* floats = reinterpret_cast<float*>(scratch + super_row_doubles());
    if (k == 1) {
      add_rows(summation, block.first_image, block.images, 1, first, channels, to, floats);
      return;
    }
    const auto wide = SumArrays<Sums>::in(scratch, padded(super_row_columns()));
    std::fill_n(scratch, super_row_doubles(), 0.0);
    for (int j = 0; j < Sums::constants; ++j) {
      for (std::int64_t i = 0; i < k; ++i) std::copy_n(to.constant[j], c, wide.constant[j] + i * c);
    }
    const std::int64_t whole = block.images / k, rest = block.images % k;
    add_rows(summation, block.first_image, whole, k, 0, k * c, wide, floats);
    if (rest > 0) add_rows(summation, block.first_image + whole * k, rest, 1, 0, c, to, floats);
    for (int j = 0; j < Sums::sums; ++j) fold(wide.sum[j], k, c, to.sum[j]);
  }

  /// Adds the `rows` rows of `columns` sums up, by halving: a chain of `rows` additions would lose as many roundings.
  static void fold(double* sums, std::int64_t rows, std::int64_t columns, double* to) noexcept {
    while (rows > 1) {
      const std::int64_t half = rows / 2, kept = rows - half;
      for (std::int64_t i = 0; i < half * columns; ++i) sums[i] += sums[kept * columns + i];
      rows = kept;
    }
    for (std::int64_t i = 0; i < columns; ++i) to[i] += sums[i];
  }

  /// Columns [begin, begin + columns) of `rows` rows of `merged` rows of the tensor each, from row `first` on: tiles of a few
  /// rows, so that the sums of many columns are loaded once for several values, and the memory still sees one row after the
  /// other.
  template <class Sums>
  void add_rows(const Sums& summation, std::int64_t first, std::int64_t rows, std::int64_t merged, std::int64_t begin,
                std::int64_t columns, const SumArrays<Sums>& to, [[maybe_unused]] float* floats) const noexcept {
    // At most 8 lines at the same place of rows that are a multiple of 4 KB apart: more do not stay in the first-level cache.
    constexpr std::int64_t least = 8 / inputs, most = 128;
    if constexpr (widens) {
      const std::int64_t some = (std::min)(columns, wide_columns);
      const std::int64_t tile = std::clamp<std::int64_t>(wide_floats / (some * inputs), 1, most);
      for (std::int64_t r = 0; r < rows; r += tile) {
        for (std::int64_t c = 0; c < columns; c += some) {
          add_widened(summation, first + r * merged, (std::min)(tile, rows - r),
                      (std::min)(tile, (std::max<std::int64_t>)(0, rows - r - tile)), merged, begin + c,
                      (std::min)(some, columns - c), to.at(c), floats);
        }
      }
    } else {
      const std::int64_t row_bytes = columns * static_cast<std::int64_t>(sizeof(T)) * inputs;
      const std::int64_t tile = std::clamp<std::int64_t>((16 << 10) / row_bytes, least, most);
      for (std::int64_t r = 0; r < rows; r += tile) {
        const std::int64_t some = (std::min)(tile, rows - r);
        add_tile(summation, first + r * merged, some, (std::min)(tile, rows - r - some), merged, begin, columns, to);
      }
    }
  }

  /// The kernel for a tile whose values are to be read from `kernel.in` on.
  template <Element Read, class Sums>
  SumColumns<Read, Sums> tile_kernel(const Sums& summation, std::int64_t row, std::int64_t rows, std::int64_t merged,
                                     std::int64_t begin, std::int64_t columns, const SumArrays<Sums>& to) const noexcept {
    SumColumns<Read, Sums> kernel{};
    kernel.summation = summation;
    kernel.rows = rows;
    kernel.columns = columns;
    kernel.bits = reduction_.bit_reader();
    kernel.first_bit = reduction_.geometry.index(row, begin);
    kernel.row_bits = merged * reduction_.geometry.c;
    kernel.arrays = to;
    return kernel;
  }

  /// The `after` rows after the tile are prefetched meanwhile.
  template <class Sums>
  void add_tile(const Sums& summation, std::int64_t row, std::int64_t rows, std::int64_t after, std::int64_t merged,
                std::int64_t begin, std::int64_t columns, const SumArrays<Sums>& to) const noexcept {
    SumColumns<T, Sums> kernel = tile_kernel<T>(summation, row, rows, merged, begin, columns, to);
    kernel.in = reduction_.in.at(row, begin);
    reduction_.in.copy_outer(kernel.row_stride);
    for (std::int64_t& stride : kernel.row_stride) stride *= merged;
    kernel.safe_rows = safe_rows(row, rows, begin + columns, merged);
    for (int j = 0; j < inputs && after > 0; ++j) {
      kernel.ahead[static_cast<std::size_t>(j)] =
          Prefetcher(kernel.in.p[j] + rows * kernel.row_stride[j], kernel.row_stride[j], after, columns);
    }
    run(machine_.isa, kernel);
  }

  /// By way of a copy as float in the first-level cache.
  template <class Sums>
  void add_widened(const Sums& summation, std::int64_t row, std::int64_t rows, std::int64_t after, std::int64_t merged,
                   std::int64_t begin, std::int64_t columns, const SumArrays<Sums>& to, float* floats) const noexcept {
    SumColumns<float, Sums> kernel = tile_kernel<float>(summation, row, rows, merged, begin, columns, to);
    WidenRows<T, inputs> widen{reduction_.in.at(row, begin), {}, {}, rows, columns};
    reduction_.in.copy_outer(widen.stride);
    for (int j = 0; j < inputs; ++j) {
      widen.stride[j] *= merged;
      widen.to[j] = floats + j * (rows * columns + channel_padding);
      std::fill_n(widen.to[j] + rows * columns, channel_padding, 0.0F);  // read by the last vector of the last row
      kernel.in.p[j] = widen.to[j];
      kernel.row_stride[j] = columns;
      kernel.ahead[static_cast<std::size_t>(j)] =
          Prefetcher(widen.from.p[j] + rows * widen.stride[j], widen.stride[j], after, columns);
    }
    kernel.safe_rows = rows;
    run(machine_.isa, widen);
    run(machine_.isa, kernel);
  }

  /// Rows from row `first` on in which a vector may reach past the last column: those after which enough of dense tensors
  /// follows.
  std::int64_t safe_rows(std::int64_t first, std::int64_t rows, std::int64_t columns, std::int64_t merged) const noexcept {
    const Geometry& g = reduction_.geometry;
    if (reduction_.is_overwritten || !g.is_one_run() || !reduction_.in.all_outer(g.c)) return 0;
    const std::int64_t after_first = g.elements() - g.index(first, columns) - (pair_of<64> - 1);
    return after_first < 0 ? 0 : (std::min)(rows, after_first / (merged * g.c) + 1);
  }

  Machine machine_;
  Reduction<T, Statistic> reduction_;
};

/// Rows of a matrix whose positions have coefficients of their own: the rows of a channels-last tensor, or the images of a
/// channels-first one whose planes are less than a cache line.
template <Element T, class Operation>
class RowSweep {
 public:
  using Constants = Coefficients<compute_t<T>, Operation::coefficients>;

  RowSweep(const Machine& machine, const Elementwise<T, Operation>& work) noexcept
      : machine_(machine), work_(work), columns_(work.geometry.c * work.geometry.s) {
    const bool is_dense = work.in.all_outer(columns_) && work.out.all_outer(columns_);
    // While the coefficients stay in L1 beside x, one long row is best: it has no ends, and memory is read in order.
    const std::int64_t coefficient_bytes = Operation::coefficients * columns_ * static_cast<std::int64_t>(sizeof(compute_t<T>));
    is_flat_ = is_dense && (coefficient_bytes <= 16 << 10 || columns_ % line_of<T> != 0);
    period_ = is_flat_ ? detail::ceiling(least_period, columns_) * columns_ : columns_;
  }

  /// Positions that the expanded coefficients cover: whole rows, and the line after them that a vector may begin in.
  std::int64_t positions() const noexcept { return period_ + line_of<T>; }

  /// Fills the coefficients of positions from those of channels.
  void expand_coefficients(const Constants& channels, const Constants& to) const noexcept {
    expand(channels, work_.geometry.c, work_.geometry.s, to, positions());
  }

  /// All rows, in ascending order or from the end in blocks, with expanded coefficients.
  void run_all(const Constants& coefficients, bool streams, bool reversed) const noexcept {
    const Tuning& t = *machine_.tuning;
    const std::int64_t row_bytes = columns_ * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t task_bytes = reversed ? t.reverse_block_bytes : machine_.task_bytes(work_.bytes());
    const std::int64_t rows = (std::max<std::int64_t>)(1, task_bytes / row_bytes);
    const std::int64_t tasks = detail::ceiling(work_.geometry.n, rows);
    for_each(machine_, machine_.workers(work_.bytes()), tasks, [&](int, std::int64_t task) {
      const std::int64_t first = (reversed ? tasks - 1 - task : task) * rows;
      run_rows(first, (std::min)(rows, work_.geometry.n - first), coefficients, streams);
    });
  }

  void run_rows(std::int64_t first, std::int64_t rows, const Constants& coefficients, bool streams) const noexcept {
    for_each_run(work_.geometry, first, rows,
                 [&](std::int64_t begin, std::int64_t count) { run_rows_of_run(begin, count, coefficients, streams); });
  }

 private:
  void run_rows_of_run(std::int64_t first, std::int64_t rows, const Constants& coefficients, bool streams) const noexcept {
    const std::int64_t merged = is_flat_ ? rows : 1;  // as one long row
    OperateOnRows<T, Operation> kernel{};
    kernel.operation = work_.operation;
    kernel.in = work_.in.at(first, 0);
    kernel.out = work_.out.at(first, 0);
    work_.in.copy_outer(kernel.in_stride);
    work_.out.copy_outer(kernel.out_stride);
    kernel.rows = rows / merged;
    kernel.length = merged * columns_;
    kernel.period = period_;
    kernel.coefficients = coefficients;
    kernel.bits = work_.bits;
    kernel.first_bit = work_.geometry.index(first, 0);
    kernel.row_bits = work_.geometry.image_step();
    kernel.streams = streams;
    kernel.distance = operation_distance<T>;
    run(machine_.isa, kernel);
  }

  /// Coefficients repeat at least so far apart: a long inner loop, and still a few KB at most of float.
  static constexpr std::int64_t least_period = 512;

  Machine machine_;
  Elementwise<T, Operation> work_;
  std::int64_t columns_;
  bool is_flat_;
  std::int64_t period_;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
