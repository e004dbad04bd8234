// SPDX-License-Identifier: MIT
#pragma once

// Kernels over interleaved columns: channels-last tensors (row = one or several positions, column = channel) and small planes
// of a channels-first tensor (row = image, column = one value of a run of adjacent planes).

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

#include <batchnorm/cpu/runs.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Walks a matrix in memory order, row by row, and brings it to the cache one line a step, while the kernel that steps works on
/// another one: the order of access that the memory sees is that of this walk. A line a step, and the step a handful of
/// instructions: a burst of prefetches holds up the reads behind it.
template <Element T>
class Prefetcher {
 public:
  Prefetcher() = default;
  Prefetcher(const T* x, std::int64_t row_stride, std::int64_t rows, std::int64_t columns) noexcept
      : next_(reinterpret_cast<const char*>(x)),
        lines_((columns * static_cast<std::int64_t>(sizeof(T)) + 63) / 64),
        to_next_row_(row_stride * static_cast<std::int64_t>(sizeof(T)) - 64 * lines_),
        advance_(64),
        left_(lines_),
        rows_(rows) {
    if (rows <= 0) *this = {};
  }

  bool is_done() const { return advance_ == 0; }

  /// The next line; a row's last one may reach past its end. After the end of the matrix steps do nothing.
  BATCHNORM_INLINE void step() {
    prefetch(next_);
    next_ += advance_;
    if (--left_ == 0) begin_row();
  }
  BATCHNORM_INLINE void step(std::int64_t lines) {
    for (std::int64_t i = 0; i < lines; ++i) step();
  }

 private:
  void begin_row() {
    if (--rows_ > 0) {
      next_ += to_next_row_;
      left_ = lines_;
    } else {
      next_ = &idle;
      advance_ = 0;
      left_ = (std::numeric_limits<std::int64_t>::max)();
    }
  }

  // A prefetch of an address without memory would search the page tables each time.
  static constexpr char idle = 0;

  const char* next_ = &idle;
  std::int64_t lines_ = 0;
  std::int64_t to_next_row_ = 0;
  std::int64_t advance_ = 0;
  std::int64_t left_ = (std::numeric_limits<std::int64_t>::max)();
  std::int64_t rows_ = 0;
};

/// Adds, for each column, the sums over the rows. The arrays hold `columns` rounded up to whole pairs.
/// The first `safe_rows` rows may be read past their last column, up to a whole pair; what is found there is not used.
template <Element T, class Summation>
struct SumColumns {
  static constexpr int inputs = Summation::inputs;

  Summation summation;
  Pointers<const T, inputs> in;
  std::int64_t row_stride[inputs];
  std::int64_t rows, columns, safe_rows;
  BitReader bits;
  std::int64_t first_bit, row_bits;
  SumArrays<Summation> arrays;
  std::array<Prefetcher<T>, inputs> ahead;

  template <int Bytes>
  using D = vec<double, Bytes>;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    // Two pairs of columns at a time while their constants and sums fit the 16 registers that every instruction set has.
    constexpr std::int64_t pair = pair_of<Bytes>;
    constexpr bool two_fit = SumArrays<Summation>::count <= 3;
    std::array<Prefetcher<T>, inputs> walks = ahead;
    std::int64_t c = 0;
    if constexpr (two_fit) {
      for (; c + 2 * pair <= columns; c += 2 * pair) add_columns<Bytes, 2>(c, rows, walks);
    }
    for (; c + pair <= columns; c += pair) add_columns<Bytes, 1>(c, rows, walks);
    if (c < columns) {
      const std::int64_t whole = (std::min)(rows, safe_rows);
      add_columns<Bytes, 1>(c, whole, walks);
      for (std::int64_t r = whole; r < rows; ++r) add_last_columns<Bytes>(c, r);
    }
  }

  /// The constants and sums of `Count` vectors of columns.
  template <int Bytes, int Count>
  struct Columns {
    D<Bytes> constant[Count][Summation::constants], sum[Count][Summation::sums];

    BATCHNORM_INLINE void load(const SumArrays<Summation>& from) {
      BATCHNORM_UNROLL
      for (int v = 0; v < Count; ++v) {
        const std::int64_t at = v * D<Bytes>::lanes;
        BATCHNORM_UNROLL
        for (int k = 0; k < Summation::constants; ++k) constant[v][k] = D<Bytes>::load(from.constant[k] + at);
        BATCHNORM_UNROLL
        for (int k = 0; k < Summation::sums; ++k) sum[v][k] = D<Bytes>::load(from.sum[k] + at);
      }
    }
    BATCHNORM_INLINE void store(const SumArrays<Summation>& to) const {
      BATCHNORM_UNROLL
      for (int v = 0; v < Count; ++v) {
        BATCHNORM_UNROLL
        for (int k = 0; k < Summation::sums; ++k) sum[v][k].store(to.sum[k] + v * D<Bytes>::lanes);
      }
    }
    BATCHNORM_INLINE void add(const Summation& policy, int v, const D<Bytes> (&loaded)[inputs], std::uint32_t passes) {
      D<Bytes> factor[Summation::factors];
      if constexpr (Summation::reads_bits) {
        policy.form(loaded, constant[v], mask_of<D<Bytes>>(passes), factor);
      } else {
        policy.form(loaded, constant[v], MaskOf<D<Bytes>>{}, factor);
      }
      policy.add(factor, sum[v]);
    }
  };

  BATCHNORM_INLINE std::uint32_t bits_at(std::int64_t r, std::int64_t c) const {
    if constexpr (Summation::reads_bits) return bits.at(first_bit + r * row_bits + c);
    return 0;
  }

  /// Pairs pairs of columns at c, over the first `count` rows.
  template <int Bytes, int Pairs>
  BATCHNORM_INLINE void add_columns(std::int64_t c, std::int64_t count, std::array<Prefetcher<T>, inputs>& walks) const {
    constexpr std::int64_t pair = pair_of<Bytes>;
    constexpr int lanes = D<Bytes>::lanes;
    Columns<Bytes, 2 * Pairs> here;
    here.load(arrays.at(c));
    auto row = in.at(c);
    // As much is prefetched as is read: a line at a time, since a burst of them would hold the reading up.
    constexpr std::int64_t read_bytes = Pairs * pair * static_cast<std::int64_t>(sizeof(T));
    constexpr std::int64_t lines = (std::max<std::int64_t>)(1, read_bytes / 64),
                           period = (std::max<std::int64_t>)(1, 64 / read_bytes);
    for (std::int64_t r = 0; r < count; ++r, row = row.at(1, row_stride)) {
      if (r % period == 0) {
        BATCHNORM_UNROLL
        for (int j = 0; j < inputs; ++j) walks[static_cast<std::size_t>(j)].step(lines);
      }
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
    here.store(arrays.at(c));
  }

  /// The last, partial pair of one row, without reading past it.
  template <int Bytes>
  BATCHNORM_INLINE void add_last_columns(std::int64_t c, std::int64_t r) const {
    Columns<Bytes, 2> last;
    last.load(arrays.at(c));
    const auto row = in.at(c).at(r, row_stride);
    D<Bytes> low[inputs], high[inputs];
    BATCHNORM_UNROLL
    for (int j = 0; j < inputs; ++j) load_pair_first(low[j], high[j], row.p[j], columns - c);
    const std::uint32_t passes = bits_at(r, c);
    last.add(summation, 0, low, passes);
    last.add(summation, 1, high, passes >> D<Bytes>::lanes);
    last.store(arrays.at(c));
  }
};

/// Applies an operation to rows whose position p has the coefficients of position (p mod period): period a multiple of the
/// channels. The coefficients hold `period` positions and then the first line_of<T> again; period >= line_of<T>, or no row is
/// longer than the period.
/// Without streaming, a few rows at a time share what is loaded of the coefficients, where their first outputs begin at the
/// same place of a cache line. Streaming: whole cache lines go past the caches, the first and last line of a row are stored in
/// part. `ahead` is brought to the second-level cache on the way.
template <Element T, class Operation>
struct OperateOnRows {
  static constexpr int inputs = Operation::inputs;
  static constexpr int outputs = Operation::outputs;

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
  std::array<Prefetcher<T>, inputs> ahead;

  template <int Bytes>
  using Step = VectorStep<Bytes, T, Operation>;
  using Stream = BitStream<Operation>;
  using Walks = std::array<Prefetcher<T>, inputs>;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    Walks walks = ahead;
    // Rows are often a multiple of 4 KB apart: more than 8 lines at the same place of them do not stay in the first-level
    // cache. And a load waits for a store that is under way to the same place of another page: streamed stores are long under
    // way, so streamed rows are worked on one by one (four together took three times as long).
    constexpr int together = inputs == 1 ? 4 : 2;
    std::int64_t r = 0;
    if (!streams && out_stride[0] % line_of<T> == 0) {
      for (; r + together <= rows; r += together) operate_on_rows<Bytes, together>(r, walks);
    }
    for (; r < rows; ++r) operate_on_rows<Bytes, 1>(r, walks);
    if (streams) intrinsics::stream_fence();
  }

  template <int Bytes, int Rows>
  BATCHNORM_INLINE void operate_on_rows(std::int64_t r, Walks& walks) const {
    constexpr std::int64_t line = line_of<T>;
    const bool has_next = !ahead[0].is_done();
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
      const auto operate = [&]<bool past_caches>(std::bool_constant<past_caches>) __attribute__((always_inline)) {
        if (has_next) {
          operate_on_lines<Bytes, Rows, past_caches, true>(r, i, position, lines, all, streams_of_bits, walks);
        } else {
          operate_on_lines<Bytes, Rows, past_caches, false>(r, i, position, lines, all, streams_of_bits, walks);
        }
      };
      if (Rows == 1 && streams) {
        operate(std::bool_constant<Rows == 1>{});
      } else {
        operate(std::false_type{});
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

  template <int Bytes, int Rows, bool past_caches, bool has_next>
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
        std::uint32_t written = 0;
        BATCHNORM_UNROLL
        for (int j = 0; j < inputs; ++j) {
          if constexpr (has_next) {
            walks[static_cast<std::size_t>(j)].step();
          } else {
            prefetch_near(from.at(i + distance).at(row, in_stride).p[j]);
          }
        }
        BATCHNORM_UNROLL
        for (int v = 0; v < vectors; ++v) {
          Step<Bytes> step;
          step.load_whole(from.at(i + v * lanes).at(row, in_stride));
          written |= step.apply(operation, k[v], read >> (v * lanes)) << (v * lanes);
          const auto here = to.at(i + v * lanes).at(row, out_stride);
          if constexpr (past_caches) {
            step.stream_whole(operation, here, all);
          } else {
            step.store_whole(operation, here);
          }
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
