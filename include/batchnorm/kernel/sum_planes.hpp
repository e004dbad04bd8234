// SPDX-License-Identifier: MIT
#pragma once

// Sums over contiguous runs: values of one channel that lie next to each other, and several such channels in a row.

#include <algorithm>

#include <batchnorm/kernel/widen.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Sums are bound by arithmetic where their values are in cache, operations with non-temporal stores by the memory: done
/// side by side, one hides the other. A companion is an operation on other values that goes on by a few lines,
/// `go_on<Bytes>(lines)`, whenever about as many have been summed.
struct NoCompanion {
  static constexpr bool works = false;
};

/// How many that is, for short runs twice as many: few enough that what is stored meanwhile fits the processor's queue of
/// stores.
inline constexpr std::int64_t companion_lines = 8;

/// The sums of a Summation over runs of one channel.
template <int Bytes, Element T, class Summation, bool is_short>
class RunSums {
 public:
  using D = vec<double, Bytes>;
  using In = Pointers<const T, Summation::inputs>;

  BATCHNORM_INLINE RunSums(const Summation& summation, const ArraysOf<Summation>& arrays, std::int64_t c)
      : summation_(summation) {
    BATCHNORM_UNROLL
    for (int k = 0; k < Summation::constants; ++k) constant_[k] = D::broadcast(arrays.constant[k][c]);
    BATCHNORM_UNROLL
    for (int j = 0; j < chains * Summation::sums; ++j) sums_[j / Summation::sums][j % Summation::sums] = D::zero();
    BATCHNORM_UNROLL
    for (auto& sums : sums_) open_sums(summation_, constant_, sums);
  }

  /// x[0, n), the bits of which begin at `bit`. While element i is added, ahead.at(i) is prefetched, and the
  /// companion goes on.
  template <bool prefetches, class Ahead, class Companion>
  BATCHNORM_INLINE void add(const In& x, std::int64_t n, const BitReader& bits, std::int64_t bit, const Ahead& ahead,
                            Companion& companion) {
    constexpr std::int64_t some = companion_lines * line_of<T>;
    std::int64_t i = 0;
    if constexpr (!is_short) {
      for (; i + some <= n; i += some) {
        add_steps<prefetches>(x, i, i + some, bits, bit, ahead.at(i));
        if constexpr (Companion::works) companion.template go_on<Bytes>(companion_lines);
      }
    }
    add_steps<prefetches>(x, i, n, bits, bit, ahead.at(i));
    i = n / step * step;
    if (i + pair <= n) {
      add_pair<0>(x.at(i), bits, bit + i);
      i += pair;
    }
    if (i < n) add_last(x, n, n - i, bits, bit);
  }

  /// Once all runs are added.
  BATCHNORM_INLINE void close() {
    BATCHNORM_UNROLL
    for (auto& sums : sums_) close_sums(summation_, constant_, sums);
  }

  /// Sum k as a vector whose lanes are still to be added.
  BATCHNORM_INLINE D of(int k) const {
    if constexpr (chains == 4) return (sums_[0][k] + sums_[1][k]) + (sums_[2][k] + sums_[3][k]);
    return sums_[0][k] + sums_[1][k];
  }

 private:
  // 4 chains of 2 sums: an addition of 3 to 4 cycles on each of 2 ports would like 8, but the conversions take the same ports.
  // More than 3 sums are chains enough, and so are several short runs that the processor has under way.
  static constexpr int chains = Summation::sums <= 3 && !is_short ? 4 : 2;
  static constexpr std::int64_t pair = pair_of<Bytes>, step = 2 * pair;

  struct Loaded {
    D low[Summation::inputs], high[Summation::inputs];
  };

  /// x[first, n) but the last values, less than a step.
  template <bool prefetches>
  BATCHNORM_INLINE void add_steps(const In& x, std::int64_t first, std::int64_t n, const BitReader& bits, std::int64_t bit,
                                  const In& ahead) {
    for (std::int64_t i = first; i + step <= n; i += step) {
      if constexpr (prefetches) {
        BATCHNORM_UNROLL
        for (int j = 0; j < Summation::inputs; ++j) {
          BATCHNORM_UNROLL
          for (std::int64_t line = 0; line < step; line += line_of<T>) prefetch_near(ahead.p[j] + (i - first) + line);
        }
      }
      add_pair<0>(x.at(i), bits, bit + i);
      add_pair<chains - 2>(x.at(i + pair), bits, bit + i + pair);
    }
  }

  template <int Chain>
  BATCHNORM_INLINE void add_pair(const In& x, const BitReader& bits, std::int64_t bit) {
    Loaded in;
    BATCHNORM_UNROLL
    for (int j = 0; j < Summation::inputs; ++j) load_pair(in.low[j], in.high[j], x.p[j]);
    std::uint32_t passes = 0;
    if constexpr (Summation::reads_bits) passes = bits.at(bit);
    D low[Summation::factors], high[Summation::factors];
    form(in.low, passes, low);
    form(in.high, passes >> D::lanes, high);
    add_two(summation_, low, high, sums_[Chain], sums_[Chain + 1]);
  }

  /// The last `rest` values of n. The last pair overlaps values that are summed already: those lanes count 0. A run shorter
  /// than a pair is copied.
  BATCHNORM_INLINE void add_last(const In& x, std::int64_t n, std::int64_t rest, const BitReader& bits, std::int64_t bit) {
    constexpr int chain = chains - 2;
    const std::int64_t first = pair - rest;
    Loaded in;
    std::uint32_t passes = 0;
    BATCHNORM_UNROLL
    for (int j = 0; j < Summation::inputs; ++j) {
      if (!is_short || n >= pair) {
        load_pair(in.low[j], in.high[j], x.p[j] + n - pair);
      } else {
        load_pair_last(in.low[j], in.high[j], x.p[j], n);
      }
    }
    if constexpr (Summation::reads_bits) {
      passes = !is_short || n >= pair ? bits.at(bit + n - pair) : bits.at(bit) << (pair - n);
    }
    D low[Summation::factors], high[Summation::factors];
    form(in.low, passes, low);
    form(in.high, passes >> D::lanes, high);
    BATCHNORM_UNROLL
    for (D& f : low) f = select(lanes_from<D>(first), f, D::zero());
    BATCHNORM_UNROLL
    for (D& f : high) f = select(lanes_from<D>(first - D::lanes), f, D::zero());
    add_two(summation_, low, high, sums_[chain], sums_[chain + 1]);
  }

  BATCHNORM_INLINE void form(const D (&in)[Summation::inputs], std::uint32_t bits, D (&factor)[Summation::factors]) const {
    if constexpr (Summation::reads_bits) {
      summation_.form(in, constant_, mask_of<D>(bits), factor);
    } else {
      summation_.form(in, constant_, MaskOf<D>{}, factor);
    }
  }

  Summation summation_;
  D constant_[Summation::constants];
  D sums_[chains][Summation::sums];
};

/// For each of `channels` channels, adds the sums over `images` runs of `length` values. Memory order: image by image, channel
/// by channel. Values of 2 bytes in long runs are widened to float in the first-level cache, from where they become doubles
/// with less work than from a register. is_short: the runs are too short for long chains of additions.
template <Element T, class Summation, bool is_short, class Companion = NoCompanion>
struct SumPlanes {
  static constexpr int inputs = Summation::inputs;
  static constexpr int sums = Summation::sums;
  using In = Pointers<const T, inputs>;
  using Beside = Companion;

  BATCHNORM_INLINE SumPlanes(const void* policy, const PlanesToSum& a)
      : summation(*static_cast<const Summation*>(policy)),
        in(In::of(a.in)),
        images(a.images),
        channels(a.channels),
        length(a.length),
        bits(a.bits),
        first_bit(a.first_bit),
        batch_bits(a.batch_bits),
        channel_bits(a.channel_bits),
        arrays(a.arrays) {
    copy_strides(a.batch_stride, batch_stride);
    copy_strides(a.channel_stride, channel_stride);
  }

  Summation summation;
  In in;
  std::int64_t batch_stride[inputs], channel_stride[inputs];
  std::int64_t images, channels, length;
  BitReader bits;
  std::int64_t first_bit, batch_bits, channel_bits;
  ArraysOf<Summation> arrays;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    NoCompanion none;
    add_runs<Bytes>(none);
  }
  /// The companion is the caller's own copy: nothing that is stored can be it.
  template <int Bytes>
  BATCHNORM_INLINE void run(Companion& companion) const {
    add_runs<Bytes>(companion);
  }

  /// What is prefetched while element i of a run is added: the element sum_distance further on, or, where that is
  /// after the values that lie next to each other, as far into those that are summed after them.
  struct Ahead {
    In here, there;
    std::int64_t change;

    BATCHNORM_INLINE In at(std::int64_t i) const { return i < change ? here.at(i) : there.at(i); }
  };

  /// As many channels at a time as a vector has lanes: their sums are closed side by side.
  template <int Bytes>
  BATCHNORM_INLINE void add_runs(Companion& beside) const {
    using D = vec<double, Bytes>;
    [[maybe_unused]] std::int64_t owed = 0;  // elements summed since the companion went on
    for (std::int64_t n = 0; n < images; ++n) {
      const In image = in.at(n, batch_stride);
      for (std::int64_t c = 0; c < channels; c += D::lanes) {
        D open[sums][D::lanes];
        const std::int64_t some = (std::min<std::int64_t>)(D::lanes, channels - c);
        for (std::int64_t k = 0; k < some; ++k) {
          RunSums<Bytes, Read, Summation, is_short> run(summation, arrays, c + k);
          const In x = image.at(c + k, channel_stride);
          const std::int64_t bit = first_bit + n * batch_bits + (c + k) * channel_bits;
          const Ahead ahead = ahead_of(x, n, c + k);
          if constexpr (widens) {
            add_pieces(run, x, bit, ahead, beside);
          } else {
            run.template add<true>(x, length, bits, bit, ahead, beside);
          }
          run.close();
          BATCHNORM_UNROLL
          for (int j = 0; j < sums; ++j) open[j][k] = run.of(j);
          if constexpr (Companion::works && is_short) {
            owed += length;
            if (owed >= 2 * companion_lines * line_of<T>) {
              beside.template go_on<Bytes>(owed / line_of<T>);
              owed %= line_of<T>;
            }
          }
        }
        BATCHNORM_UNROLL
        for (int j = 0; j < sums; ++j) {
          double* sum = arrays.sum[j] + c;
          if (some == D::lanes) {
            (D::load(sum) + cpu::sums<Bytes>(open[j])).store(sum);
          } else {
            for (std::int64_t k = 0; k < some; ++k) sum[k] += cpu::sum(open[j][k]);
          }
        }
      }
    }
  }

 private:
  static constexpr bool widens = sizeof(T) == 2 && !is_short;
  using Read = std::conditional_t<widens, float, T>;

  /// For the run x of channel c of image n.
  BATCHNORM_INLINE Ahead ahead_of(const In& x, std::int64_t n, std::int64_t c) const {
    const bool is_gapless = channel_stride[0] == length;
    const std::int64_t change = (is_gapless ? channels - c : 1) * length - sum_distance<T>;
    const In here = x.at(sum_distance<T>);
    if (!is_gapless && c + 1 < channels) return {here, in.at(n, batch_stride).at(c + 1, channel_stride).at(-change), change};
    if (n + 1 < images) return {here, in.at(n + 1, batch_stride).at(-change), change};
    return {here, here, change};  // the next part of the plane, perhaps
  }

  /// For values that are read from a copy.
  struct Nowhere {
    static BATCHNORM_INLINE Pointers<const float, inputs> at(std::int64_t) { return {}; }
  };

  /// A run, some lines at a time; the last time perhaps nearly twice as many.
  template <int Bytes>
  BATCHNORM_INLINE void add_pieces(RunSums<Bytes, float, Summation, is_short>& run, const In& x, std::int64_t bit,
                                   const Ahead& ahead, Companion& beside) const {
    constexpr std::int64_t piece = companion_lines * line_of<T>;
    alignas(64) float wide[inputs][2 * piece];
    Pointers<const float, inputs> from;
    for (int j = 0; j < inputs; ++j) from.p[j] = wide[j];
    NoCompanion none;
    for (std::int64_t i = 0; i < length;) {
      const std::int64_t count = length - i < 2 * piece ? length - i : piece;
      const In beyond = ahead.at(i);
      BATCHNORM_UNROLL
      for (int j = 0; j < inputs; ++j) widen<Bytes, Summation::reads_bits>(x.p[j] + i, count, wide[j], beyond.p[j]);
      run.template add<false>(from, count, bits, bit + i, Nowhere{}, none);
      if constexpr (Companion::works) beside.template go_on<Bytes>(count / line_of<T>);
      i += count;
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
