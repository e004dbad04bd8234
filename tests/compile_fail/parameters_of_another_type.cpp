// SPDX-License-Identifier: MIT
// scale has the operator's parameter type; nothing is converted behind the caller's back.
#include <vector>

#include <batchnorm/batchnorm.hpp>

void f(batchnorm::TensorView<const float> x, std::vector<float>& mean, std::vector<float>& variance) {
  const batchnorm::BatchNorm<float> batch_norm;
#if FORBIDDEN
  const std::vector<double> scale(mean.size());
#else
  const std::vector<float> scale(mean.size());
#endif
  batch_norm.output_x(x, scale, nullptr, mean, variance);
}
