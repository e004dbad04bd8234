// SPDX-License-Identifier: MIT
#pragma once

// Moments of blocks: how they are summed, and how blocks are merged. All arithmetic is double.

#include <batchnorm/cpu/problem.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

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

/// Sums of one block about its pivot, per channel.
struct BlockSums {
  double* pivot;
  double* sum;
  double* sum_sq;

  template <Element T>
  explicit BlockSums(const SumArrays<MomentSummation<T>>& a) noexcept : pivot(a.constant[0]), sum(a.sum[0]), sum_sq(a.sum[1]) {}
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

/// Moves the pivots to the rounded means: the second pass over a block of double then sums small deviations only.
struct RefinePivots {
  BlockSums block;
  std::int64_t channels, count;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    const D n = D::broadcast(static_cast<double>(count));
    for (std::int64_t c = 0; c < channels; c += D::lanes) {
      const D pivot = D::load(block.pivot + c);
      const D mean = pivot + D::load(block.sum + c) / n;
      select(is_finite(mean), mean, pivot).store(block.pivot + c);
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
template <class D>
BATCHNORM_INLINE VectorMoments<D> merged(const VectorMoments<D>& a, const VectorMoments<D>& b, double n_a, double n_b) {
  const D weight = D::broadcast(n_b / (n_a + n_b));
  const D product = D::broadcast(n_a * (n_b / (n_a + n_b)));
  const D delta = (b.mean - a.mean) + (b.mean_low - a.mean_low);
  VectorMoments<D> result;
  D mean, lost;
  two_sum(a.mean, delta * weight, mean, lost);
  two_sum(mean, a.mean_low + lost, result.mean, result.mean_low);
  // A mean that is not finite: Inf stays Inf among finite blocks and meets -Inf as NaN, as in a plain sum.
  result.mean = select(is_finite(result.mean), result.mean, a.mean + b.mean);
  two_sum(a.m2, (b.m2 + b.m2_low) + delta * delta * product, result.m2, lost);
  result.m2_low = a.m2_low + lost;
  return result;
}

/// Merges one block of `count` values per channel into the moments of `before` values. The block's own: mean = pivot + s / n,
/// m2 = q - s * s / n. The pivot is one of the values (or their rounded mean), so s * s / n <= (n + 1) * m2: the subtraction
/// cancels log2(n + 1) bits at most.
struct MergeBlock {
  MomentSums moments;
  BlockSums block;
  std::int64_t channels, before, count;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    const double n_a = static_cast<double>(before), n_b = static_cast<double>(count);
    const D n = D::broadcast(n_b);
    for (std::int64_t c = 0; c < channels; c += D::lanes) {
      const D s = D::load(block.sum + c);
      const D offset = s / n;
      VectorMoments<D> b;
      two_sum(D::load(block.pivot + c), offset, b.mean, b.mean_low);
      b.m2 = D::load(block.sum_sq + c) - s * offset;
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

/// Mean and squared deviations of each channel (problem.hpp says what a statistic is).
template <Element T>
struct MomentStatistic {
  using Summation = MomentSummation<T>;
  static constexpr int state = 4;

  Summation summation;

  void begin(Isa, const Reduction<T, MomentStatistic>& x, const Block& block, std::int64_t first, std::int64_t channels,
             const SumArrays<Summation>& to) const noexcept {
    for (std::int64_t c = 0; c < channels; ++c) {
      to.constant[0][c] = pivot_of(*x.in.of[0].at(block.first_image, first + c, block.first_position));
    }
  }
  bool refine(Isa isa, const Block& block, std::int64_t channels, const SumArrays<Summation>& sums) const noexcept {
    if constexpr (!std::same_as<T, double>) return false;
    run(isa, RefinePivots{BlockSums(sums), channels, block.values()});
    return true;
  }
  void merge(Isa isa, const ChannelArrays& state_arrays, const SumArrays<Summation>& sums, std::int64_t channels,
             std::int64_t before, std::int64_t count) const noexcept {
    run(isa, MergeBlock{MomentSums(state_arrays), BlockSums(sums), channels, before, count});
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
