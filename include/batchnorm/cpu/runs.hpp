// SPDX-License-Identifier: MIT
#pragma once

// Kernels over contiguous runs: values of one channel that lie next to each other, and several such channels in a row.

#include <batchnorm/cpu/operands.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The sums of a Summation over runs of one channel.
template <int Bytes, Element T, class Summation>
class RunSums {
 public:
  using D = vec<double, Bytes>;
  using In = Pointers<const T, Summation::inputs>;

  BATCHNORM_INLINE RunSums(const Summation& summation, const SumArrays<Summation>& arrays, std::int64_t c)
      : summation_(summation) {
    BATCHNORM_UNROLL
    for (int k = 0; k < Summation::constants; ++k) constant_[k] = D::broadcast(arrays.constant[k][c]);
    for (auto& chain : sums_) {
      BATCHNORM_UNROLL
      for (D& s : chain) s = D::zero();
    }
  }

  /// x[0, n), the bits of which begin at `bit`.
  template <bool prefetches>
  BATCHNORM_INLINE void add(const In& x, std::int64_t n, const BitReader& bits, std::int64_t bit) {
    std::int64_t i = 0;
    for (; i + step <= n; i += step) {
      if constexpr (prefetches) {
        BATCHNORM_UNROLL
        for (int j = 0; j < Summation::inputs; ++j) {
          BATCHNORM_UNROLL
          for (std::int64_t line = 0; line < step; line += line_of<T>) prefetch_near(x.p[j] + i + line + sum_distance<T>);
        }
      }
      add_pair<0>(x.at(i), bits, bit + i);
      if constexpr (chains == 4) add_pair<2>(x.at(i + pair), bits, bit + i + pair);
    }
    if (i + pair <= n) {
      add_pair<0>(x.at(i), bits, bit + i);
      i += pair;
    }
    if (i < n) add_last<prefetches>(x, n, n - i, bits, bit);
  }

  BATCHNORM_INLINE void finish(const SumArrays<Summation>& arrays, std::int64_t c) const {
    BATCHNORM_UNROLL
    for (int k = 0; k < Summation::sums; ++k) {
      if constexpr (chains == 4) {
        arrays.sum[k][c] += sum((sums_[0][k] + sums_[1][k]) + (sums_[2][k] + sums_[3][k]));
      } else {
        arrays.sum[k][c] += sum(sums_[0][k] + sums_[1][k]);
      }
    }
  }

 private:
  // 4 chains of 2 sums: an addition of 3 to 4 cycles on each of 2 ports would like 8, but the conversions take the same ports.
  // More sums are chains enough.
  static constexpr int chains = Summation::sums <= 2 ? 4 : 2;
  static constexpr std::int64_t pair = pair_of<Bytes>;
  static constexpr std::int64_t step = chains / 2 * pair;

  struct Loaded {
    D low[Summation::inputs], high[Summation::inputs];
  };

  template <int Chain>
  BATCHNORM_INLINE void add_pair(const In& x, const BitReader& bits, std::int64_t bit) {
    Loaded in;
    BATCHNORM_UNROLL
    for (int j = 0; j < Summation::inputs; ++j) load_pair(in.low[j], in.high[j], x.p[j]);
    std::uint32_t passes = 0;
    if constexpr (Summation::reads_bits) passes = bits.at(bit);
    add_vector<Chain, false>(in.low, passes, 0);
    add_vector<Chain + 1, false>(in.high, passes >> D::lanes, 0);
  }

  /// The last `rest` values of n. The last pair overlaps values that are summed already: those lanes count 0. A run shorter
  /// than a pair is copied; `is_long` tells that this one is not.
  template <bool is_long>
  BATCHNORM_INLINE void add_last(const In& x, std::int64_t n, std::int64_t rest, const BitReader& bits, std::int64_t bit) {
    constexpr int chain = chains == 4 ? 2 : 0;
    const std::int64_t first = pair - rest;
    Loaded in;
    std::uint32_t passes = 0;
    BATCHNORM_UNROLL
    for (int j = 0; j < Summation::inputs; ++j) {
      if (is_long || n >= pair) {
        load_pair(in.low[j], in.high[j], x.p[j] + n - pair);
      } else {
        load_pair_last(in.low[j], in.high[j], x.p[j], n);
      }
    }
    if constexpr (Summation::reads_bits) {
      passes = is_long || n >= pair ? bits.at(bit + n - pair) : bits.at(bit) << (pair - n);
    }
    add_vector<chain, true>(in.low, passes, first);
    add_vector<chain + 1, true>(in.high, passes >> D::lanes, first - D::lanes);
  }

  template <int Chain, bool is_partial>
  BATCHNORM_INLINE void add_vector(const D (&in)[Summation::inputs], std::uint32_t bits, std::int64_t first) {
    D factor[Summation::factors];
    if constexpr (Summation::reads_bits) {
      summation_.form(in, constant_, mask_of<D>(bits), factor);
    } else {
      summation_.form(in, constant_, MaskOf<D>{}, factor);
    }
    if constexpr (is_partial) {
      BATCHNORM_UNROLL
      for (D& f : factor) f = select(lanes_from<D>(first), f, D::zero());
    }
    summation_.add(factor, sums_[Chain]);
  }

  Summation summation_;
  D constant_[Summation::constants];
  D sums_[chains][Summation::sums];
};

/// For each of `channels` channels, adds the sums over `images` runs of `length` values. Memory order: image by image, channel
/// by channel.
template <Element T, class Summation>
struct SumPlanes {
  Summation summation;
  Pointers<const T, Summation::inputs> in;
  std::int64_t batch_stride[Summation::inputs], channel_stride[Summation::inputs];
  std::int64_t images, channels, length;
  BitReader bits;
  std::int64_t first_bit, batch_bits, channel_bits;
  SumArrays<Summation> arrays;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    if (length * static_cast<std::int64_t>(sizeof(T)) >= least_prefetched) {
      add_runs<Bytes, true>();
    } else {
      add_runs<Bytes, false>();
    }
  }

  /// Below, the ends of the runs cost more than waiting.
  static constexpr std::int64_t least_prefetched = 2048;

  template <int Bytes, bool prefetches>
  BATCHNORM_INLINE void add_runs() const {
    for (std::int64_t n = 0; n < images; ++n) {
      for (std::int64_t c = 0; c < channels; ++c) {
        RunSums<Bytes, T, Summation> sums(summation, arrays, c);
        sums.template add<prefetches>(in.at(n, batch_stride).at(c, channel_stride), length, bits,
                                      first_bit + n * batch_bits + c * channel_bits);
        sums.finish(arrays, c);
      }
    }
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

/// Applies an operation to `channels` adjacent channels of one image, `length` values each.
///
/// Streaming (`streams`): the channels lie without gaps and length >= line_of<T>. Whole cache lines go past the caches, a line
/// that two channels share is blended; only the first and last line of the run are stored in part. A part of a line stored
/// between streamed lines would wait for that line to be read first.
/// Otherwise channel by channel; the last vector of a channel overlaps the one before.
/// `ahead`, where not null, are runs of the same extent that are brought to the second-level cache on the way.
template <Element T, class Operation>
struct OperateOnPlanes {
  Operation operation;
  Pointers<const T, Operation::inputs> in;
  Pointers<T, Operation::outputs> out;
  std::int64_t in_stride[Operation::inputs], out_stride[Operation::outputs];  // from channel to channel
  std::int64_t channels, length;
  Coefficients<compute_t<T>, Operation::coefficients> coefficients;
  BitsAt bits;
  std::int64_t first_bit, channel_bits;
  bool streams;
  Pointers<const T, Operation::inputs> ahead;

  template <int Bytes>
  using Step = VectorStep<Bytes, T, Operation>;
  template <int Bytes>
  using K = typename Step<Bytes>::K;
  using Stream = BitStream<Operation>;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    if (streams) {
      stream_run<Bytes>();
      intrinsics::stream_fence();
    } else {
      for (std::int64_t c = 0; c < channels; ++c) store_channel<Bytes>(c);
    }
  }

  /// [first, last) of the run, at most a line, stored in part.
  template <int Bytes>
  BATCHNORM_INLINE void store_part(std::int64_t first, std::int64_t last, const K<Bytes>& k, Stream& stream) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    for (std::int64_t i = first; i < last; i += lanes) {
      const std::int64_t count = (std::min)(lanes, last - i);
      Step<Bytes> step;
      step.load_part(in.at(i), count);
      const std::uint32_t written = step.apply(operation, k, stream.take());
      step.store_part(operation, out.at(i), count);
      stream.put(written & low_bits(count), count);
    }
  }

  /// A whole line; from element `own` on with the coefficients of the next channel if there is one in it (`next` not null).
  template <int Bytes, bool is_shared>
  BATCHNORM_INLINE void stream_line(std::int64_t i, std::int64_t own, const K<Bytes>& k, const K<Bytes>& next, bool all,
                                    Stream& stream) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    const std::uint32_t read = stream.take();
    std::uint32_t written = 0;
    BATCHNORM_UNROLL
    for (std::int64_t v = 0; v < line_of<T>; v += lanes) {
      Step<Bytes> step;
      step.load_whole(in.at(i + v));
      if constexpr (is_shared) {
        const auto from_next = lanes_from<typename Step<Bytes>::V>(std::clamp<std::int64_t>(own - v, 0, lanes));
        written |= step.apply(operation, K<Bytes>::blend(from_next, next, k), read >> v) << v;
      } else {
        written |= step.apply(operation, k, read >> v) << v;
      }
      step.stream_whole(operation, out.at(i + v), all);
    }
    stream.put(written, line_of<T>);
  }

  template <int Bytes>
  BATCHNORM_INLINE void stream_run() const {
    constexpr std::int64_t line = line_of<T>;
    const std::int64_t n = channels * length;
    const bool all = are_aligned_alike(out);
    Stream stream(bits, first_bit);
    std::int64_t i = (std::min)(to_next_line(out.p[0]), n);
    auto k = K<Bytes>::of_channel(coefficients, 0);
    store_part<Bytes>(0, i, k, stream);
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      const std::int64_t end = (channel + 1) * length;
      for (; i + line <= end; i += line) {
        prefetch_line(i);
        stream_line<Bytes, false>(i, 0, k, k, all, stream);
      }
      if (channel + 1 == channels) break;
      const auto next = K<Bytes>::of_channel(coefficients, channel + 1);
      if (i < end && i + line <= n) {
        prefetch_line(i);
        stream_line<Bytes, true>(i, end - i, k, next, all, stream);
        i += line;
      } else if (i < end) {
        store_part<Bytes>(i, end, k, stream);
        i = end;
      }
      k = next;
    }
    store_part<Bytes>(i, n, k, stream);
    stream.finish();
  }

  template <int Bytes>
  BATCHNORM_INLINE void store_channel(std::int64_t channel) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    constexpr std::int64_t group = 4 * lanes;
    const auto from = in.at(channel, in_stride);
    const auto to = out.at(channel, out_stride);
    const auto k = K<Bytes>::of_channel(coefficients, channel);
    Stream stream(bits, first_bit + channel * channel_bits);
    if (length < lanes) {
      Step<Bytes> step;
      step.load_part(from, length);
      const std::uint32_t written = step.apply(operation, k, stream.take());
      step.store_part(operation, to, length);
      stream.put(written & low_bits(length), length);
      return stream.finish();
    }
    // An output may be an input: what the last, overlapping vector needs is read before anything is written.
    const std::int64_t last = length - lanes;
    Step<Bytes> last_step;
    last_step.load_whole(from.at(last));
    std::int64_t i = 0;
    for (; i + group <= length; i += group) {
      prefetch_lines(channel * length + i, group);
      BATCHNORM_UNROLL
      for (std::int64_t v = 0; v < group; v += lanes) store_vector<Bytes>(from.at(i + v), to.at(i + v), k, stream);
    }
    for (; i + lanes <= length; i += lanes) store_vector<Bytes>(from.at(i), to.at(i), k, stream);
    if (i < length) {
      const std::int64_t done = i - last;  // lanes that the vector before has stored
      const std::uint32_t written = last_step.apply(operation, k, stream.take(done));
      last_step.store_whole(operation, to.at(last));
      stream.put(written >> done, length - i);
    }
    stream.finish();
  }

  template <int Bytes>
  BATCHNORM_INLINE void store_vector(const Pointers<const T, Operation::inputs>& from,
                                     const Pointers<T, Operation::outputs>& to, const K<Bytes>& k, Stream& stream) const {
    Step<Bytes> step;
    step.load_whole(from);
    const std::uint32_t written = step.apply(operation, k, stream.take());
    step.store_whole(operation, to);
    stream.put(written, lanes_of<Bytes, T>);
  }

  BATCHNORM_INLINE void prefetch_line(std::int64_t i) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) prefetch_near(in.p[j] + i + operation_distance<T>);
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) {
      if (ahead.p[j] != nullptr) prefetch(ahead.p[j] + i);
    }
  }
  BATCHNORM_INLINE void prefetch_lines(std::int64_t first, std::int64_t count) const {
    for (std::int64_t i = 0; i < count; i += line_of<T>) prefetch_line(first + i);
  }

  static constexpr std::uint32_t low_bits(std::int64_t count) { return (1U << count) - 1; }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
