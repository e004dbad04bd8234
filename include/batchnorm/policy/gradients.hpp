// SPDX-License-Identifier: MIT
#pragma once

// What gradients sum up over a channel, what follows from the sums, and the operation on each element.

#include <batchnorm/policy/statistics.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// How dy passes the activation: there is none; a mask; the output y; the output in place of x, which is undone.
enum class Through { nothing, mask, output, inverse };

template <class A, Through through>
struct Passage {
  static constexpr bool reads_bits = through == Through::mask;
  static constexpr bool reads_y = through == Through::output;
  static constexpr bool inverts = through == Through::inverse;

  Held<A> activation;

  /// The gradient before the activation.
  template <class V>
  BATCHNORM_INLINE V dz(const V& dy, const V& x, const V& y, const MaskOf<V>& passes) const {
    if constexpr (through == Through::mask) return gradient_of(activation.get(), dy, passes);
    if constexpr (through == Through::output) return gradient_of(activation.get(), dy, passes_of(activation.get(), y));
    if constexpr (through == Through::inverse) return gradient_of(activation.get(), dy, passes_of(activation.get(), x));
    return dy;
  }
  /// What is read as x.
  template <class V>
  BATCHNORM_INLINE V x(const V& x) const {
    if constexpr (inverts) return inverse_of(activation.get(), x);
    return x;
  }
};

/// Sums of dz and of dz * (x - center). Inputs: dy, x and perhaps y.
template <Element T, class Pass>
struct GradientSummation {
  static constexpr int inputs = Pass::reads_y ? 3 : 2, constants = 1, factors = 2, sums = 2;
  static constexpr bool reads_bits = Pass::reads_bits;

  Pass passage;
  double one = 1;

  template <class V>
  BATCHNORM_INLINE void form(const V (&in)[inputs], const V (&center)[1], const MaskOf<V>& passes, V (&factor)[2]) const {
    factor[0] = passage.dz(in[0], in[1], in[inputs - 1], passes);
    factor[1] = difference(passage.x(in[1]), center[0], one);
  }
  template <class V>
  BATCHNORM_INLINE void add(const V (&factor)[2], V (&sum)[2]) const {
    sum[0] = sum[0] + factor[0];
    sum[1] = fma(factor[0], factor[1], sum[1]);
  }
};

/// Adds the sums of a block to those of the blocks before it, each kept with what its additions have lost (TwoSum): state array
/// 2 k is sum k, 2 k + 1 what it has lost.
struct MergeSums {
  ChannelArrays state;
  SumArrays block;
  int sums;
  std::int64_t channels;
  bool is_first;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    for (int k = 0; k < sums; ++k) {
      const double* added_to = block.sum[static_cast<std::size_t>(k)];
      for (std::int64_t c = 0; c < channels; c += D::lanes) {
        const D added = D::load(added_to + c);
        D sum = added, lost = D::zero();
        if (!is_first) {
          two_sum(D::load(state[2 * k] + c), added, sum, lost);
          lost = lost + D::load(state[2 * k + 1] + c);
        }
        sum.store(state[2 * k] + c);
        lost.store(state[2 * k + 1] + c);
      }
    }
  }
};

/// The sums that the gradient needs (problem.hpp says what a statistic is); center[c] is subtracted from x.
template <Element T, class Pass>
struct GradientStatistic {
  using Summation = GradientSummation<T, Pass>;
  static constexpr int state = 2 * Summation::sums;

  Summation summation;
  const double* center;

  void begin(const Inputs&, const Block&, std::int64_t first, std::int64_t channels, const SumArrays& to) const noexcept {
    std::copy_n(center + first, channels, to.constant[0]);
  }
  void merge(Isa isa, const ChannelArrays& to, const SumArrays& block, std::int64_t channels, std::int64_t before,
             std::int64_t) const noexcept {
    run(isa, MergeSums{to, block, Summation::sums, channels, before == 0});
  }
};

/// dx of one element in training: dx = a * (dz - mean_dz) + (b * (x - center) + c). Coefficients: center, mean_dz, a, b, c.
/// Inputs: dy, x and perhaps y. Outputs: dx and, where it is asked for, dz, the gradient of a residual.
template <Element T, class Pass>
struct TrainingGradient {
  static constexpr int inputs = Pass::reads_y ? 3 : 2, outputs = 2, coefficients = 5, prefetched = inputs;
  static constexpr Bits bits = Pass::reads_bits ? Bits::read : Bits::none;

  Pass passage;
  bool returns_dz;

  bool stores(int j) const { return j == 0 || returns_dz; }

  template <class V>
  BATCHNORM_INLINE void operator()(const V (&in)[inputs], const V (&k)[5], const MaskOf<V>& passes, V (&out)[outputs]) const {
    const V dz = passage.dz(in[0], in[1], in[inputs - 1], passes);
    out[0] = fma(k[2], dz - k[1], fma(k[3], passage.x(in[1]) - k[0], k[4]));
    out[1] = dz;
  }
};

/// dx of one element in inference: dx = a * dz. Inputs: dy, and perhaps what dz is found from. Outputs as above.
template <Element T, class Pass>
struct InferenceGradient {
  static constexpr bool reads_more = Pass::reads_y || Pass::inverts;
  static constexpr int inputs = reads_more ? 2 : 1, outputs = 2, coefficients = 1, prefetched = 0;
  static constexpr Bits bits = Pass::reads_bits ? Bits::read : Bits::none;

  Pass passage;
  bool returns_dz;

  bool stores(int j) const { return j == 0 || returns_dz; }

  template <class V>
  BATCHNORM_INLINE void operator()(const V (&in)[inputs], const V (&k)[1], const MaskOf<V>& passes, V (&out)[outputs]) const {
    const V dz = passage.dz(in[0], in[inputs - 1], in[inputs - 1], passes);
    out[0] = k[0] * dz;
    out[1] = dz;
  }
};

/// The statistics that a gradient is given, as doubles with room for whole vectors: what is subtracted from x, what that has
/// left of the mean, and the variance.
struct GivenStatistics {
  ChannelArrays arrays;

  double* center() const noexcept { return arrays[0]; }
  double* rest() const noexcept { return arrays[1]; }
  double* variance() const noexcept { return arrays[2]; }
  GivenStatistics at(std::int64_t c) const noexcept { return {arrays.at(c)}; }
  static constexpr int count = 3;
};

/// The caller's arrays over channels for a gradient; null where absent.
template <Element P>
struct GradientArguments {
  const P* scale = nullptr;
  P* dscale = nullptr;
  P* dbias = nullptr;
  double epsilon = 0;
  std::int64_t values = 0;     // m
  bool scale_inverts = false;  // what is read as x is scale * xh + bias, not x itself

  /// The same with other arrays: change(p) for each.
  template <class Change>
  BATCHNORM_INLINE GradientArguments changed(const Change& change) const {
    GradientArguments result = *this;
    result.scale = change(scale);
    result.dscale = change(dscale);
    result.dbias = change(dbias);
    return result;
  }

  GradientArguments at(std::int64_t c) const noexcept {
    return changed([c](auto* p) { return p == nullptr ? p : p + c; });
  }

  bool wants_sums() const noexcept { return dscale != nullptr || dbias != nullptr; }

  /// The gradients of no values are 0.
  void write_empty_batch(std::int64_t channels) const noexcept {
    const OrderedAccesses ordered;
    for (P* p : {dscale, dbias}) {
      if (p != nullptr) std::fill_n(p, channels, P(0));
    }
  }
};

/// From the sums dz and dz_x = sum(dz * (x - mean)): dbias = dz, dscale = dz_x / sqrt(variance + epsilon), and the coefficients
/// of TrainingGradient,
///
///   a = scale / sqrt(variance + epsilon)      b = -a * dz_x / (m * (variance + epsilon))
///   c = -a * (M[dz] - mean_dz) - b * (mean - center)      mean_dz and center are M[dz] and the mean, rounded
///
/// Where the output stands in for x, (x - mean) / sqrt(variance + epsilon) is (z - bias) / scale: scale takes the root's place
/// in dscale and, squared, in b. The coefficients have room for whole pairs; they are left out where null.
template <class Compute, Element P>
struct FinalizeGradients {
  ChannelArrays state;
  GivenStatistics given;
  std::int64_t channels;
  GradientArguments<P> to;
  Coefficients<Compute, 5> coefficients;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    GradientArguments<P> now = to;
    LastPair<Bytes, P> last;
    for (std::int64_t c = 0, at = 0; c < channels; c += pair_of<Bytes>, at += pair_of<Bytes>) {
      if (channels - c < pair_of<Bytes>) {
        last.begin(c, channels - c);
        now = to.changed([&](auto* p) __attribute__((always_inline)) { return last.copy_of(p); });
        at = 0;
      }
      const auto scale = Pair<Bytes>::load(now.scale, at, 1.0);
      const Channel<Bytes> low(*this, c, scale.low), high(*this, c + vec<double, Bytes>::lanes, scale.high);
      Pair<Bytes>{low.dz, high.dz}.store(now.dbias, at);
      Pair<Bytes>{low.dscale, high.dscale}.store(now.dscale, at);
      if (coefficients.array[0] != nullptr) store_coefficients<Bytes>(c, low, high);
    }
    last.write_back();
  }

  template <int Bytes>
  struct Channel {
    using D = vec<double, Bytes>;
    D dz, dscale, mean_dz, mean, rest, a, b;

    BATCHNORM_INLINE Channel(const FinalizeGradients& f, std::int64_t c, const D& scale) {
      const D variance = D::load(f.given.variance() + c), square_of_deviation = variance + D::broadcast(f.to.epsilon);
      const D dz_high = D::load(f.state[0] + c), dz_low = D::load(f.state[1] + c);
      dz = dz_high + dz_low;
      mean = D::load(f.given.center() + c);
      rest = D::load(f.given.rest() + c);
      const D dz_x = D::load(f.state[2] + c) + (D::load(f.state[3] + c) - rest * dz);
      D shrink;  // dz_x / (m * square of the root)
      if constexpr (std::same_as<Compute, double>) {
        const D m = D::broadcast(static_cast<double>(f.to.values));
        const D square = f.to.scale_inverts ? scale * scale : square_of_deviation;
        const D root = f.to.scale_inverts ? scale : square_root(square);
        a = inverse_deviation_times<Compute>(scale, variance, f.to.epsilon);
        dscale = dz_x / root;
        mean_dz = dz / m;
        shrink = dz_x / (m * square);
      } else {  // a double rounded once or twice more is as good for float, and a division is slow
        const D per_value = D::broadcast(1 / static_cast<double>(f.to.values));
        D inverse_root = D::broadcast(1.0) / square_root(square_of_deviation);
        a = scale * inverse_root;
        if (f.to.scale_inverts) inverse_root = D::broadcast(1.0) / scale;
        dscale = dz_x * inverse_root;
        mean_dz = dz * per_value;
        shrink = dscale * per_value * inverse_root;
      }
      b = D::zero() - bounded<Compute>(a * shrink, (dz_x - dz_x) + scale);
      a = bounded<Compute>(a, scale);
    }
  };

  template <int Bytes>
  BATCHNORM_INLINE void store_coefficients(std::int64_t c, const Channel<Bytes>& low, const Channel<Bytes>& high) const {
    const auto& k = coefficients.array;
    const auto center = store_rounded<Bytes>(k[0] + c, Pair<Bytes>{low.mean + low.rest, high.mean + high.rest});
    const auto mean_dz = store_rounded<Bytes>(k[1] + c, Pair<Bytes>{low.mean_dz, high.mean_dz});
    const auto a = store_rounded<Bytes>(k[2] + c, Pair<Bytes>{low.a, high.a});
    const auto b = store_rounded<Bytes>(k[3] + c, Pair<Bytes>{low.b, high.b});
    const auto constant = [](const Channel<Bytes>& h, const auto& center_rounded, const auto& mean_rounded,
                             const auto& a_rounded, const auto& b_rounded) __attribute__((always_inline)) {
      const auto of_mean = b_rounded * ((h.mean - center_rounded) + h.rest);
      return (mean_rounded - h.mean_dz) * a_rounded - of_mean;
    };
    (Pair<Bytes>{constant(low, center.low, mean_dz.low, a.low, b.low),
                 constant(high, center.high, mean_dz.high, a.high, b.high)})
        .store(k[4], c);
  }
};

/// a = scale / sqrt(variance + epsilon), the coefficient of InferenceGradient.
template <class Compute, Element P>
struct InferenceFactors {
  GivenStatistics given;
  std::int64_t channels;
  const P* scale;
  double epsilon;
  Compute* factor;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    const P* now = scale;
    LastPair<Bytes, P> last;
    for (std::int64_t c = 0, at = 0; c < channels; c += pair_of<Bytes>, at += pair_of<Bytes>) {
      if (channels - c < pair_of<Bytes>) {
        last.begin(c, channels - c);
        now = last.copy_of(scale);
        at = 0;
      }
      const auto s = Pair<Bytes>::load(now, at, 1.0);
      const D low = D::load(given.variance() + c), high = D::load(given.variance() + c + D::lanes);
      (Pair<Bytes>{factor_of<Compute>(s.low, low, epsilon), factor_of<Compute>(s.high, high, epsilon)}).store(factor, c);
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
