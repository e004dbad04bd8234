// SPDX-License-Identifier: MIT
#pragma once

// Operations on rows that have coefficients for each position.

#include <algorithm>
#include <array>
#include <type_traits>

#include <batchnorm/kernel/dispatch.hpp>
#include <batchnorm/kernel/operands.hpp>
#include <batchnorm/vector/prefetcher.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Applies an operation to rows whose position p has the coefficients of position (p mod period): period a multiple of the
/// positions of all channels. The coefficients hold `period` positions and then the first line_of<T> again; period >=
/// line_of<T>, or no row is longer than the period.
///
/// Without streaming, a few rows at a time share what is loaded of the coefficients. Streaming: non-temporal stores of whole
/// cache lines; the first and last line of a row are stored in part. `ahead` is prefetched into the second-level cache. Kernels
/// that are not `is_tuned` take the rows one by one, and do not prefetch `ahead`.
template <Element T, class Operation>
struct OperateOnRows {
  static constexpr int inputs = Operation::inputs;
  static constexpr int outputs = Operation::outputs;

  BATCHNORM_INLINE OperateOnRows(const void* policy, const RowsToOperateOn& a)
      : operation(*static_cast<const Operation*>(policy)),
        in(Pointers<const T, inputs>::of(a.in)),
        out(Pointers<T, outputs>::of(a.out)),
        rows(a.rows),
        length(a.length),
        period(a.period),
        coefficients(a.coefficients),
        bits(a.bits),
        first_bit(a.first_bit),
        row_bits(a.row_bits),
        streams(a.streams),
        distance(a.distance) {
    copy_strides(a.in_stride, in_stride);
    copy_strides(a.out_stride, out_stride);
    BATCHNORM_UNROLL
    for (std::size_t j = 0; j < inputs; ++j) ahead[j] = a.ahead[j];
  }

  Operation operation;
  Pointers<const T, inputs> in;
  Pointers<T, outputs> out;
  std::int64_t in_stride[inputs], out_stride[outputs];  // from row to row
  std::int64_t rows, length, period;
  Coefficients<compute_t<T>, Operation::coefficients> coefficients;
  BitsAt bits;
  std::int64_t first_bit, row_bits;
  bool streams;
  std::int64_t distance;  // elements that the inputs are prefetched ahead of their use
  std::array<Prefetcher, inputs> ahead;

  template <int Bytes>
  using Step = VectorStep<Bytes, T, Operation>;
  using Stream = BitStream<Operation>;
  using Walks = std::array<Prefetcher, inputs>;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    Walks walks = ahead;
    // Rows are often a multiple of 4 KB apart: more than 8 lines at the same place of them do not stay in the first-level
    // cache. And a load waits for a store that is under way to the same place of another page: streamed stores are long under
    // way, so streamed rows are worked on one by one (four together took three times as long).
    constexpr int together = inputs == 1 ? 4 : 2;
    std::int64_t r = 0;
    if constexpr (is_tuned<Bytes>) {
      if (!streams) {
        for (; r + together <= rows; r += together) operate_on_rows<Bytes, together>(r, walks);
      }
    }
    for (; r < rows; ++r) operate_on_rows<Bytes, 1>(r, walks);
    if (streams) intrinsics::stream_fence();
  }

  template <int Bytes, int Rows>
  BATCHNORM_INLINE void operate_on_rows(std::int64_t r, Walks& walks) const {
    constexpr std::int64_t line = line_of<T>;
    const bool has_next_rows = !ahead[0].is_done();
    Stream streams_of_bits[Rows];
    for (int k = 0; k < Rows; ++k) streams_of_bits[k] = Stream(bits, first_bit + (r + k) * row_bits);
    bool all = true;
    std::int64_t i = 0;
    if (Rows == 1 && streams) {
      i = (std::min)(to_next_line(out.p[0] + r * out_stride[0]), length);
      for (int k = 0; k < Rows; ++k) {
        part<Bytes>(r + k, 0, i, 0, streams_of_bits[k]);
        all = all && are_aligned_alike(out.at(r + k, out_stride));
      }
    }
    std::int64_t position = i >= period ? i % period : i;
    while (i + line <= length) {
      // Up to where the positions begin again.
      const std::int64_t lines = (std::min)((period - position + line - 1) / line, (length - i) / line);
      const auto operate = [&]<bool has_next>(std::bool_constant<has_next>) __attribute__((always_inline)) {
        if (Rows == 1 && streams) {
          operate_on_lines<Bytes, Rows, Rows == 1, has_next>(r, i, position, lines, all, streams_of_bits, walks);
        } else {
          operate_on_lines<Bytes, Rows, false, has_next>(r, i, position, lines, all, streams_of_bits, walks);
        }
      };
      constexpr bool prefetches_next = is_tuned<Bytes> && Operation::prefetched > 0;
      if (prefetches_next && has_next_rows) {
        operate(std::bool_constant<prefetches_next>());
      } else {
        operate(std::false_type());
      }
      i += lines * line;
      position += lines * line;
      position -= position >= period ? period : 0;
    }
    for (int k = 0; k < Rows; ++k) {
      part<Bytes>(r + k, i, length, position, streams_of_bits[k]);
      streams_of_bits[k].finish();
    }
  }

  template <int Bytes, int Rows, bool non_temporal, bool has_next>
  BATCHNORM_INLINE void operate_on_lines(std::int64_t r, std::int64_t first, std::int64_t position, std::int64_t lines,
                                         bool all, Stream (&streams_of_bits)[Rows], Walks& walks) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    constexpr int vectors = static_cast<int>(line_of<T> / lanes);
    using K = typename Step<Bytes>::K;
    const auto at = coefficients.at(position);
    const auto from = in.at(first).at(r, in_stride);
    const auto to = out.at(first).at(r, out_stride);
    const std::int64_t end = lines * line_of<T>;
    for (std::int64_t i = 0; i < end; i += line_of<T>) {
      K k[vectors];
      BATCHNORM_UNROLL
      for (int v = 0; v < vectors; ++v) k[v] = K::of_positions(at, i + v * lanes);
      BATCHNORM_UNROLL
      for (int row = 0; row < Rows; ++row) {
        const std::uint32_t read = streams_of_bits[row].take();
        BATCHNORM_UNROLL
        for (int j = 0; j < inputs; ++j) {
          if constexpr (has_next) {
            walks[static_cast<std::size_t>(j)].step();
          } else {
            prefetch_near(from.at(i + distance).at(row, in_stride).p[j]);
          }
        }
        VectorStep<Bytes, T, Operation, vectors> step;
        step.load_whole(from.at(i).at(row, in_stride));
        const std::uint32_t written = step.apply(operation, k, read);
        const auto here = to.at(i).at(row, out_stride);
        if constexpr (non_temporal) {
          step.stream_whole(operation, here, all);
        } else {
          step.store_whole(operation, here);
        }
        streams_of_bits[row].put(written, line_of<T>);
      }
    }
  }

  /// [first, last) of a row, less than a line.
  template <int Bytes>
  BATCHNORM_INLINE void part(std::int64_t r, std::int64_t first, std::int64_t last, std::int64_t position,
                             Stream& stream) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    for (std::int64_t i = first; i < last; i += lanes, position += lanes) {
      const auto k = Step<Bytes>::K::of_positions(coefficients, position);
      const auto from = in.at(i).at(r, in_stride);
      const auto to = out.at(i).at(r, out_stride);
      const std::int64_t count = (std::min)(lanes, last - i);
      Step<Bytes> step;
      if (count == lanes) {
        step.load_whole(from);
        const std::uint32_t written = step.apply(operation, k, stream.take());
        step.store_whole(operation, to);
        stream.put(written, lanes);
      } else {
        step.load_part(from, count);
        const std::uint32_t written = step.apply(operation, k, stream.take());
        step.store_part(operation, to, count);
        stream.put(written & ((1U << count) - 1), count);
      }
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
