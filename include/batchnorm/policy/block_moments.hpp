// SPDX-License-Identifier: MIT
#pragma once

// Moments of blocks: how they are summed, and how blocks are merged. All arithmetic is double.

#include <bit>
#include <cstdint>

#include <batchnorm/kernel/channel_arrays.hpp>
#include <batchnorm/kernel/dispatch.hpp>
#include <batchnorm/kernel/operands.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// A value as pivot, 0 where it is not finite (then the sums are not either, whatever the pivot).
template <Element T>
double pivot_of(const T& x) noexcept {
  const double value = widened(x);
  return value - value == 0 ? value : 0.0;
}

/// Sums of d and of d * d, d = x - pivot.
template <Element T>
struct MomentSummation {
  static constexpr int inputs = 1, constants = 1, factors = 1, sums = 2;
  static constexpr bool reads_bits = false;

  double one = 1;

  template <class V>
  BATCHNORM_INLINE void form(const V (&in)[1], const V (&pivot)[1], const MaskOf<V>&, V (&d)[1]) const {
    d[0] = difference(in[0], pivot[0], one);
  }
  template <class V>
  BATCHNORM_INLINE void add(const V (&d)[1], V (&sum)[2]) const {
    sum[0] = sum[0] + d[0];
    sum[1] = fma(d[0], d[0], sum[1]);
  }
};

/// The sums of d, of what its additions have lost, and of d * d, where the pivot is about the mean: the second pass over
/// double. The sum of d starts from a bias that no sum of |d| exceeds. So |running sum| >= |d|, and what an addition loses is a
/// double (Dekker's FastTwoSum); and sums without their bias are multiples of one power of two, which are added up exactly.
struct RefinedMomentSummation {
  static constexpr int inputs = 1, constants = 2, factors = 1, sums = 3;
  static constexpr bool reads_bits = false;

  double one = 1;

  template <class V>
  BATCHNORM_INLINE void form(const V (&in)[1], const V (&constant)[2], const MaskOf<V>&, V (&d)[1]) const {
    d[0] = difference(in[0], constant[0], one);
  }
  template <class V>
  BATCHNORM_INLINE void open(const V (&constant)[2], V (&sum)[3]) const {
    sum[0] = sum[0] + constant[1];
  }
  template <class V>
  BATCHNORM_INLINE void close(const V (&constant)[2], V (&sum)[3]) const {
    sum[0] = sum[0] - constant[1];
  }
  template <class V>
  BATCHNORM_INLINE void add(const V (&d)[1], V (&sum)[3]) const {
    add_exactly(d[0], sum);
    sum[2] = fma(d[0], d[0], sum[2]);
  }
  /// The sum of two rounds once: a mean pays half an ulp of its deviation for it.
  template <class V>
  BATCHNORM_INLINE void add_two(const V (&a)[1], const V (&b)[1], V (&sum)[3], V (&other)[3]) const {
    add_exactly(a[0] + b[0], sum);
    sum[2] = fma(a[0], a[0], sum[2]);
    other[2] = fma(b[0], b[0], other[2]);
  }
  template <class V>
  BATCHNORM_INLINE void add_exactly(const V& d, V (&sum)[3]) const {
    const V added = difference(sum[0] + d, sum[0], one);
    sum[0] = sum[0] + d;
    sum[1] = sum[1] + (d - added);
  }
};

/// Sums of one block about its pivot, per channel; `lost` is what the additions of `sum` have lost, null where that is unknown.
struct BlockSums {
  double* pivot;
  double* sum;
  double* lost;
  double* sum_sq;

  /// From the arrays of MomentSummation, or of RefinedMomentSummation.
  static BlockSums plain(const SumArrays& a) noexcept { return {a.constant[0], a.sum[0], nullptr, a.sum[1]}; }
  static BlockSums refined(const SumArrays& a) noexcept { return {a.constant[0], a.sum[0], a.sum[1], a.sum[2]}; }
};

/// Moments being merged, per channel: the mean is mean + mean_low, the sum of squared deviations m2 + m2_low.
struct MomentSums {
  double* mean;
  double* mean_low;
  double* m2;
  double* m2_low;

  explicit MomentSums(const ChannelArrays& a) noexcept : mean(a[0]), mean_low(a[1]), m2(a[2]), m2_low(a[3]) {}
};

/// All ones where a is finite.
template <class V>
BATCHNORM_INLINE auto is_finite(const V& a) {
  return a - a == V::zero();
}

/// a + b as a rounded sum and what the rounding lost (Knuth's TwoSum); nothing is lost of an infinite sum.
template <class V>
BATCHNORM_INLINE void two_sum(const V& a, const V& b, V& rounded, V& lost) {
  rounded = a + b;
  const V b_rounded = rounded - a;
  const V error = (a - (rounded - b_rounded)) + (b - b_rounded);
  lost = select(is_finite(rounded), error, V::zero());
}

/// a * b - c without its own rounding, where a * b is about c: exact with a fused multiply-add, else by Dekker's product.
template <int Bytes>
BATCHNORM_INLINE vec<double, Bytes> remainder(const vec<double, Bytes>& a, const vec<double, Bytes>& b,
                                              const vec<double, Bytes>& c) {
  using D = vec<double, Bytes>;
  if constexpr (intrinsics::has_fma<Bytes>) {
    return fma(a, b, D::zero() - c);
  } else {
    const auto upper = [](const D& x) __attribute__((always_inline)) {
      const D shifted = x * D::broadcast(134217729.0);  // 2^27 + 1: leaves the upper 26 bits
      return shifted - (shifted - x);
    };
    const D a_upper = upper(a), b_upper = upper(b);
    const D a_lower = a - a_upper, b_lower = b - b_upper;
    const D product = a * b;
    const D lost = ((a_upper * b_upper - product) + a_upper * b_lower + a_lower * b_upper) + a_lower * b_lower;
    return (product - c) + lost;
  }
}

inline bool is_power_of_2(double n) noexcept { return (std::bit_cast<std::uint64_t>(n) & (~std::uint64_t{0} >> 12)) == 0; }

/// high + low = (a + a_low) / n, to about 104 bits; exact where it is a double and a is exact. Through references: GCC 12 puts
/// a structure of two vectors together in memory, from halves, and then waits to read the whole.
template <class D>
BATCHNORM_INLINE void quotient(const D& a, const D& a_low, double n, D& high, D& low) {
  // By a power of two the product is the same and faster.
  high = is_power_of_2(n) ? a * D::broadcast(1 / n) : a / D::broadcast(n);
  low = (a_low - remainder(high, D::broadcast(n), a)) * D::broadcast(1 / n);
  low = select(is_finite(low), low, D::zero());
}

/// A mean of n values as a pair, without what only roundings have left in it: next to a mean or a step of size v these are a
/// few 2^-106 v, which would keep x - mean from 0 where x is the mean. A low part below 2^-56 |mean| / n is 0 in truth or does
/// not matter: either the deviation is more than |mean| / n, or all values are multiples of 2^-53 |mean|, and their mean of
/// 2^-53 |mean| / n. Nor does 2^-90 of the step, which is at most sqrt(2 n) deviations.
template <class D>
BATCHNORM_INLINE D settled_high(const D& mean, const D& step) {
  return select(absolute(mean) <= D::broadcast(0x1p-90) * absolute(step), D::zero(), mean);
}
template <class D>
BATCHNORM_INLINE D settled_low(const D& mean, const D& mean_low, const D& step, double n) {
  const D of_step = D::broadcast(0x1p-90) * absolute(step), of_mean = D::broadcast(0x1p-56 / n) * absolute(mean);
  const D bound = select(of_mean < of_step, of_step, of_mean);
  return select(absolute(mean_low) <= bound, D::zero(), mean_low);
}

/// Moves the pivots to the means: the second pass over a block of double then sums small deviations only. They go to within a
/// hundredth of the deviation, to a number with few digits where the mean is not far off 0: x - pivot is then exact for data
/// with few digits. The bias of the sums is 4 sqrt(n q) >= 4 sum(|x - pivot|).
struct RefinePivots {
  BlockSums block;
  double* bias;
  std::int64_t channels, count;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    const D n = D::broadcast(static_cast<double>(count));
    const D root_n = D::broadcast(std::sqrt(static_cast<double>(count)));
    for (std::int64_t c = 0; c < channels; c += D::lanes) {
      const D pivot = D::load(block.pivot + c), s = D::load(block.sum + c), q = D::load(block.sum_sq + c);
      const D offset = s / n;
      const D mean = pivot + offset;
      const D large = D::broadcast(4.0) * root_n * square_root(q);
      // 2^-52 of this is a 64th of the deviation.
      const D m2 = q - s * offset;
      const D coarse = D::broadcast(0x1p46) * square_root(select(D::zero() < m2, m2, D::zero())) / root_n;
      const D rounded = select(absolute(mean) < D::broadcast(0.25) * coarse, (mean + coarse) - coarse, mean);
      select(is_finite(rounded), rounded, select(is_finite(mean), mean, pivot)).store(block.pivot + c);
      select(is_finite(large), large, D::zero()).store(bias + c);
      D::zero().store(block.sum + c);
      D::zero().store(block.sum_sq + c);
    }
  }
};

/// The moments of one vector of channels: the mean is mean + mean_low, the sum of squared deviations m2 + m2_low.
template <class D>
struct VectorMoments {
  D mean, mean_low, m2, m2_low;
};

/// Moments of n_a and of n_b values made one. With delta = mean_b - mean_a (Chan, Golub and LeVeque 1979):
///
///   mean = mean_a + delta * n_b / (n_a + n_b)        m2 = m2_a + m2_b + delta^2 * n_a * n_b / (n_a + n_b)
///
/// The mean in twice the precision of double: exact where it is a double and the sums of both are exact.
template <class D>
BATCHNORM_INLINE VectorMoments<D> merged(const VectorMoments<D>& a, const VectorMoments<D>& b, double n_a, double n_b) {
  const double n = n_a + n_b;
  const D count = D::broadcast(n_b), product = D::broadcast(n_a * (n_b / n));
  D difference, difference_low, mean, lost;
  two_sum(b.mean, D::zero() - a.mean, difference, difference_low);
  difference_low = difference_low + (b.mean_low - a.mean_low);
  const D delta = difference + difference_low;
  const D times_b = difference * count;
  D step, step_low;
  quotient(times_b, remainder(difference, count, times_b) + difference_low * count, n, step, step_low);
  VectorMoments<D> result;
  two_sum(a.mean, step, mean, lost);
  two_sum(mean, lost + (a.mean_low + step_low), result.mean, result.mean_low);
  result.mean_low = settled_low(result.mean, result.mean_low, delta, n);
  // A mean that is not finite: Inf stays Inf among finite blocks and meets -Inf as NaN, as in a plain sum.
  const D plain = a.mean * D::broadcast(n_a / n) + b.mean * D::broadcast(n_b / n);
  result.mean = select(is_finite(result.mean), settled_high(result.mean, delta), plain);
  two_sum(a.m2, (b.m2 + b.m2_low) + delta * delta * product, result.m2, lost);
  result.m2_low = a.m2_low + lost;
  return result;
}

/// Merges one block of `count` values per channel into the moments of `before` values. The block's own: mean = pivot + s / n,
/// m2 = q - s * s / n. The pivot is one of the values (or their rounded mean), so s * s / n <= n * m2: the subtraction cancels
/// log2(n + 1) bits at most.
struct MergeBlock {
  MomentSums moments;
  BlockSums block;
  std::int64_t channels, before, count;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    const double n_a = static_cast<double>(before), n_b = static_cast<double>(count);
    for (std::int64_t c = 0; c < channels; c += D::lanes) {
      const D plain_sum = D::load(block.sum + c);
      D sum = plain_sum, sum_low = D::zero();
      if (block.lost != nullptr) {  // of an infinite sum NaN is lost
        two_sum(plain_sum, select(is_finite(plain_sum), D::load(block.lost + c), D::zero()), sum, sum_low);
      }
      D offset, offset_low, mean, lost;
      quotient(sum, sum_low, n_b, offset, offset_low);
      VectorMoments<D> b;
      two_sum(D::load(block.pivot + c), offset, mean, lost);
      two_sum(mean, lost + offset_low, b.mean, b.mean_low);
      b.mean_low = settled_low(b.mean, b.mean_low, offset, n_b);
      // A sum of squares that has overflowed among finite values is Inf, not Inf - Inf; NaN where their sum is not finite.
      const D squares = D::load(block.sum_sq + c);
      b.m2 = select(is_finite(squares), squares - sum * offset, squares + (sum - sum));
      b.m2_low = D::zero();
      store(c, before == 0 ? b : merged(load<D>(c), b, n_a, n_b));
    }
  }

  template <class D>
  BATCHNORM_INLINE VectorMoments<D> load(std::int64_t c) const {
    return {D::load(moments.mean + c), D::load(moments.mean_low + c), D::load(moments.m2 + c), D::load(moments.m2_low + c)};
  }

  template <class D>
  BATCHNORM_INLINE void store(std::int64_t c, const VectorMoments<D>& m) const {
    m.mean.store(moments.mean + c);
    m.mean_low.store(moments.mean_low + c);
    m.m2.store(moments.m2 + c);
    m.m2_low.store(moments.m2_low + c);
  }
};

/// The first value of each of `channels` channels from `first` on, in images from `image` on and from `position` on.
template <Element T>
void copy_pivots(const Placed<const std::byte>& x, std::int64_t image, std::int64_t position, std::int64_t first,
                 std::int64_t channels, double* to) noexcept {
  const T* values = reinterpret_cast<const T*>(x.at(image, first, position, sizeof(T)));
  std::int64_t c = 0;
  if constexpr (std::same_as<T, float>) {  // four channels at a time where they are neighbours
    using D = vec<double, 16>;
    const auto pivots = [](const D& v) { return select(is_finite(v), v, D::zero()); };
    for (; x.pitch.channel == 1 && c + 4 <= channels; c += 4) {
      D low, high;
      load_pair(low, high, values + c);
      pivots(low).store(to + c);
      pivots(high).store(to + c + 2);
    }
  }
  for (; c < channels; ++c) to[c] = pivot_of(values[c * x.pitch.channel]);
}

/// Mean and squared deviations of each channel (problem.hpp says what a statistic is).
template <Element T>
struct MomentStatistic {
  using Summation = MomentSummation<T>;
  static constexpr int state = 4;

  Summation summation;

  void begin(const Inputs& in, const Block& block, std::int64_t first, std::int64_t channels,
             const SumArrays& to) const noexcept {
    copy_pivots<T>(in[0], block.first_image, block.first_position, first, channels, to.constant[0]);
  }
  void merge(Isa isa, const ChannelArrays& state_arrays, const SumArrays& sums, std::int64_t channels, std::int64_t before,
             std::int64_t count) const noexcept {
    run(isa, MergeBlock{MomentSums(state_arrays), BlockSums::plain(sums), channels, before, count});
  }
};

/// double in two passes over each block.
template <>
struct MomentStatistic<double> {
  using Summation = RefinedMomentSummation;
  static constexpr int state = 4;

  using Rough = MomentSummation<double>;

  Summation summation;
  Rough rough;

  void begin(const Inputs& in, const Block& block, std::int64_t first, std::int64_t channels,
             const SumArrays& to) const noexcept {
    copy_pivots<double>(in[0], block.first_image, block.first_position, first, channels, to.constant[0]);
  }
  void refine(Isa isa, const Block& block, std::int64_t channels, const SumArrays& sums) const noexcept {
    run(isa, RefinePivots{BlockSums::plain(sums), sums.constant[1], channels, block.values()});
  }
  void merge(Isa isa, const ChannelArrays& state_arrays, const SumArrays& sums, std::int64_t channels, std::int64_t before,
             std::int64_t count) const noexcept {
    run(isa, MergeBlock{MomentSums(state_arrays), BlockSums::refined(sums), channels, before, count});
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
