// SPDX-License-Identifier: MIT
#pragma once

// What follows from the sums of a channel: statistics, running statistics, coefficients. All arithmetic is double.

#include <cfloat>

#include <batchnorm/cuda/statistic.cuh>
#include <batchnorm/cuda/sums.cuh>

namespace batchnorm::cuda {

/// The coefficients of channels: number k of channel c at [k * channels + c].
template <class R>
struct Coefficients {
  R* data = nullptr;
  std::int64_t channels = 0;

  BATCHNORM_HOST_DEVICE R& at(int k, std::int64_t channel) const { return data[k * channels + channel]; }
};

/// The mean (as two doubles) and the biased variance of a channel, and the sum of squared deviations that this is of.
struct ChannelMoments {
  Pair<double> mean;
  double variance, m2;
};

/// All lanes of a warp get the sum of their terms, of which each has its own.
template <class Accelerator>
BATCHNORM_DEVICE Pair<double> total_of(Accelerator& a, PairSum<double> sum) {
  add_lanes(a, sum);
  const Pair<double> result = sum.result();
  return {a.shuffle(result.high, 0), a.shuffle(result.low, 0)};
}

/// A mean of n values without what only roundings have left in it, which would keep x - mean from 0 where x is the mean. A low
/// part below 2^-56 |mean| / n is 0 in truth or does not matter: either the deviation is more than |mean| / n, or all values
/// are multiples of 2^-53 |mean|, and their mean of 2^-53 |mean| / n. Nor does 2^-90 of the deviation matter.
BATCHNORM_DEVICE Pair<double> settled(const Pair<double>& mean, double variance, double n) {
  const double size = std::abs(mean.high), of_mean = 0x1p-56 / n * size;
  const double of_deviation = variance > 0 && is_finite(variance) ? 0x1p-90 * std::sqrt(variance) : 0;
  const double bound = of_mean < of_deviation ? of_deviation : of_mean;
  return {size <= of_deviation ? 0 : mean.high, std::abs(mean.low) <= bound ? 0 : mean.low};
}

/// The moments of the slices of a channel together, on a whole warp; `field(f, slice)` reads. With n_b values, mean r + d_b and
/// m2_b of slice b about a common reference r: d = sum(n_b d_b) / n, m2 = sum(m2_b + n_b (d_b - d)^2) (Chan, Golub, LeVeque,
/// 1979). r is the first pivot at first, then the mean that follows: an outlier in front costs no digits.
template <class T, class Accelerator, class Field>
BATCHNORM_DEVICE ChannelMoments merge_moments(Accelerator& a, std::int64_t slices, std::int64_t values, const Field& field) {
  using M = MomentStatistic<T>;
  const auto n = static_cast<double>(values);
  const int lane = WarpPlace::of(a).lane;
  const auto mean_about = [&](double reference) {
    PairSum<double> sum;
    for (std::int64_t b = lane; b < slices; b += warp_size) {
      const Pair<double> d = two_sum(field(M::pivot_field, b), -reference);
      const double count = field(M::count_field, b);
      sum.add_product(count, 0, d.high, d.low);
      sum.add_product(count, 0, field(M::delta_field, b), field(M::delta_low_field, b));
    }
    const Pair<double> total = total_of(a, sum);
    const double mean = total.high / n;
    return Pair<double>{mean, is_finite(mean) ? (fused(-mean, n, total.high) + total.low) / n : 0};
  };
  double reference = field(M::pivot_field, 0);
  Pair<double> rest = mean_about(reference);
  if (!is_finite(rest.high)) return {{reference + rest.high, 0}, rest.high - rest.high, rest.high - rest.high};
  reference += rest.high;
  rest = mean_about(reference);
  PairSum<double> sum;
  for (std::int64_t b = lane; b < slices; b += warp_size) {
    const Pair<double> d = two_sum(field(M::pivot_field, b), -reference);
    const double away = (d.high - rest.high) + (d.low + field(M::delta_field, b)) + (field(M::delta_low_field, b) - rest.low);
    sum.add(field(M::m2_field, b), 0);
    sum.add_product(field(M::count_field, b) * away, 0, away, 0);
  }
  const Pair<double> total = total_of(a, sum);
  const double m2 = total.high + total.low, variance = m2 / n;
  return {settled(two_sum(reference, rest.high + rest.low), variance, n), variance < 0 ? 0 : variance, m2};
}

/// v within the range of R while `finite` is finite, so that 0 * v is 0.
template <class R>
BATCHNORM_DEVICE R bounded(double v, double finite) {
  constexpr double largest = std::is_same_v<R, double> ? DBL_MAX : static_cast<double>(FLT_MAX);
  if (!is_finite(finite)) return static_cast<R>(v);
  return static_cast<R>(v > largest ? largest : v < -largest ? -largest : v);
}

/// scale / sqrt(variance + epsilon), for double with one rounding (and 2^-100 more): Newton's correction of the rounded
/// quotient and root by their exact remainders.
template <class R>
BATCHNORM_DEVICE double inverse_deviation_times(double scale, double variance, double epsilon) {
  if constexpr (std::is_same_v<R, float>) return scale / std::sqrt(variance + epsilon);
  const Pair<double> sum = two_sum(variance, epsilon);
  const double root = std::sqrt(sum.high), quotient = scale / root;
  const double root_lost = (fused(-root, root, sum.high) + sum.low) / (root + root);
  const double corrected = quotient + (fused(-quotient, root, scale) - quotient * root_lost) / root;
  return is_finite(corrected) ? corrected : quotient;
}

/// Center, factor and offset of y = (x - center) * factor + offset: the part of the mean that R cannot hold is in the offset.
template <class R>
BATCHNORM_DEVICE void store_coefficients(const Coefficients<R>& to, std::int64_t c, const Pair<double>& mean, double variance,
                                         double scale, double bias, double epsilon) {
  const R center = static_cast<R>(mean.high + mean.low);
  const R factor = bounded<R>(inverse_deviation_times<R>(scale, variance, epsilon), scale);
  const double lost = (mean.high - static_cast<double>(center)) + mean.low;
  to.at(0, c) = center;
  to.at(1, c) = factor;
  to.at(2, c) = static_cast<R>(bias - lost * static_cast<double>(factor));
}

/// From the moments of a channel: batch statistics and running statistics. One thread.
template <class R>
BATCHNORM_DEVICE void write_statistics(const ForwardChannels<R>& to, std::int64_t c, const ChannelMoments& moments) {
  const double mean = moments.mean.high, variance = moments.variance;
  for (int k = 0; k < 2; ++k) {
    if (to.mean[k] != nullptr) to.mean[k][c] = static_cast<R>(mean);
    if (to.variance[k] != nullptr) to.variance[k][c] = static_cast<R>(variance);
  }
  if (to.running_mean != nullptr && to.momentum != 0) {
    const double entering = variance * to.variance_factor, p = to.momentum;
    const auto blend = [&](R old, double batch) {
      if (p == 1) return static_cast<R>(batch);  // not 0 * old: the old value may be NaN
      const auto before = static_cast<double>(old);
      if constexpr (std::is_same_v<R, double>) {
        const double step = batch - before;
        if (is_finite(step)) return fused(p, step, before);  // not where it overflows, or the old value is infinite
      }
      return static_cast<R>((1 - p) * before + p * batch);
    };
    const bool enters = !to.keeps_if_not_finite || (is_finite(static_cast<R>(mean)) && is_finite(static_cast<R>(entering)));
    if (enters) {
      to.running_mean[c] = blend(to.running_mean[c], mean);
      to.running_variance[c] = blend(to.running_variance[c], entering);
    }
  }
}

/// From the moments of channel c: number `place` of the coefficients.
template <class R>
BATCHNORM_DEVICE void write_coefficients(const ForwardChannels<R>& to, std::int64_t c, const ChannelMoments& moments,
                                         const Coefficients<R>& coefficients, std::int64_t place) {
  const double scale = to.scale == nullptr ? 1 : static_cast<double>(to.scale[c]);
  const double bias = to.bias == nullptr ? 0 : static_cast<double>(to.bias[c]);
  // NaN for a variance that has overflowed: the factor would be 0, and y the bias whatever x is.
  const double variance = moments.variance + (moments.variance - moments.variance);
  store_coefficients(coefficients, place, moments.mean, variance, scale, bias, to.epsilon);
}

/// A warp for each channel merges its slices.
template <class T>
struct FinishMoments {
  static constexpr int max_threads = 256;

  Partials partials;
  std::int64_t values;
  ForwardChannels<Parameter<T>> to;
  Coefficients<Compute<T>> coefficients;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    const WarpPlace place = WarpPlace::of(a);
    const std::int64_t c = a.block_rank() * place.warps + place.warp;
    if (c >= partials.channels) return;
    const ChannelMoments moments =
        merge_moments<T>(a, partials.slices, values, [&](int f, std::int64_t b) -> double { return partials.at(f, b, c); });
    if (place.lane != 0) return;
    write_statistics(to, c, moments);
    write_coefficients(to, c, moments, coefficients, c);
  }
};

/// Inference: a thread for each channel. Copies of the statistics, and coefficients.
template <class T>
struct FinishConstants {
  static constexpr int max_threads = 256;

  const Parameter<T>* mean;
  const Parameter<T>* variance;
  std::int64_t channels;
  ForwardChannels<Parameter<T>> to;
  Coefficients<Compute<T>> coefficients;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    const std::int64_t c = a.block_rank() * a.block_size() + a.thread_rank();
    if (c >= channels) return;
    const auto m = mean[c], v = variance[c];
    for (int k = 0; k < 2; ++k) {
      if (to.mean[k] != nullptr) to.mean[k][c] = m;
      if (to.variance[k] != nullptr) to.variance[k][c] = v;
    }
    if (coefficients.data == nullptr) return;
    const double scale = to.scale == nullptr ? 1 : static_cast<double>(to.scale[c]);
    const double bias = to.bias == nullptr ? 0 : static_cast<double>(to.bias[c]);
    // An infinite mean has no difference to itself.
    store_coefficients(coefficients, c, {m, 0}, v, scale, bias, to.epsilon);
    coefficients.at(2, c) = static_cast<Compute<T>>(bias);
  }
};

/// The sums of dz and of dz * (x - mean) of a channel.
struct ChannelGradients {
  Pair<double> dz, dz_x;
};

/// The sums of the slices of a channel together, on a whole warp; `field(f, slice)` reads.
template <class T, class Accelerator, class Field>
BATCHNORM_DEVICE ChannelGradients merge_gradients(Accelerator& a, std::int64_t slices, const Field& field) {
  using G = GradientStatistic<T>;
  PairSum<double> dz, dz_x;
  for (std::int64_t b = WarpPlace::of(a).lane; b < slices; b += warp_size) {
    dz.add(field(G::sum_field, b), field(G::sum_low_field, b));
    dz_x.add(field(G::product_field, b), field(G::product_low_field, b));
  }
  const Pair<double> dz_total = total_of(a, dz), dz_x_total = total_of(a, dz_x);
  return {dz_total, dz_x_total};
}

/// Coefficients of dx = a * (dz - mean_dz) + (b * (x - center) + c), in the order center, mean_dz, a, b, c; in inference only
/// a, the others are 0. One thread; r = 1 / sqrt(variance + epsilon):
///   a = scale * r      b = -a * dz_x * r^2 / m      c = -a * (M[dz] - mean_dz) - b * (mean - center)
template <class R>
BATCHNORM_DEVICE void finish_gradient(const BackwardChannels<R>& to, const Coefficients<R>& coefficients, std::int64_t c,
                                      const ChannelGradients& sums) {
  const double dz = sums.dz.high + sums.dz.low, dz_x = sums.dz_x.high + sums.dz_x.low;
  const double scale = to.scale == nullptr ? 1 : static_cast<double>(to.scale[c]);
  const double variance = static_cast<double>(to.variance[c]), mean = static_cast<double>(to.mean[c]);
  const double square = variance + to.epsilon, root = std::sqrt(square), m = static_cast<double>(to.values);
  if (to.dbias != nullptr) to.dbias[c] = static_cast<R>(dz);
  if (to.dscale != nullptr) to.dscale[c] = static_cast<R>(dz_x / root);
  if (coefficients.data == nullptr) return;
  const double a = inverse_deviation_times<R>(scale, variance, to.epsilon);
  const R factor = bounded<R>(a, scale);
  coefficients.at(2, c) = factor;
  if (!to.is_training) {
    coefficients.at(0, c) = coefficients.at(1, c) = coefficients.at(3, c) = coefficients.at(4, c) = 0;
    return;
  }
  const double mean_dz = dz / m;
  const R center = static_cast<R>(mean), mean_rounded = static_cast<R>(mean_dz);
  const R b = static_cast<R>(-static_cast<double>(bounded<R>(a * (dz_x / (m * square)), (dz_x - dz_x) + scale)));
  coefficients.at(0, c) = center;
  coefficients.at(1, c) = mean_rounded;
  coefficients.at(3, c) = b;
  coefficients.at(4, c) = static_cast<R>((static_cast<double>(mean_rounded) - mean_dz) * static_cast<double>(factor) -
                                         static_cast<double>(b) * (mean - static_cast<double>(center)));
}

/// A warp for each channel adds the sums of its slices.
template <class T>
struct FinishGradients {
  static constexpr int max_threads = 256;

  Partials partials;  ///< no slices: the sums are not needed
  BackwardChannels<Parameter<T>> to;
  Coefficients<Compute<T>> coefficients;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    const WarpPlace place = WarpPlace::of(a);
    const std::int64_t c = a.block_rank() * place.warps + place.warp;
    if (c >= partials.channels) return;
    const ChannelGradients sums =
        merge_gradients<T>(a, partials.slices, [&](int f, std::int64_t b) -> double { return partials.at(f, b, c); });
    if (place.lane == 0) finish_gradient(to, coefficients, c, sums);
  }
};

}  // namespace batchnorm::cuda
