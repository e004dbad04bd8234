// SPDX-License-Identifier: MIT
#pragma once

// Kernels over channels: what follows from the moments. All arithmetic is double.

#include <batchnorm/policy/block_moments.hpp>
#include <batchnorm/policy/held.hpp>
#include <batchnorm/policy/pairs.hpp>
#include <batchnorm/vector/ordered_accesses.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

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

  /// The same with other arrays: change(p) for each.
  template <class Change>
  BATCHNORM_INLINE ChannelArguments changed(const Change& change) const {
    ChannelArguments result = *this;
    result.scale = change(scale);
    result.bias = change(bias);
    for (int k = 0; k < 2; ++k) {
      result.batch_mean[k] = change(batch_mean[k]);
      result.batch_variance[k] = change(batch_variance[k]);
    }
    result.running_mean = change(running_mean);
    result.running_variance = change(running_variance);
    return result;
  }

  /// The arguments of the channels from c on.
  ChannelArguments at(std::int64_t c) const noexcept {
    return changed([c](auto* p) { return p == nullptr ? p : p + c; });
  }

  /// Batch statistics of no values are 0; running statistics stay as they are.
  void write_empty_batch(std::int64_t channels) const noexcept {
    const OrderedAccesses ordered;
    for (P* p : {batch_mean[0], batch_mean[1], batch_variance[0], batch_variance[1]}) {
      if (p != nullptr) std::fill_n(p, channels, P(0));
    }
  }
};

/// Merges moments of n_b values per channel into those of n_a, neither 0. The arrays have no room after the last channel.
struct MergeMoments {
  double* into[3];  // mean, mean_low, m2
  const double* from[3];
  std::int64_t channels;
  double n_a, n_b;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using Moments = VectorMoments<vec<double, Bytes>>;
    MergeMoments now = *this;
    LastPair<Bytes, double> last;
    for (std::int64_t c = 0, at = 0; c < channels; c += pair_of<Bytes>, at += pair_of<Bytes>) {
      if (channels - c < pair_of<Bytes>) {
        last.begin(c, channels - c);
        for (int k = 0; k < 3; ++k) now.into[k] = last.copy_of(into[k]), now.from[k] = last.copy_of(from[k]);
        at = 0;
      }
      Pair<Bytes> a[3], b[3];
      for (int k = 0; k < 3; ++k) {
        a[k] = Pair<Bytes>::load(now.into[k], at, 0.0);
        b[k] = Pair<Bytes>::load(now.from[k], at, 0.0);
      }
      const auto zero = Pair<Bytes>::broadcast(0.0);
      const Moments low =
          merged(Moments{a[0].low, a[1].low, a[2].low, zero.low}, Moments{b[0].low, b[1].low, b[2].low, zero.low}, n_a, n_b);
      const Moments high = merged(Moments{a[0].high, a[1].high, a[2].high, zero.high},
                                  Moments{b[0].high, b[1].high, b[2].high, zero.high}, n_a, n_b);
      (Pair<Bytes>{low.mean, high.mean}).store(now.into[0], at);
      (Pair<Bytes>{low.mean_low, high.mean_low}).store(now.into[1], at);
      (Pair<Bytes>{low.m2 + low.m2_low, high.m2 + high.m2_low}).store(now.into[2], at);
    }
    last.write_back();
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

/// y of one element, and the bit that says which piece of the activation it went through.
template <Element T, class A, bool adds_residual, bool writes_bits>
struct Normalization {
  static constexpr int inputs = adds_residual ? 2 : 1, outputs = 1, coefficients = 3, prefetched = 1;
  static constexpr Bits bits = writes_bits ? Bits::written : Bits::none;

  Held<A> activation;

  template <class V>
  BATCHNORM_INLINE void operator()(const V (&in)[inputs], const V (&k)[3], const MaskOf<V>&, V (&y)[1]) const {
    V z = fma(in[0] - k[0], k[1], k[2]);
    if constexpr (adds_residual) z = z + in[1];
    y[0] = activated(activation.get(), z);
  }
  template <class V>
  BATCHNORM_INLINE MaskOf<V> passes(const V& y) const {
    return passes_of(activation.get(), y);
  }
};

/// v kept within the range of Compute while `finite` is finite, so that 0 * v is 0. The choice is made of the bound: GCC 12
/// combines the masks of nested choices lane by lane.
template <class Compute, class D>
BATCHNORM_INLINE D bounded(const D& v, const D& finite) {
  const D largest = D::broadcast(static_cast<double>((std::numeric_limits<Compute>::max)()));
  const D bound = select(is_finite(finite), largest, D::broadcast(std::numeric_limits<double>::infinity()));
  return select(bound < v, bound, select(v < D::zero() - bound, D::zero() - bound, v));
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

/// From merged moments: batch statistics, running statistics, coefficients (each where asked for):
///
///   factor = scale / sqrt(variance + epsilon), rounded to Compute, kept finite while scale is, so that 0 * factor is 0
///   center = the mean, rounded to Compute
///   offset = bias - (mean - center) * factor: the part of the mean that Compute cannot hold
///
/// The coefficients have room for whole pairs.
template <class Compute, Element P>
struct FinalizeChannels {
  MomentSums moments;
  std::int64_t channels, count;
  ChannelArguments<P> to;
  NormalizationCoefficients<Compute> coefficients;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    const auto per_value = 1 / static_cast<double>(count);
    ChannelArguments<P> now = to;
    if (to.momentum == 0) now.running_mean = now.running_variance = nullptr;  // they are neither read nor written
    LastPair<Bytes, P> last;
    for (std::int64_t c = 0, at = 0; c < channels; c += pair_of<Bytes>, at += pair_of<Bytes>) {
      if (channels - c < pair_of<Bytes>) {
        last.begin(c, channels - c);
        now = now.changed([&](auto* p) __attribute__((always_inline)) { return last.copy_of(p); });
        at = 0;
      }
      const auto mean = Pair<Bytes>::load(moments.mean, c, 0.0), variance = variance_of<Bytes>(c, per_value);
      for (int k = 0; k < 2; ++k) {
        mean.store(now.batch_mean[k], at);
        variance.store(now.batch_variance[k], at);
      }
      if (now.running_mean != nullptr) update<Bytes>(now, at, mean, variance);
      if (coefficients.array[0] == nullptr) continue;
      store_coefficients<Bytes>(c, mean, variance, Pair<Bytes>::load(now.scale, at, 1.0), Pair<Bytes>::load(now.bias, at, 0.0));
    }
    last.write_back();
  }

  template <int Bytes>
  BATCHNORM_INLINE Pair<Bytes> variance_of(std::int64_t c, double per_value) const {
    using D = vec<double, Bytes>;
    const auto of = [&](std::int64_t at) __attribute__((always_inline)) {
      const D m2 = D::load(moments.m2 + at) + D::load(moments.m2_low + at);
      // For float, a double rounded once more is as good, and a division is slow.
      const D v = std::same_as<Compute, double> ? m2 / D::broadcast(static_cast<double>(count)) : m2 * D::broadcast(per_value);
      return select(v < D::zero(), D::zero(), v);
    };
    return {of(c), of(c + D::lanes)};
  }

  template <int Bytes>
  BATCHNORM_INLINE void store_coefficients(std::int64_t c, const Pair<Bytes>& mean, const Pair<Bytes>& variance,
                                           const Pair<Bytes>& scale, const Pair<Bytes>& bias) const {
    using D = vec<double, Bytes>;
    const auto offset_of =
        [](const D& m, const D& m_low, const D& center, const D& factor, const D& b) __attribute__((always_inline)) {
      return b - ((m - center) + m_low) * factor;
    };
    const auto mean_low = Pair<Bytes>::load(moments.mean_low, c, 0.0);
    const auto center =
        store_rounded<Bytes>(coefficients.array[0] + c, Pair<Bytes>{mean.low + mean_low.low, mean.high + mean_low.high});
    const auto factor = store_rounded<Bytes>(coefficients.array[1] + c,
                                             Pair<Bytes>{factor_of<Compute>(scale.low, known(variance.low), to.epsilon),
                                                         factor_of<Compute>(scale.high, known(variance.high), to.epsilon)});
    (Pair<Bytes>{offset_of(mean.low, mean_low.low, center.low, factor.low, bias.low),
                 offset_of(mean.high, mean_low.high, center.high, factor.high, bias.high)})
        .store(coefficients.array[2], c);
  }

  /// NaN for a variance that has overflowed: the factor would be 0, and y the bias whatever x is.
  template <class D>
  static BATCHNORM_INLINE D known(const D& variance) {
    return variance + (variance - variance);
  }

  /// running = (1 - momentum) * running + momentum * batch, rounded once from double.
  template <int Bytes>
  BATCHNORM_INLINE void update(const ChannelArguments<P>& now, std::int64_t at, const Pair<Bytes>& mean,
                               const Pair<Bytes>& variance) const {
    using D = vec<double, Bytes>;
    const D factor = D::broadcast(to.variance_factor);
    const Pair<Bytes> entering{variance.low * factor, variance.high * factor};
    const auto old_mean = Pair<Bytes>::load(now.running_mean, at, 0.0);
    const auto old_variance = Pair<Bytes>::load(now.running_variance, at, 0.0);
    Pair<Bytes> next_mean{blend(old_mean.low, mean.low), blend(old_mean.high, mean.high)};
    Pair<Bytes> next_variance{blend(old_variance.low, entering.low), blend(old_variance.high, entering.high)};
    if (to.keeps_if_not_finite) {
      keep(next_mean.low, next_variance.low, old_mean.low, old_variance.low, mean.low, entering.low);
      keep(next_mean.high, next_variance.high, old_mean.high, old_variance.high, mean.high, entering.high);
    }
    next_mean.store(now.running_mean, at);
    next_variance.store(now.running_variance, at);
  }

  template <class D>
  BATCHNORM_INLINE D blend(const D& old, const D& batch) const {
    if (to.momentum == 1) return batch;  // not 0 * old: the old value may be NaN
    const D p = D::broadcast(to.momentum);
    const D plain = (D::broadcast(1.0) - p) * old + p * batch;
    if constexpr (std::same_as<P, double>) {
      const D step = batch - old;
      return select(is_finite(step), fma(p, step, old), plain);  // not where it overflows, or old is infinite
    }
    return plain;
  }

  template <class D>
  BATCHNORM_INLINE void keep(D& next_mean, D& next_variance, const D& old_mean, const D& old_variance, const D& mean,
                             const D& variance) const {
    const D bound = D::broadcast(rounds_to_infinity<P>());
    // One comparison for both: GCC 12 combines the masks of nested ones lane by lane.
    const auto are_finite = select(absolute(variance) < bound, absolute(mean), bound) < bound;
    next_mean = select(are_finite, next_mean, old_mean);
    next_variance = select(are_finite, next_variance, old_variance);
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
    const P* now[4] = {mean, variance, scale, bias};
    LastPair<Bytes, P> last;
    for (std::int64_t c = 0, at = 0; c < channels; c += pair_of<Bytes>, at += pair_of<Bytes>) {
      if (channels - c < pair_of<Bytes>) {
        last.begin(c, channels - c);
        for (const P*& p : now) p = last.copy_of(p);
        at = 0;
      }
      const auto m = Pair<Bytes>::load(now[0], at, 0.0), v = Pair<Bytes>::load(now[1], at, 0.0);
      const auto s = Pair<Bytes>::load(now[2], at, 1.0), b = Pair<Bytes>::load(now[3], at, 0.0);
      m.store(coefficients.array[0], c);
      (Pair<Bytes>{factor_of<Compute>(s.low, v.low, epsilon), factor_of<Compute>(s.high, v.high, epsilon)})
          .store(coefficients.array[1], c);
      b.store(coefficients.array[2], c);
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
