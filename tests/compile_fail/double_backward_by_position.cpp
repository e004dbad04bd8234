// SPDX-License-Identifier: MIT
// Eight tensors of two types: named, so that none takes another's place. Once it was (x, dy, ...) where backward has (dy, x,
// ...).
#include <batchnorm/batchnorm.hpp>

void double_backward(batchnorm::TensorView<const float> dy, batchnorm::TensorView<const float> x,
                     batchnorm::TensorView<const float> mean, batchnorm::TensorView<const float> variance,
                     batchnorm::TensorView<const float> ddx) {
  const batchnorm::BatchNorm<float> norm(true);
#if FORBIDDEN
  norm.double_backward(x, dy, nullptr, mean, variance, ddx, nullptr, nullptr);
#else
  norm.double_backward({.dy = dy, .x = x, .mean = mean, .variance = variance, .ddx = ddx});
#endif
}
