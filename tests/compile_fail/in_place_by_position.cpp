// SPDX-License-Identifier: MIT
// Six vectors of one type: named, none takes another's place.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<float>;

void forward(Vector x, Vector scale, Vector bias, Vector mean, Vector variance, Vector batch_variance) {
  const batchnorm::InPlaceBatchNorm<float> norm;
#if FORBIDDEN
  norm.forward(x, scale, bias, mean, variance, nullptr, batch_variance);
#else
  norm.forward({.x = x, .scale = scale, .bias = bias, .mean = mean, .variance = variance, .batch_variance = batch_variance});
#endif
}
