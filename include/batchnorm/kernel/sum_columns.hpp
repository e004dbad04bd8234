// SPDX-License-Identifier: MIT
#pragma once

// Sums over interleaved columns: channels-last tensors (row = one or several positions, column = channel) and the smallest
// planes of a channels-first tensor (row = image, column = one value of a run of adjacent planes).

#include <algorithm>
#include <array>

#include <batchnorm/kernel/operands.hpp>
#include <batchnorm/vector/prefetcher.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Adds, for each column, the sums over the rows. The arrays hold `columns` rounded up to whole pairs.
/// The first `safe_rows` rows may be read past their last column, up to a whole pair; what is found there is not used.
template <Element T, class Summation>
struct SumColumns {
  static constexpr int inputs = Summation::inputs;

  BATCHNORM_INLINE SumColumns(const void* policy, const ColumnsToSum& a)
      : summation(*static_cast<const Summation*>(policy)),
        in(Pointers<const T, inputs>::of(a.in)),
        rows(a.rows),
        columns(a.columns),
        safe_rows(a.safe_rows),
        bits(a.bits),
        first_bit(a.first_bit),
        row_bits(a.row_bits),
        arrays(a.arrays) {
    copy_strides(a.row_stride, row_stride);
    BATCHNORM_UNROLL
    for (std::size_t j = 0; j < inputs; ++j) ahead[j] = a.ahead[j];
  }

  Summation summation;
  Pointers<const T, inputs> in;
  std::int64_t row_stride[inputs];
  std::int64_t rows, columns, safe_rows;
  BitReader bits;
  std::int64_t first_bit, row_bits;
  ArraysOf<Summation> arrays;
  std::array<Prefetcher, inputs> ahead;

  template <int Bytes>
  using D = vec<double, Bytes>;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    // Two pairs of columns at a time while their constants and sums fit the 16 registers that every instruction set has, or the
    // 32 of the widest.
    constexpr std::int64_t pair = pair_of<Bytes>;
    constexpr bool two_fit = Summation::constants + Summation::sums <= (Bytes == 64 ? 5 : 3);
    std::array<Prefetcher, inputs> walks = ahead;
    std::int64_t c = 0;
    if constexpr (two_fit) {
      for (; c + 2 * pair <= columns; c += 2 * pair) add_columns<Bytes, 2>(c, rows, walks);
    }
    for (; c + pair <= columns; c += pair) add_columns<Bytes, 1>(c, rows, walks);
    if (c < columns) add_last_columns<Bytes>(c, walks);
  }

  /// The constants and sums of `Count` vectors of columns.
  template <int Bytes, int Count>
  struct Columns {
    D<Bytes> constant[Count][Summation::constants], sum[Count][Summation::sums];

    BATCHNORM_INLINE void load(const Summation& policy, const ArraysOf<Summation>& from) {
      BATCHNORM_UNROLL
      for (int v = 0; v < Count; ++v) {
        const std::int64_t at = v * D<Bytes>::lanes;
        BATCHNORM_UNROLL
        for (int k = 0; k < Summation::constants; ++k) constant[v][k] = D<Bytes>::load(from.constant[k] + at);
        BATCHNORM_UNROLL
        for (int k = 0; k < Summation::sums; ++k) sum[v][k] = D<Bytes>::load(from.sum[k] + at);
        open_sums(policy, constant[v], sum[v]);
      }
    }
    BATCHNORM_INLINE void store(const Summation& policy, const ArraysOf<Summation>& to) {
      BATCHNORM_UNROLL
      for (int v = 0; v < Count; ++v) {
        close_sums(policy, constant[v], sum[v]);
        BATCHNORM_UNROLL
        for (int k = 0; k < Summation::sums; ++k) sum[v][k].store(to.sum[k] + v * D<Bytes>::lanes);
      }
    }
    using Loaded = D<Bytes>[inputs];
    using Factors = D<Bytes>[Summation::factors];
    BATCHNORM_INLINE void form(const Summation& policy, int v, const Loaded& loaded, std::uint32_t passes,
                               Factors& factor) const {
      if constexpr (Summation::reads_bits) {
        policy.form(loaded, constant[v], mask_of<D<Bytes>>(passes), factor);
      } else {
        policy.form(loaded, constant[v], MaskOf<D<Bytes>>{}, factor);
      }
    }
    BATCHNORM_INLINE void add(const Summation& policy, int v, const Loaded& loaded, std::uint32_t passes) {
      Factors factor;
      form(policy, v, loaded, passes, factor);
      policy.add(factor, sum[v]);
    }
    /// Of two rows; the Summation reads no bits.
    BATCHNORM_INLINE void add_both(const Summation& policy, int v, const Loaded& loaded, const Loaded& next) {
      Factors a, b;
      form(policy, v, loaded, 0, a);
      form(policy, v, next, 0, b);
      add_two(policy, a, b, sum[v], sum[v]);
    }
  };

  BATCHNORM_INLINE std::uint32_t bits_at(std::int64_t r, std::int64_t c) const {
    if constexpr (Summation::reads_bits) return bits.at(first_bit + r * row_bits + c);
    return 0;
  }

  /// Pairs pairs of columns at c, over the first `count` rows.
  template <int Bytes, int Pairs>
  BATCHNORM_INLINE void add_columns(std::int64_t c, std::int64_t count, std::array<Prefetcher, inputs>& walks) const {
    constexpr std::int64_t pair = pair_of<Bytes>;
    constexpr int lanes = D<Bytes>::lanes;
    Columns<Bytes, 2 * Pairs> here;
    here.load(summation, arrays.at(c));
    auto row = in.at(c);
    // As much is prefetched as is read: a line at a time, since a burst of them would hold the reading up.
    constexpr std::int64_t read_bytes = Pairs * pair * static_cast<std::int64_t>(sizeof(T));
    constexpr std::int64_t lines = (std::max<std::int64_t>)(1, read_bytes / 64),
                           period = (std::max<std::int64_t>)(1, 64 / read_bytes);
    const auto prefetch_beside = [&](std::int64_t r) __attribute__((always_inline)) {
      if (r % period != 0) return;
      BATCHNORM_UNROLL
      for (int j = 0; j < inputs; ++j) walks[static_cast<std::size_t>(j)].step(lines);
    };
    std::int64_t r = 0;
    if constexpr (AddsTwo<Summation, D<Bytes>>) {
      for (; r + 2 <= count; r += 2, row = row.at(2, row_stride)) {
        prefetch_beside(r);
        prefetch_beside(r + 1);
        const auto below = row.at(1, row_stride);
        BATCHNORM_UNROLL
        for (int v = 0; v < 2 * Pairs; v += 2) {
          D<Bytes> low[2][inputs], high[2][inputs];
          BATCHNORM_UNROLL
          for (int j = 0; j < inputs; ++j) {
            load_pair(low[0][j], high[0][j], row.p[j] + v / 2 * pair);
            load_pair(low[1][j], high[1][j], below.p[j] + v / 2 * pair);
          }
          here.add_both(summation, v, low[0], low[1]);
          here.add_both(summation, v + 1, high[0], high[1]);
        }
      }
    }
    for (; r < count; ++r, row = row.at(1, row_stride)) {
      prefetch_beside(r);
      const std::uint32_t passes = bits_at(r, c);
      BATCHNORM_UNROLL
      for (int v = 0; v < 2 * Pairs; v += 2) {
        D<Bytes> low[inputs], high[inputs];
        BATCHNORM_UNROLL
        for (int j = 0; j < inputs; ++j) load_pair(low[j], high[j], row.p[j] + v / 2 * pair);
        here.add(summation, v, low, passes >> (v * lanes));
        here.add(summation, v + 1, high, passes >> ((v + 1) * lanes));
      }
    }
    here.store(summation, arrays.at(c));
  }

  /// The last, partial pair of columns. Rows are added two at a time wherever they are read: which rows those are must not
  /// depend on what may be read past them.
  template <int Bytes>
  BATCHNORM_INLINE void add_last_columns(std::int64_t c, std::array<Prefetcher, inputs>& walks) const {
    constexpr bool adds_two = AddsTwo<Summation, D<Bytes>>;
    std::int64_t r = (std::min)(rows, safe_rows);
    if (adds_two && r < rows) r -= r % 2;
    add_columns<Bytes, 1>(c, r, walks);
    if constexpr (adds_two) {
      for (; r + 2 <= rows; r += 2) add_part_of_rows<Bytes, 2>(c, r);
    }
    for (; r < rows; ++r) add_part_of_rows<Bytes, 1>(c, r);
  }

  /// The columns from c on, less than a pair, of one or two rows, without reading past them.
  template <int Bytes, int Rows>
  BATCHNORM_INLINE void add_part_of_rows(std::int64_t c, std::int64_t r) const {
    Columns<Bytes, 2> last;
    last.load(summation, arrays.at(c));
    D<Bytes> low[Rows][inputs], high[Rows][inputs];
    BATCHNORM_UNROLL
    for (int k = 0; k < Rows; ++k) {
      const auto row = in.at(c).at(r + k, row_stride);
      BATCHNORM_UNROLL
      for (int j = 0; j < inputs; ++j) load_pair_first(low[k][j], high[k][j], row.p[j], columns - c);
    }
    if constexpr (Rows == 2) {
      last.add_both(summation, 0, low[0], low[1]);
      last.add_both(summation, 1, high[0], high[1]);
    } else {
      const std::uint32_t passes = bits_at(r, c);
      last.add(summation, 0, low[0], passes);
      last.add(summation, 1, high[0], passes >> D<Bytes>::lanes);
    }
    last.store(summation, arrays.at(c));
  }
};

/// Adds values[c * length ...][length] up for each channel: closes the columns of several small planes.
struct SumSegments {
  const double* values;
  std::int64_t channels, length;
  double* sum;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double* value = values + c * length;
      D chain[2] = {D::zero(), D::zero()};
      std::int64_t i = 0;
      for (; i + 2 * D::lanes <= length; i += 2 * D::lanes) {
        chain[0] = chain[0] + D::load(value + i);
        chain[1] = chain[1] + D::load(value + i + D::lanes);
      }
      double rest = 0;
      for (; i < length; ++i) rest += value[i];
      sum[c] += cpu::sum(chain[0] + chain[1]) + rest;
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
