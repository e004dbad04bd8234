// SPDX-License-Identifier: MIT
// The running statistics are updated in place: they cannot be const.
#include <batchnorm/batchnorm.hpp>

void f(batchnorm::TensorView<const float> x, batchnorm::Tensor<float>& mean, batchnorm::Tensor<float>& variance) {
  const batchnorm::BatchNorm<float> batch_norm(true);
#if FORBIDDEN
  const batchnorm::Tensor<float>& running_mean = mean;
#else
  batchnorm::Tensor<float>& running_mean = mean;
#endif
  batch_norm.output_x(x, nullptr, nullptr, running_mean, variance);
}
