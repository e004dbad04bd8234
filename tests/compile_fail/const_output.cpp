// SPDX-License-Identifier: MIT
// An output cannot be const.
#include <batchnorm/batchnorm.hpp>

void f(batchnorm::TensorView<const float> x, batchnorm::TensorView<float> y, batchnorm::TensorView<float> mean,
       batchnorm::TensorView<float> variance) {
  const batchnorm::BatchNorm<float> batch_norm;
#if FORBIDDEN
  batchnorm::OutputViews<float, float> out{.output_x = x};
  static_cast<void>(y);
#else
  batchnorm::OutputViews<float, float> out{.output_x = y};
#endif
  batch_norm(x, nullptr, nullptr, mean, variance, out);
}
