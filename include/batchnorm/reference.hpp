// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The formulas of batch normalization as plain loops in double: where a reader starts, what tests and benchmarks compare with,
/// and what anybody can check the library against. No other header includes it.
///
/// It is written to be read, not to be fast. It takes dense tensors of rank 2 to 5 whose elements are float, double, half or
/// bfloat16; scale and bias must be given. It leaves out strides, checks of arguments, threads, activations, residuals, masks,
/// double gradients, RunningVariance::biased and NotFinite::keep, and what the library promises beyond the formulas
/// (docs/numerics.md): sums that keep their digits however long they are, y equal to bias in a constant channel, momentum 0 and
/// 1 that ignore values that are not finite. half and bfloat16 are rounded from double by way of float.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <batchnorm/format.hpp>

/// @namespace batchnorm::reference
/// The formulas of batch normalization as plain loops in double.
namespace batchnorm::reference {

/// A dense tensor of any rank, as n images of c channels of s values.
struct Extents {
  Format format = Format::NCHW;             ///< the order in memory: [n, c, s] or [n, s, c]
  std::int64_t n = 0;                       ///< images
  std::int64_t c = 0;                       ///< channels
  std::int64_t s = 0;                       ///< the product of the spatial extents, 1 for rank 2
  std::int64_t m() const { return n * s; }  ///< values per channel
};

/// The extents of a tensor of rank 2 to 5.
inline Extents extents_of(const Shape& shape, Format format) {
  const int channel_axis = format == Format::NCHW ? 1 : shape.rank() - 1;
  Extents e{format, shape[0], shape[channel_axis], 1};
  for (int axis = 1; axis < shape.rank(); ++axis) {
    if (axis != channel_axis) e.s *= shape[axis];
  }
  return e;
}

/// The same number as a double.
template <class V>
double real(const V& value) {
  return static_cast<double>(value);
}

/// Calls visit(c, i) for every element, in memory order: c is its channel, i its index.
template <class Visit>
void for_each_element(const Extents& e, Visit visit) {
  std::size_t i = 0;
  if (e.format == Format::NCHW) {
    for (std::int64_t n = 0; n < e.n; ++n)
      for (std::int64_t c = 0; c < e.c; ++c)
        for (std::int64_t s = 0; s < e.s; ++s) visit(static_cast<std::size_t>(c), i++);
  } else {
    for (std::int64_t row = 0; row < e.m(); ++row)
      for (std::int64_t c = 0; c < e.c; ++c) visit(static_cast<std::size_t>(c), i++);
  }
}

/// What is computed for each channel, in double and not rounded: results to read after a call. A call that is given the
/// Channels of an earlier one, of as many channels, allocates nothing.
struct Channels {
  std::vector<double> mean;      ///< training: of the batch
  std::vector<double> variance;  ///< training: of the batch, biased
  std::vector<double> r;         ///< 1 / sqrt(variance + epsilon)
  std::vector<double> dscale;    ///< backward: sum(dy * xh), with xh = (x - mean) * r
  std::vector<double> dbias;     ///< backward: sum(dy)
};

/// r = 1 / sqrt(variance + epsilon)
template <class Statistic>
void invert_deviation(const Extents& e, const Statistic* variance, double epsilon, Channels& channels) {
  channels.r.resize(static_cast<std::size_t>(e.c));
  for (std::size_t c = 0; c < channels.r.size(); ++c) {
    channels.r[c] = 1 / std::sqrt(real(variance[c]) + epsilon);
  }
}

/// y = scale * (x - mean) / sqrt(variance + epsilon) + bias, with the statistics that are given: those of a batch, or the
/// running ones. y may be x.
template <class T, class P, class Statistic>
void inference(const Extents& e, const T* x, const P* scale, const P* bias, const Statistic* mean, const Statistic* variance,
               double epsilon, T* y, Channels& channels) {
  invert_deviation(e, variance, epsilon, channels);
  const double* r = channels.r.data();
  for_each_element(e, [=](std::size_t c, std::size_t i) {
    const double xh = (real(x[i]) - real(mean[c])) * r[c];
    y[i] = static_cast<T>(real(scale[c]) * xh + real(bias[c]));
  });
}

/// The mean and the biased variance of each channel, into `channels`: two passes over x.
template <class T>
void statistics(const Extents& e, const T* x, Channels& channels) {
  channels.mean.assign(static_cast<std::size_t>(e.c), 0);
  channels.variance.assign(static_cast<std::size_t>(e.c), 0);
  double* mean = channels.mean.data();
  double* variance = channels.variance.data();
  const double m = real(e.m());
  for_each_element(e, [=](std::size_t c, std::size_t i) { mean[c] += real(x[i]); });
  for (double& sum : channels.mean) sum /= m;
  for_each_element(e, [=](std::size_t c, std::size_t i) {
    const double deviation = real(x[i]) - mean[c];
    variance[c] += deviation * deviation;
  });
  for (double& sum : channels.variance) sum /= m;
}

/// Takes the statistics of a batch into the running ones, the variance as the unbiased one:
///
///   running_mean     = (1 - momentum) * running_mean + momentum * mean
///   running_variance = (1 - momentum) * running_variance + momentum * variance * m / max(m - 1, 1)
template <class P>
void update_running(const Extents& e, const Channels& batch, double momentum, P* running_mean, P* running_variance) {
  const double m = real(e.m());
  const auto update = [momentum](P& running, double value) {
    running = static_cast<P>((1 - momentum) * real(running) + momentum * value);
  };
  for (std::size_t c = 0; c < batch.mean.size(); ++c) {
    update(running_mean[c], batch.mean[c]);
    update(running_variance[c], batch.variance[c] * m / (std::max)(m - 1, 1.0));
  }
}

/// y as in inference, with the mean and the biased variance of the batch, which are left in `channels`; updates the running
/// statistics. An empty batch changes nothing.
template <class T, class P>
void training(const Extents& e, const T* x, const P* scale, const P* bias, double epsilon, double momentum, T* y,
              P* running_mean, P* running_variance, Channels& channels) {
  if (e.m() == 0) return;
  statistics(e, x, channels);
  update_running(e, channels, momentum, running_mean, running_variance);
  inference(e, x, scale, bias, channels.mean.data(), channels.variance.data(), epsilon, y, channels);
}

/// dbias = sum(dy) and dscale = sum(dy * xh), into `channels`, with xh = (x - mean) * r and r = 1 / sqrt(variance + epsilon).
template <class T, class Statistic>
void parameter_gradients(const Extents& e, const T* dy, const T* x, const Statistic* mean, const Statistic* variance,
                         double epsilon, Channels& channels) {
  invert_deviation(e, variance, epsilon, channels);
  channels.dscale.assign(static_cast<std::size_t>(e.c), 0);
  channels.dbias.assign(static_cast<std::size_t>(e.c), 0);
  double* dscale = channels.dscale.data();
  double* dbias = channels.dbias.data();
  for_each_element(e, [=](std::size_t c, std::size_t i) {
    dbias[c] += real(dy[i]);
    dscale[c] += real(dy[i]) * (real(x[i]) - real(mean[c]));
  });
  for (std::size_t c = 0; c < channels.r.size(); ++c) dscale[c] *= channels.r[c];
}

/// The gradients of training, where mean and variance are those of the batch and so depend on x; dscale and dbias are left in
/// `channels`. dx may be dy.
///
///   dx = scale * r * (dy - (dbias + xh * dscale) / m)
template <class T, class P, class Statistic>
void backward_training(const Extents& e, const T* dy, const T* x, const P* scale, const Statistic* mean,
                       const Statistic* variance, double epsilon, T* dx, Channels& channels) {
  parameter_gradients(e, dy, x, mean, variance, epsilon, channels);
  const double* r = channels.r.data();
  const double* dscale = channels.dscale.data();
  const double* dbias = channels.dbias.data();
  const double m = real(e.m());
  for_each_element(e, [=](std::size_t c, std::size_t i) {
    const double xh = (real(x[i]) - real(mean[c])) * r[c];
    dx[i] = static_cast<T>(real(scale[c]) * r[c] * (real(dy[i]) - (dbias[c] + xh * dscale[c]) / m));
  });
}

/// The gradients of inference, where mean and variance are constants; dscale and dbias are left in `channels`. dx may be dy.
///
///   dx = scale * r * dy
template <class T, class P, class Statistic>
void backward_inference(const Extents& e, const T* dy, const T* x, const P* scale, const Statistic* mean,
                        const Statistic* variance, double epsilon, T* dx, Channels& channels) {
  parameter_gradients(e, dy, x, mean, variance, epsilon, channels);
  const double* r = channels.r.data();
  for_each_element(e, [=](std::size_t c, std::size_t i) { dx[i] = static_cast<T>(real(scale[c]) * r[c] * real(dy[i])); });
}

}  // namespace batchnorm::reference
