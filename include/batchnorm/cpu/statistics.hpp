// SPDX-License-Identifier: MIT
#pragma once

// Kernels over channels: merging the sums of blocks, and what follows from the moments. All arithmetic is double.

#include <batchnorm/cpu/runs.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Scratch arrays of doubles over channels are this much longer than the channels, so that loops need no tail.
inline constexpr std::int64_t channel_padding = 16;

/// Sums of one block about its pivot, per channel.
struct BlockSums {
  double* pivot;
  double* sum;
  double* sum_sq;

  BlockSums at(std::int64_t c) const noexcept { return {pivot + c, sum + c, sum_sq + c}; }
};

/// Moments being merged, per channel: the mean is mean + mean_low, the sum of squared deviations m2 + m2_low.
struct MomentSums {
  double* mean;
  double* mean_low;
  double* m2;
  double* m2_low;

  MomentSums at(std::int64_t c) const noexcept { return {mean + c, mean_low + c, m2 + c, m2_low + c}; }
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

/// factor = scale / sqrt(variance + epsilon) rounded to C, kept finite while scale is, so that 0 * factor is 0;
/// offset = bias - (mean - center) * factor with center the mean rounded to C: the part of the mean that C cannot hold.
template <class Compute, int Bytes>
BATCHNORM_INLINE void store_coefficients(const Coefficients<Compute>& to, std::int64_t c, const Pair<Bytes>& mean,
                                         const Pair<Bytes>& mean_low, const Pair<Bytes>& variance, const Pair<Bytes>& scale,
                                         const Pair<Bytes>& bias, double epsilon) {
  using D = vec<double, Bytes>;
  const auto factor_of = [&](const D& v, const D& s) __attribute__((always_inline)) {
    const D largest = D::broadcast(static_cast<double>((std::numeric_limits<Compute>::max)()));
    D f;
    if constexpr (std::same_as<Compute, double>) {
      f = precise_quotient(s, v, epsilon);
    } else {
      f = s / square_root(v + D::broadcast(epsilon));
    }
    const D bounded = select(largest < f, largest, select(f < D::zero() - largest, D::zero() - largest, f));
    return select(is_finite(s), bounded, f);
  };
  const auto offset_of =
      [](const D& m, const D& m_low, const D& center, const D& factor, const D& b) __attribute__((always_inline)) {
    return b - ((m - center) + m_low) * factor;
  };
  Pair<Bytes> center, factor, offset;
  (Pair<Bytes>{mean.low + mean_low.low, mean.high + mean_low.high}).store(to.center + c, pair_of<Bytes>);
  (Pair<Bytes>{factor_of(variance.low, scale.low), factor_of(variance.high, scale.high)}).store(to.factor + c, pair_of<Bytes>);
  load_pair(center.low, center.high, static_cast<const Compute*>(to.center + c));
  load_pair(factor.low, factor.high, static_cast<const Compute*>(to.factor + c));
  offset.low = offset_of(mean.low, mean_low.low, center.low, factor.low, bias.low);
  offset.high = offset_of(mean.high, mean_low.high, center.high, factor.high, bias.high);
  offset.store(to.offset + c, pair_of<Bytes>);
}

/// From merged moments: batch statistics, running statistics, coefficients (each where asked for).
/// The coefficients have room for whole pairs.
template <class Compute, Element P>
struct FinalizeChannels {
  MomentSums moments;
  std::int64_t channels, count;
  ChannelArguments<P> to;
  Coefficients<Compute> coefficients;

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
      if (coefficients.center == nullptr) continue;
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
  Coefficients<Compute> coefficients;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    for (std::int64_t c = 0; c < channels; c += pair_of<Bytes>) {
      const std::int64_t some = (std::min)(pair_of<Bytes>, channels - c);
      const auto m = Pair<Bytes>::load(mean + c, some, 0.0);
      const auto v = Pair<Bytes>::load(variance + c, some, 0.0);
      const auto s = Pair<Bytes>::load(scale == nullptr ? nullptr : scale + c, some, 1.0);
      const auto b = Pair<Bytes>::load(bias == nullptr ? nullptr : bias + c, some, 0.0);
      store_coefficients<Compute, Bytes>(coefficients, c, m, Pair<Bytes>::broadcast(0.0), v, s, b, epsilon);
      b.store(coefficients.offset + c, pair_of<Bytes>);  // also where an infinite mean has no difference to itself
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
