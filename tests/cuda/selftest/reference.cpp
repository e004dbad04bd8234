// SPDX-License-Identifier: MIT
#include "reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <batchnorm/gradients.hpp>

namespace selftest {
namespace {

using batchnorm::TensorView;

double ulp_at(const Precision& precision, double magnitude) {
  const int exponent = magnitude > 0 ? std::max(std::ilogb(magnitude), precision.lowest) : precision.lowest;
  return std::ldexp(1.0, exponent - (precision.digits - 1));
}

/// That of scale, bias and statistics.
Precision of_parameters(const Precision& of_elements) { return of_elements.digits == 53 ? of_elements : Precision{24, -126}; }

/// What docs/numerics.md promises of the operations of an element in float or double, in ulp of T at the largest term; half and
/// bfloat16 are rounded once more.
double allowed_ulps(const Precision& precision, double ulps) {
  if (precision.digits < 24) return 0.5 + std::ldexp(ulps, precision.digits - 24);
  return precision.digits == 53 ? 2 * ulps : ulps;  // double: half of it for the CPU
}
constexpr double y_ulps = 2.5, residual_ulps = 1, dx_ulps = 5.5;

// double: relative error of a sum of positive terms, that of the CPU included.
constexpr double double_sum_error = 2 * 140 * 0x1p-53;
// float: where terms cancel, the error is measured at this share of their magnitudes.
constexpr double sum_share = 0x1p-14;

double allowed_sum_error(const Precision& parameters, double value, double terms) {
  if (parameters.digits == 53) return double_sum_error * terms + 2 * ulp_at(parameters, std::abs(value));
  return ulp_at(parameters, std::max(std::abs(value), sum_share * terms));
}

}  // namespace

void Errors::within(const char* what, std::size_t i, double got, double expected, double allowed) {
  if (!wrong_.empty() || std::abs(got - expected) <= allowed) return;
  char text[160];
  std::snprintf(text, sizeof(text), "%s[%zu] is %.17g, expected %.17g within %.3g", what, i, got, expected, allowed);
  wrong_ = text;
}

void Errors::element(const char* what, std::size_t i, double got, double expected, double magnitude, double allowed,
                     double more) {
  const double ulp = ulp_at(precision_, magnitude);
  ulps_ = std::max(ulps_, std::abs(got - expected) / ulp);
  within(what, i, got, expected, allowed * ulp + more);
}

Errors compare(const Problem& problem, const ForwardInputs& in, const ForwardOutputs& got) {
  const bool is_training = problem.options.is_training, is_fused = !in.residual.empty();
  const Precision precision = problem.precision, parameters = of_parameters(precision);
  const bool is_double = precision.digits == 53;
  const auto channels = static_cast<std::size_t>(problem.c);
  Doubles y(in.x.size()), batch_mean(channels), batch_variance(channels), mean = in.mean, variance = in.variance;
  batchnorm::batch_norm<double>(problem.format, problem.options, {in.x.data(), problem.shape}, in.scale, in.bias, mean,
                                variance, {{y.data(), problem.shape}, batch_mean, batch_variance});

  Errors errors(precision);
  for (std::size_t c = 0; c < channels; ++c) {
    if (!is_training) {
      errors.exactly("batch_mean", c, got.batch_mean[c], in.mean[c]);
      errors.exactly("batch_variance", c, got.batch_variance[c], in.variance[c]);
      continue;
    }
    const double deviation = std::sqrt(batch_variance[c]);
    const auto mean_bound = [&](double value, double of_double) {
      return ulp_at(parameters, std::max(std::abs(value), deviation)) * (is_double ? of_double : 1);
    };
    const auto variance_bound = [&](double value) { return is_double ? double_sum_error * value : ulp_at(parameters, value); };
    errors.within("batch_mean", c, got.batch_mean[c], batch_mean[c], mean_bound(batch_mean[c], 4));
    errors.within("batch_variance", c, got.batch_variance[c], batch_variance[c], variance_bound(batch_variance[c]));
    errors.within("mean", c, got.mean[c], mean[c], mean_bound(std::max(std::abs(mean[c]), std::abs(in.mean[c])), 7));
    errors.within("variance", c, got.variance[c], variance[c], variance_bound(std::max(variance[c], batch_variance[c])));
  }

  const double allowed = allowed_ulps(precision, y_ulps + (is_fused ? residual_ulps : 0));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t c = problem.channel_of(i);
    const double scaled = in.scale[c] * (in.x[i] - batch_mean[c]) / std::sqrt(batch_variance[c] + problem.options.epsilon);
    double magnitude = std::max({std::abs(y[i]), std::abs(scaled), std::abs(in.bias[c])}), expected = y[i];
    if (is_double) magnitude = std::max(magnitude, std::abs(in.scale[c]));
    if (is_fused) {
      magnitude = std::max({magnitude, std::abs(in.residual[i]), std::abs(y[i] + in.residual[i])});
      expected = std::max(y[i] + in.residual[i], 0.0);
    }
    errors.element("y", i, got.y[i], expected, magnitude, allowed,
                   is_double && is_training ? double_sum_error / 2 * std::abs(scaled) : 0);
    if (is_fused) errors.exactly("mask", i, got.mask[i / 8] >> i % 8 & 1, got.y[i] > 0 ? 1 : 0);
  }
  return errors;
}

Errors compare(const Problem& problem, const BackwardInputs& in, const BackwardOutputs& got) {
  const Precision precision = problem.precision, parameters = of_parameters(precision);
  const bool is_double = precision.digits == 53;
  const auto channels = static_cast<std::size_t>(problem.c);
  Errors errors(precision);
  Doubles dz = in.dy;
  if (!in.mask.empty()) {
    for (std::size_t i = 0; i < dz.size(); ++i) {
      if ((in.mask[i / 8] >> i % 8 & 1) == 0) dz[i] = 0;
      errors.exactly("dresidual", i, got.dresidual[i], dz[i]);
    }
  }
  Doubles dx(in.x.size()), dscale(channels), dbias(channels);
  batchnorm::batch_norm_backward<double>(problem.format, problem.options, {dz.data(), problem.shape},
                                         {in.x.data(), problem.shape}, in.scale, in.mean, in.variance,
                                         {{dx.data(), problem.shape}, dscale, dbias});

  Doubles r(channels), dz_terms(channels), dz_xh_terms(channels);
  for (std::size_t c = 0; c < channels; ++c) r[c] = 1 / std::sqrt(in.variance[c] + problem.options.epsilon);
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const std::size_t c = problem.channel_of(i);
    dz_terms[c] += std::abs(dz[i]);
    dz_xh_terms[c] += std::abs(dz[i] * (in.x[i] - in.mean[c]) * r[c]);
  }
  for (std::size_t c = 0; c < channels; ++c) {
    errors.within("dscale", c, got.dscale[c], dscale[c], allowed_sum_error(parameters, dscale[c], dz_xh_terms[c]));
    errors.within("dbias", c, got.dbias[c], dbias[c], allowed_sum_error(parameters, dbias[c], dz_terms[c]));
  }

  const double m = static_cast<double>(in.x.size()) / static_cast<double>(channels);
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const std::size_t c = problem.channel_of(i);
    const double a = std::abs(in.scale[c] * r[c]), xh = std::abs(in.x[i] - in.mean[c]) * r[c];
    const double magnitude =
        std::max({std::abs(dx[i]), a * std::abs(dz[i]), a * std::abs(dbias[c]) / m, a * xh * std::abs(dscale[c]) / m});
    const double of_sums = a * (dz_terms[c] + xh * dz_xh_terms[c]) / m;
    errors.element("dx", i, got.dx[i], dx[i], magnitude, allowed_ulps(precision, dx_ulps),
                   is_double ? double_sum_error * of_sums : 0);
  }
  return errors;
}

}  // namespace selftest
