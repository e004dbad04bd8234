// SPDX-License-Identifier: MIT
// A residual has the type of x.
#include <batchnorm/batchnorm.hpp>

void f(batchnorm::TensorView<const float> x, batchnorm::TensorView<float> mean, batchnorm::TensorView<float> variance,
       batchnorm::TensorView<const float> same, batchnorm::TensorView<const double> other) {
  const batchnorm::BatchNorm<float> batch_norm;
#if FORBIDDEN
  batch_norm.output_x(x, nullptr, nullptr, mean, variance, batchnorm::AddResidual<double>{other});
#else
  batch_norm.output_x(x, nullptr, nullptr, mean, variance, batchnorm::AddResidual<float>{same});
#endif
  static_cast<void>(same), static_cast<void>(other);
}
