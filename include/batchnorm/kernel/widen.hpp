// SPDX-License-Identifier: MIT
#pragma once

// Values of 2 bytes as float in the first-level cache.

#include <batchnorm/kernel/operands.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// n values as float. Unless `in_order`, they change places with others in the same n where that is faster. As much from
/// `ahead` on is prefetched.
template <int Bytes, bool in_order, Element T>
BATCHNORM_INLINE void widen(const T* from, std::int64_t n, float* to, const T* ahead) {
  using V = vec<float, Bytes>;
  constexpr std::int64_t lanes = V::lanes, line = line_of<T>;
  // First the end, which overlaps what comes before it.
  if (n % lanes != 0 && n >= lanes) load<Bytes>(from + n - lanes).store(to + n - lanes);
  if (n < lanes) load_first<Bytes>(from, n).store(to);
  std::int64_t i = 0;
  for (; i + line <= n; i += line) {
    prefetch_near(ahead + i);
    V v[line / lanes];
    load<in_order, T>(v, from + i);
    BATCHNORM_UNROLL
    for (int k = 0; k < line / lanes; ++k) v[k].store(to + i + k * lanes);
  }
  for (; i + lanes <= n; i += lanes) load<Bytes>(from + i).store(to + i);
}

/// Whether values of that type are widened before columns are summed. (half has an instruction that widens as it loads.)
template <Element T>
inline constexpr bool widens_columns = std::same_as<T, bfloat16>;

/// Copies rows of values of 2 bytes to rows of floats without gaps.
template <Element T, int inputs>
struct WidenRows {
  BATCHNORM_INLINE explicit WidenRows(const RowsToWiden& a)
      : from(Pointers<const T, inputs>::of(a.from)), rows(a.rows), columns(a.columns) {
    copy_strides(a.stride, stride);
    BATCHNORM_UNROLL
    for (std::size_t j = 0; j < inputs; ++j) to[j] = a.to[j];
  }

  Pointers<const T, inputs> from;
  std::int64_t stride[inputs];
  float* to[inputs];
  std::int64_t rows, columns;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    for (std::int64_t r = 0; r < rows; ++r) {
      BATCHNORM_UNROLL
      for (int j = 0; j < inputs; ++j) {
        const T* row = from.p[j] + r * stride[j];
        widen<Bytes, true>(row, columns, to[j] + r * columns, row + sum_distance<T>);
      }
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
