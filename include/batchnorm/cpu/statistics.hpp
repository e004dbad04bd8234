// SPDX-License-Identifier: MIT
#pragma once

// Kernels over channels: merging the sums of blocks, and what follows from the moments. All arithmetic is double.

#include <batchnorm/cpu/problem.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Sums of d and of d * d, d = x - pivot.
template <Element T>
struct MomentSummation {
  static constexpr int inputs = 1, constants = 1, factors = 1, sums = 2;
  static constexpr bool reads_bits = false;

  template <class V>
  BATCHNORM_INLINE void form(const V (&in)[1], const V (&pivot)[1], const MaskOf<V>&, V (&d)[1]) const {
    d[0] = in[0] - pivot[0];
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

/// The caller's arrays over channels and the rules for them; null where absent.
template <Element P>
struct ChannelArguments {
  const P* scale = nullptr;
  const P* bias = nullptr;
  P* batch_mean[2] = {nullptr, nullptr};
  P* batch_variance[2] = {nullptr, nullptr};
  P* running_mean = nullptr;
  P* running_variance = nullptr;
  double epsilon = 0;
  double momentum = 0;
  double variance_factor = 1;  // of the biased variance that enters the running one
  bool keeps_if_not_finite = false;

  /// The arguments of the channels from c on.
  ChannelArguments at(std::int64_t c) const noexcept {
    const auto shifted = [c](auto* p) { return p == nullptr ? p : p + c; };
    ChannelArguments result = *this;
    result.scale = shifted(scale);
    result.bias = shifted(bias);
    for (int k = 0; k < 2; ++k) {
      result.batch_mean[k] = shifted(batch_mean[k]);
      result.batch_variance[k] = shifted(batch_variance[k]);
    }
    result.running_mean = shifted(running_mean);
    result.running_variance = shifted(running_variance);
    return result;
  }

  /// Batch statistics of no values are 0; running statistics stay as they are.
  void write_empty_batch(std::int64_t channels) const noexcept {
    for (P* p : {batch_mean[0], batch_mean[1], batch_variance[0], batch_variance[1]}) {
      if (p != nullptr) std::fill_n(p, channels, P(0));
    }
  }
};

/// Half the range of double lanes: the pair that P's are read and written in.
template <int Bytes>
struct Pair {
  using D = vec<double, Bytes>;
  D low, high;

  static BATCHNORM_INLINE Pair broadcast(double value) { return {D::broadcast(value), D::broadcast(value)}; }

  /// count of them (a whole pair at most) from p, or `absent` everywhere when p is null.
  template <Element P>
  static BATCHNORM_INLINE Pair load(const P* p, std::int64_t count, double absent) {
    Pair result = broadcast(absent);
    if (p != nullptr && count == pair_of<Bytes>) load_pair(result.low, result.high, p);
    if (p != nullptr && count < pair_of<Bytes>) load_pair_first(result.low, result.high, p, count);
    return result;
  }

  template <Element P>
  BATCHNORM_INLINE void store(P* p, std::int64_t count) const {
    if (p == nullptr) return;
    if (count == pair_of<Bytes>) {
      store_pair(p, low, high);
    } else {
      store_pair_first(p, low, high, count);
    }
  }
};

/// scale / sqrt(variance + epsilon) with one rounding (and 2^-100 more): Newton's correction of the rounded quotient and root
/// by their exact remainders. For double; float rounds the plain quotient in double once more and needs no better.
template <int Bytes>
BATCHNORM_INLINE vec<double, Bytes> precise_quotient(const vec<double, Bytes>& scale, const vec<double, Bytes>& variance,
                                                     double epsilon) {
  using D = vec<double, Bytes>;
  D sum, sum_lost;
  two_sum(variance, D::broadcast(epsilon), sum, sum_lost);
  const D root = square_root(sum);
  const D quotient = scale / root;
  const D root_lost = (D::zero() - remainder(root, root, sum) + sum_lost) / (root + root);
  const D rest = D::zero() - remainder(quotient, root, scale) - quotient * root_lost;
  const D corrected = quotient + rest / root;
  return select(is_finite(corrected), corrected, quotient);
}

/// Constants of a channel: y = activation((x - center) * factor + offset [+ residual]), in the order center, factor, offset.
template <class Compute>
using NormalizationCoefficients = Coefficients<Compute, 3>;

/// y of one element, and the bit that tells which piece of the activation it went through.
template <Element T, class A, bool adds_residual, bool writes_bits>
struct Normalization {
  static constexpr int inputs = adds_residual ? 2 : 1, outputs = 1, coefficients = 3, prefetched = 1;
  static constexpr Bits bits = writes_bits ? Bits::written : Bits::none;

  A activation;

  template <class V>
  BATCHNORM_INLINE void operator()(const V (&in)[inputs], const V (&k)[3], const MaskOf<V>&, V (&y)[1]) const {
    V z = fma(in[0] - k[0], k[1], k[2]);
    if constexpr (adds_residual) z = z + in[1];
    y[0] = activation(z);
  }
  template <class V>
  BATCHNORM_INLINE MaskOf<V> passes(const V& y) const {
    return activation.passes(y);
  }
};

/// v kept within the range of Compute while `finite` is finite, so that 0 * v is 0.
template <class Compute, class D>
BATCHNORM_INLINE D bounded(const D& v, const D& finite) {
  const D largest = D::broadcast(static_cast<double>((std::numeric_limits<Compute>::max)()));
  const D within = select(largest < v, largest, select(v < D::zero() - largest, D::zero() - largest, v));
  return select(is_finite(finite), within, v);
}

/// scale / sqrt(variance + epsilon), as a double that is about to be rounded to Compute.
template <class Compute, int Bytes>
BATCHNORM_INLINE vec<double, Bytes> inverse_deviation_times(const vec<double, Bytes>& scale, const vec<double, Bytes>& variance,
                                                            double epsilon) {
  if constexpr (std::same_as<Compute, double>) return precise_quotient(scale, variance, epsilon);
  return scale / square_root(variance + vec<double, Bytes>::broadcast(epsilon));
}

/// The same, kept finite while scale is.
template <class Compute, int Bytes>
BATCHNORM_INLINE vec<double, Bytes> factor_of(const vec<double, Bytes>& scale, const vec<double, Bytes>& variance,
                                              double epsilon) {
  return bounded<Compute>(inverse_deviation_times<Compute>(scale, variance, epsilon), scale);
}

/// factor = scale / sqrt(variance + epsilon) rounded to C, kept finite while scale is, so that 0 * factor is 0;
/// offset = bias - (mean - center) * factor with center the mean rounded to C: the part of the mean that C cannot hold.
template <class Compute, int Bytes>
BATCHNORM_INLINE void store_coefficients(const NormalizationCoefficients<Compute>& to, std::int64_t c, const Pair<Bytes>& mean,
                                         const Pair<Bytes>& mean_low, const Pair<Bytes>& variance, const Pair<Bytes>& scale,
                                         const Pair<Bytes>& bias, double epsilon) {
  using D = vec<double, Bytes>;
  const auto offset_of =
      [](const D& m, const D& m_low, const D& center, const D& factor, const D& b) __attribute__((always_inline)) {
    return b - ((m - center) + m_low) * factor;
  };
  Pair<Bytes> center, factor, offset;
  (Pair<Bytes>{mean.low + mean_low.low, mean.high + mean_low.high}).store(to.array[0] + c, pair_of<Bytes>);
  (Pair<Bytes>{factor_of<Compute>(scale.low, variance.low, epsilon), factor_of<Compute>(scale.high, variance.high, epsilon)})
      .store(to.array[1] + c, pair_of<Bytes>);
  load_pair(center.low, center.high, static_cast<const Compute*>(to.array[0] + c));
  load_pair(factor.low, factor.high, static_cast<const Compute*>(to.array[1] + c));
  offset.low = offset_of(mean.low, mean_low.low, center.low, factor.low, bias.low);
  offset.high = offset_of(mean.high, mean_low.high, center.high, factor.high, bias.high);
  offset.store(to.array[2] + c, pair_of<Bytes>);
}

/// From merged moments: batch statistics, running statistics, coefficients (each where asked for).
/// The coefficients have room for whole pairs.
template <class Compute, Element P>
struct FinalizeChannels {
  MomentSums moments;
  std::int64_t channels, count;
  ChannelArguments<P> to;
  NormalizationCoefficients<Compute> coefficients;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    const D n = D::broadcast(static_cast<double>(count));
    const auto variance_of = [&](std::int64_t c) __attribute__((always_inline)) {
      const D v = (D::load(moments.m2 + c) + D::load(moments.m2_low + c)) / n;
      return select(v < D::zero(), D::zero(), v);
    };
    for (std::int64_t c = 0; c < channels; c += pair_of<Bytes>) {
      const std::int64_t some = (std::min)(pair_of<Bytes>, channels - c);
      const Pair<Bytes> mean{D::load(moments.mean + c), D::load(moments.mean + c + D::lanes)};
      const Pair<Bytes> low{D::load(moments.mean_low + c), D::load(moments.mean_low + c + D::lanes)};
      const Pair<Bytes> variance{variance_of(c), variance_of(c + D::lanes)};
      for (int k = 0; k < 2; ++k) {
        if (to.batch_mean[k] != nullptr) mean.store(to.batch_mean[k] + c, some);
        if (to.batch_variance[k] != nullptr) variance.store(to.batch_variance[k] + c, some);
      }
      if (to.running_mean != nullptr && to.momentum != 0) update<Bytes>(c, some, mean, variance);
      if (coefficients.array[0] == nullptr) continue;
      const auto scale = Pair<Bytes>::load(to.scale == nullptr ? nullptr : to.scale + c, some, 1.0);
      const auto bias = Pair<Bytes>::load(to.bias == nullptr ? nullptr : to.bias + c, some, 0.0);
      store_coefficients<Compute, Bytes>(coefficients, c, mean, low, variance, scale, bias, to.epsilon);
    }
  }

  /// running = (1 - momentum) * running + momentum * batch, rounded once from double.
  template <int Bytes>
  BATCHNORM_INLINE void update(std::int64_t c, std::int64_t some, const Pair<Bytes>& mean, const Pair<Bytes>& variance) const {
    using D = vec<double, Bytes>;
    const D factor = D::broadcast(to.variance_factor);
    const Pair<Bytes> entering{variance.low * factor, variance.high * factor};
    const auto old_mean = Pair<Bytes>::load(to.running_mean + c, some, 0.0);
    const auto old_variance = Pair<Bytes>::load(to.running_variance + c, some, 0.0);
    Pair<Bytes> next_mean{blend(old_mean.low, mean.low), blend(old_mean.high, mean.high)};
    Pair<Bytes> next_variance{blend(old_variance.low, entering.low), blend(old_variance.high, entering.high)};
    if (to.keeps_if_not_finite) {
      keep(next_mean.low, next_variance.low, old_mean.low, old_variance.low, mean.low, entering.low);
      keep(next_mean.high, next_variance.high, old_mean.high, old_variance.high, mean.high, entering.high);
    }
    next_mean.store(to.running_mean + c, some);
    next_variance.store(to.running_variance + c, some);
  }

  template <class D>
  BATCHNORM_INLINE D blend(const D& old, const D& batch) const {
    if (to.momentum == 1) return batch;  // not 0 * old: the old value may be NaN
    const D p = D::broadcast(to.momentum);
    if constexpr (std::same_as<P, double>) return fma(p, batch - old, old);
    return (D::broadcast(1.0) - p) * old + p * batch;
  }

  template <class D>
  BATCHNORM_INLINE void keep(D& next_mean, D& next_variance, const D& old_mean, const D& old_variance, const D& mean,
                             const D& variance) const {
    const D bound = D::broadcast(rounds_to_infinity<P>());
    const auto finite_mean = absolute(mean) < bound;
    const auto finite_variance = absolute(variance) < bound;
    next_mean = select(finite_mean, select(finite_variance, next_mean, old_mean), old_mean);
    next_variance = select(finite_mean, select(finite_variance, next_variance, old_variance), old_variance);
  }

  /// The least magnitude that becomes Inf in that type.
  template <Element Q>
  static constexpr double rounds_to_infinity() {
    if constexpr (std::same_as<Q, double>) return std::numeric_limits<double>::infinity();
    if constexpr (std::same_as<Q, float>) return 0x1.ffffffp127;
    if constexpr (std::same_as<Q, half>) return 65520.0;
    if constexpr (std::same_as<Q, bfloat16>) return 0x1.ffp127;
  }
};

/// Coefficients of an inference: mean and variance are constants of type P, which C holds exactly.
template <class Compute, Element P>
struct ConstantCoefficients {
  const P* mean;
  const P* variance;
  const P* scale;
  const P* bias;
  double epsilon;
  std::int64_t channels;
  NormalizationCoefficients<Compute> coefficients;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    for (std::int64_t c = 0; c < channels; c += pair_of<Bytes>) {
      const std::int64_t some = (std::min)(pair_of<Bytes>, channels - c);
      const auto m = Pair<Bytes>::load(mean + c, some, 0.0);
      const auto v = Pair<Bytes>::load(variance + c, some, 0.0);
      const auto s = Pair<Bytes>::load(scale == nullptr ? nullptr : scale + c, some, 1.0);
      const auto b = Pair<Bytes>::load(bias == nullptr ? nullptr : bias + c, some, 0.0);
      store_coefficients<Compute, Bytes>(coefficients, c, m, Pair<Bytes>::broadcast(0.0), v, s, b, epsilon);
      b.store(coefficients.array[2] + c, pair_of<Bytes>);  // also where an infinite mean has no difference to itself
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
