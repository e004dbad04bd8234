// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <batchnorm/element.hpp>
#include <batchnorm/isa.hpp>

#include "gradient_oracle.hpp"
#include "oracle.hpp"

// Errors in units in the last place at a magnitude, and what the library promises of them (docs/numerics.md).
namespace support {

/// digits of the significand, exponents of the smallest and of the largest power of two that is a normal number.
struct Precision {
  int digits, lowest, highest;
};

template <class T>
constexpr Precision precision() {
  if constexpr (std::is_same_v<T, double>) return {53, -1022, 1023};
  if constexpr (std::is_same_v<T, float>) return {24, -126, 127};
  if constexpr (std::is_same_v<T, batchnorm::half>) return {11, -14, 15};
  if constexpr (std::is_same_v<T, batchnorm::bfloat16>) return {8, -126, 127};
}

/// Distance of neighbouring T in the binade of `magnitude`; below the normal numbers it stays that of the subnormal ones.
template <class T>
Real ulp_at(Real magnitude) {
  constexpr Precision p = precision<T>();
  const int exponent = magnitude > 0 ? std::clamp(std::ilogb(magnitude), p.lowest, p.highest) : p.lowest;
  return std::ldexp(Real(1), exponent - (p.digits - 1));
}

/// |got - expected|, where an infinite T stands for the power of two that follows the largest T (what is beyond rounds to
/// infinity), and NaN is right where NaN is expected and infinitely wrong elsewhere.
template <class T>
Real error(T got, Real expected) {
  const Real value = real(got);
  if (std::isnan(expected) || std::isnan(value)) {
    return std::isnan(expected) && std::isnan(value) ? 0 : std::numeric_limits<Real>::infinity();
  }
  const Real limit = std::ldexp(Real(1), precision<T>().highest + 1);
  return std::abs(std::clamp(value, -limit, limit) - std::clamp(expected, -limit, limit));
}

// One rounding to half or bfloat16 of a float that is right to 3 ulp: half an ulp, plus 3 * 2^-13 (half) or 3 * 2^-16 of one.
inline constexpr Real rounded_once_ulps = 0.501L;
// x - mean, k, b and the fma round once each; without FMA the product rounds as well.
inline constexpr Real y_ulps_with_fma = 2.5L;
inline constexpr Real y_ulps_without_fma = 3.0L;
// Statistics are carried in double and rounded once to float: half an ulp, and at most 0.4 u from the cancellation in a block.
inline constexpr Real mean_ulps = 1.0L;
inline constexpr Real variance_ulps = 1.0L;
// double: the mean is the rounded sum of a pair; chains of at most 128 terms give the variance its bound (relative).
inline constexpr Real double_mean_ulps = 2.0L;
inline constexpr Real double_variance_error = 140 * 0x1p-53L;
// double, running = fma(p, batch - running, running): the batch statistic's own error, the difference's and the fma's rounding.
inline constexpr Real double_running_ulps = double_mean_ulps + 1.5L;

inline bool has_fma(batchnorm::Isa isa) { return isa >= batchnorm::Isa::x86_64_v3; }

template <class T>
Real y_ulps(batchnorm::Isa isa) {
  if constexpr (sizeof(T) == 2) return rounded_once_ulps;
  return has_fma(isa) ? y_ulps_with_fma : y_ulps_without_fma;
}

/// Bound of the mean's error at max(|mean|, deviation).
template <class P>
Real allowed_mean_error(Real magnitude) {
  return ulp_at<P>(magnitude) * (sizeof(P) == 2 ? rounded_once_ulps : sizeof(P) == 8 ? double_mean_ulps : mean_ulps);
}

template <class P>
Real allowed_variance_error(Real variance) {
  if constexpr (sizeof(P) == 8) return std::max(double_variance_error * variance, ulp_at<P>(variance));
  return ulp_at<P>(variance) * (sizeof(P) == 2 ? rounded_once_ulps : variance_ulps);
}

/// Where the error of y is measured: at M, for double at max(M, |scale|).
template <class T>
Real y_magnitude(const Normalized& expected, Real scale) {
  return sizeof(T) == 8 ? std::max(expected.magnitude, std::abs(scale)) : expected.magnitude;
}

/// Its bound: for double, where the statistics are the batch's, with half the variance's error.
template <class T>
Real allowed_y_error(batchnorm::Isa isa, const Normalized& expected, Real scale, bool batch_statistics) {
  const Real of_variance = sizeof(T) == 8 && batch_statistics ? double_variance_error / 2 * expected.scaled : 0;
  return ulp_at<T>(y_magnitude<T>(expected, scale)) * y_ulps<T>(isa) + of_variance;
}

// dx = fma(a, dy - mean_dy, fma(b, x - mean, c)): 1.5 ulp of the product with b and 3 of that with a, which may lie in a binade
// above its terms, and half an ulp of either fma. Without FMA the products round as well, by 0.5 and 1 (docs/numerics.md).
inline constexpr Real dx_ulps_with_fma = 5.5L;
inline constexpr Real dx_ulps_without_fma = 7.0L;
// dx = a * dy: a and the product round once each, and a's half ulp grows to one where the product crosses a binade.
inline constexpr Real inference_dx_ulps = 1.5L;
// A double gradient has a product more, all of them within the magnitude that they are measured at.
inline constexpr Real double_dx_ulps_with_fma = 6.5L;
inline constexpr Real double_dx_ulps_without_fma = 8.0L;
inline constexpr Real ddy_ulps_with_fma = 5.0L;
inline constexpr Real ddy_ulps_without_fma = 6.0L;
// dscale and dbias: sums in double; where they cancel, the error is measured at this share of the magnitudes of their terms.
inline constexpr Real sum_share = 0x1p-14L;
// double: chains of at most 128 terms, and what merging their sums adds (relative to the magnitudes of the terms).
inline constexpr Real double_sum_error = 140 * 0x1p-53L;

template <class T>
Real dx_ulps(batchnorm::Isa isa, bool is_training) {
  if constexpr (sizeof(T) == 2) return rounded_once_ulps;
  if (!is_training) return inference_dx_ulps;
  return has_fma(isa) ? dx_ulps_with_fma : dx_ulps_without_fma;
}

/// Through a leaky ReLU: slope * dy rounds once more, and below the normal numbers by half of the smallest, which counts a
/// times.
template <class T>
Real leaky_dx_ulps(batchnorm::Isa isa, bool is_training) {
  if constexpr (sizeof(T) == 2) return rounded_once_ulps;
  return dx_ulps<T>(isa, is_training) + (is_training ? 1.0L : 0.5L);
}
template <class T>
inline constexpr Real leaky_dx_underflow = sizeof(T) == 8 ? 0x1p-1075L : 0x1p-150L;

/// dx and ddy of the double gradient.
template <class T>
Real double_dx_ulps(batchnorm::Isa isa, bool is_training) {
  if constexpr (sizeof(T) == 2) return rounded_once_ulps;
  if (!is_training) return inference_dx_ulps;
  return has_fma(isa) ? double_dx_ulps_with_fma : double_dx_ulps_without_fma;
}
template <class T>
Real ddy_ulps(batchnorm::Isa isa) {
  if constexpr (sizeof(T) == 2) return rounded_once_ulps;
  return has_fma(isa) ? ddy_ulps_with_fma : ddy_ulps_without_fma;
}

/// Where the error of a sum over a channel is measured, and its bound.
template <class P>
Real sum_magnitude(const Sum& sum) {
  return sizeof(P) == 8 ? sum.terms : std::max(std::abs(sum.value), sum_share * sum.terms);
}

template <class P>
Real allowed_sum_error(const Sum& sum) {
  if constexpr (sizeof(P) == 8) return double_sum_error * sum.terms + ulp_at<P>(std::abs(sum.value));
  return ulp_at<P>(sum_magnitude<P>(sum)) * (sizeof(P) == 2 ? rounded_once_ulps : 1.0L);
}

/// Where the error of an element of dx, ddy is measured: at its largest term; the one rounding to half or bfloat16 at the
/// result where that is larger.
template <class T>
Real gradient_magnitude(const Gradient& expected) {
  return std::max(expected.at, std::abs(expected.value));
}

/// Its bound: `ulps` at that magnitude; for double also what the errors of the sums do.
template <class T>
Real allowed_gradient_error(const Gradient& expected, Real ulps) {
  return ulps * ulp_at<T>(gradient_magnitude<T>(expected)) + (sizeof(T) == 8 ? double_sum_error * expected.of_sums : 0);
}

}  // namespace support
