// SPDX-License-Identifier: MIT
// What is always in training updates the running statistics: they cannot be const.
#include <batchnorm/batchnorm.hpp>

void f(batchnorm::TensorView<float> x, batchnorm::Tensor<float>& mean, batchnorm::Tensor<float>& variance) {
  const batchnorm::InPlaceBatchNorm<float> batch_norm;
#if FORBIDDEN
  const batchnorm::Tensor<float>& running_mean = mean;
#else
  batchnorm::Tensor<float>& running_mean = mean;
#endif
  batch_norm.forward({.x = x, .mean = running_mean, .variance = variance});
}
