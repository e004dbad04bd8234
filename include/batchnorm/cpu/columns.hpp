// SPDX-License-Identifier: MIT
#pragma once

// Kernels over interleaved columns: channels-last tensors (row = one or several positions, column = channel) and small planes
// of a channels-first tensor (row = image, column = one value of a run of adjacent planes).

#include <algorithm>

#include <batchnorm/cpu/runs.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Walks a matrix in memory order, row by row, and brings it to the second-level cache a few lines a step, while the kernel
/// that steps works on another one. The order of access that the memory sees is that of this walk.
template <Element T>
class Prefetcher {
 public:
  Prefetcher() = default;
  Prefetcher(const T* x, std::int64_t row_stride, std::int64_t rows, std::int64_t columns)
      : row_(reinterpret_cast<const char*>(x)),
        row_stride_(row_stride * static_cast<std::int64_t>(sizeof(T))),
        rows_(rows),
        row_bytes_(columns * static_cast<std::int64_t>(sizeof(T))) {}

  bool is_done() const { return rows_ <= 0; }

  /// The next `lines` lines; a row's last ones may reach past its end.
  BATCHNORM_INLINE void step(std::int64_t lines) {
    while (lines > 0 && rows_ > 0) {
      const std::int64_t count = (std::min)(lines, (row_bytes_ - offset_ + 63) / 64);
      for (std::int64_t i = 0; i < count; ++i) prefetch(row_ + offset_ + 64 * i);
      lines -= count;
      offset_ += 64 * count;
      if (offset_ >= row_bytes_) {
        offset_ = 0;
        row_ += row_stride_;
        --rows_;
      }
    }
  }

 private:
  const char* row_ = nullptr;
  std::int64_t row_stride_ = 0;
  std::int64_t rows_ = 0;
  std::int64_t row_bytes_ = 0;
  std::int64_t offset_ = 0;
};

/// Adds, for each column, the sums of d and d * d over the rows, d = x - pivot, to sum and sum_sq.
/// pivot, sum, sum_sq hold `columns` rounded up to whole pairs.
/// The first `safe_rows` rows may be read past their last column, up to a whole pair; what is found there is not used.
template <Element T>
struct ColumnSums {
  const T* x;
  std::int64_t row_stride, rows, columns, safe_rows;
  const double* pivot;
  double* sum;
  double* sum_sq;
  Prefetcher<T> ahead;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    constexpr std::int64_t pair = pair_of<Bytes>;
    Prefetcher<T> walk = ahead;
    const std::int64_t lines = (rows * pair * static_cast<std::int64_t>(sizeof(T)) + 63) / 64;
    std::int64_t c = 0;
    for (; c + 2 * pair <= columns; c += 2 * pair) {
      walk.step(2 * lines);
      add_columns<Bytes, 2>(c, rows);
    }
    for (; c + pair <= columns; c += pair) {
      walk.step(lines);
      add_columns<Bytes, 1>(c, rows);
    }
    if (c < columns) {
      walk.step(lines);
      const std::int64_t whole = (std::min)(rows, safe_rows);
      add_columns<Bytes, 1>(c, whole);
      for (std::int64_t r = whole; r < rows; ++r) add_last_columns<Bytes>(c, r);
    }
  }

  /// Pairs pairs of columns at c, over the first `count` rows.
  template <int Bytes, int Pairs>
  BATCHNORM_INLINE void add_columns(std::int64_t c, std::int64_t count) const {
    using D = vec<double, Bytes>;
    constexpr std::int64_t pair = pair_of<Bytes>;
    D p[2 * Pairs], s[2 * Pairs], q[2 * Pairs];
    BATCHNORM_UNROLL
    for (int k = 0; k < 2 * Pairs; ++k) {
      p[k] = D::load(pivot + c + k * D::lanes);
      s[k] = D::load(sum + c + k * D::lanes);
      q[k] = D::load(sum_sq + c + k * D::lanes);
    }
    const T* row = x + c;
    for (std::int64_t r = 0; r < count; ++r, row += row_stride) {
      BATCHNORM_UNROLL
      for (int k = 0; k < 2 * Pairs; k += 2) {
        D low, high;
        load_pair(low, high, row + k / 2 * pair);
        low = low - p[k];
        high = high - p[k + 1];
        s[k] = s[k] + low;
        s[k + 1] = s[k + 1] + high;
        q[k] = fma(low, low, q[k]);
        q[k + 1] = fma(high, high, q[k + 1]);
      }
    }
    BATCHNORM_UNROLL
    for (int k = 0; k < 2 * Pairs; ++k) {
      s[k].store(sum + c + k * D::lanes);
      q[k].store(sum_sq + c + k * D::lanes);
    }
  }

  /// The last, partial pair of one row, without reading past it.
  template <int Bytes>
  BATCHNORM_INLINE void add_last_columns(std::int64_t c, std::int64_t r) const {
    using D = vec<double, Bytes>;
    D d[2];
    load_pair_first(d[0], d[1], x + r * row_stride + c, columns - c);
    BATCHNORM_UNROLL
    for (int k = 0; k < 2; ++k) {
      const std::int64_t at = c + k * D::lanes;
      d[k] = d[k] - D::load(pivot + at);
      (D::load(sum + at) + d[k]).store(sum + at);
      fma(d[k], d[k], D::load(sum_sq + at)).store(sum_sq + at);
    }
  }
};

/// Normalises rows whose position p has the coefficients of position (p mod period): period a multiple of the channels.
/// The coefficients hold `period` positions and then the first line_of<T> again; period >= line_of<T>, or no row is longer
/// than the period.
/// Four rows at a time share what is loaded of the coefficients, where their y begin at the same place of a cache line.
/// Streaming: whole cache lines go past the caches, the first and last line of a row are stored in part.
/// `ahead` is brought to the second-level cache on the way.
template <Element T, class Activation, bool adds_residual>
struct RowNormalize {
  const T* x;
  const T* residual;
  T* y;
  std::int64_t x_stride, residual_stride, y_stride;  // from row to row
  std::int64_t rows, length, period;
  Coefficients<compute_t<T>> coefficients;
  Normalization<T, Activation, adds_residual> normalization;
  bool streams;
  Prefetcher<T> ahead;

  template <int Bytes>
  using V = vec<compute_t<T>, Bytes>;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    Prefetcher<T> walk = ahead;
    std::int64_t r = 0;
    if (y_stride % line_of<T> == 0) {
      for (; r + 4 <= rows; r += 4) normalize_rows<Bytes, 4>(r, walk);
    }
    for (; r < rows; ++r) normalize_rows<Bytes, 1>(r, walk);
    if (streams) intrinsics::stream_fence();
  }

  template <int Bytes, int Rows>
  BATCHNORM_INLINE void normalize_rows(std::int64_t r, Prefetcher<T>& walk) const {
    constexpr std::int64_t line = line_of<T>;
    std::int64_t i = 0;
    if (streams) {
      const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(y + r * y_stride) % 64 / sizeof(T));
      i = (std::min)(misaligned == 0 ? 0 : line - misaligned, length);
      for (int k = 0; k < Rows; ++k) part<Bytes>(r + k, 0, i, 0);
    }
    std::int64_t position = i >= period ? i % period : i;
    while (i + line <= length) {
      // Up to where the positions begin again, or the next lines are to be prefetched.
      const std::int64_t to_wrap = (period - position + line - 1) / line;
      const std::int64_t lines = (std::min)({to_wrap, (length - i) / line, walk.is_done() ? to_wrap : lines_per_step});
      walk.step(lines * Rows);
      if (streams) {
        normalize_lines<Bytes, Rows, true>(r, i, position, lines);
      } else {
        normalize_lines<Bytes, Rows, false>(r, i, position, lines);
      }
      i += lines * line;
      position += lines * line;
      position -= position >= period ? period : 0;
    }
    for (int k = 0; k < Rows; ++k) part<Bytes>(r + k, i, length, position);
  }

  static constexpr std::int64_t lines_per_step = 8;

  template <int Bytes, int Rows, bool past_caches>
  BATCHNORM_INLINE void normalize_lines(std::int64_t r, std::int64_t first, std::int64_t position, std::int64_t lines) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    constexpr int vectors = static_cast<int>(line_of<T> / lanes);
    using Vectors = VectorCoefficients<V<Bytes>>;
    const Coefficients<compute_t<T>> at = coefficients.at(position);
    const T* from = x + r * x_stride + first;
    const T* add = adds_residual ? residual + r * residual_stride + first : nullptr;
    T* to = y + r * y_stride + first;
    const std::int64_t end = lines * line_of<T>;
    for (std::int64_t i = 0; i < end; i += line_of<T>) {
      Vectors c[vectors];
      BATCHNORM_UNROLL
      for (int k = 0; k < vectors; ++k) c[k] = Vectors::of_positions(at, i + k * lanes);
      BATCHNORM_UNROLL
      for (int row = 0; row < Rows; ++row) {
        BATCHNORM_UNROLL
        for (int k = 0; k < vectors; ++k) {
          V<Bytes> z = V<Bytes>::zero();
          if constexpr (adds_residual) z = load<Bytes>(add + row * residual_stride + i + k * lanes);
          z = normalization(load<Bytes>(from + row * x_stride + i + k * lanes), z, c[k]);
          if constexpr (past_caches) {
            stream<Bytes>(to + row * y_stride + i + k * lanes, z);
          } else {
            store<Bytes>(to + row * y_stride + i + k * lanes, z);
          }
        }
      }
    }
  }

  template <int Bytes>
  BATCHNORM_INLINE V<Bytes> vector(std::int64_t r, std::int64_t i, const VectorCoefficients<V<Bytes>>& c) const {
    V<Bytes> add = V<Bytes>::zero();
    if constexpr (adds_residual) add = load<Bytes>(residual + r * residual_stride + i);
    return normalization(load<Bytes>(x + r * x_stride + i), add, c);
  }

  /// [first, last) of a row, less than a line.
  template <int Bytes>
  BATCHNORM_INLINE void part(std::int64_t r, std::int64_t first, std::int64_t last, std::int64_t position) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    for (std::int64_t i = first; i < last; i += lanes, position += lanes) {
      const auto c = VectorCoefficients<V<Bytes>>::of_positions(coefficients, position);
      T* to = y + r * y_stride + i;
      if (i + lanes <= last) {
        store<Bytes>(to, vector<Bytes>(r, i, c));
        continue;
      }
      const std::int64_t count = last - i;
      V<Bytes> add = V<Bytes>::zero();
      if constexpr (adds_residual) add = load_first<Bytes>(residual + r * residual_stride + i, count);
      store_first<Bytes>(to, normalization(load_first<Bytes>(x + r * x_stride + i, count), add, c), count);
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
