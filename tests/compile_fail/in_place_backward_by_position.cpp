// SPDX-License-Identifier: MIT
// dy and y are of one type, and so are scale, bias and variance.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

void backward(Vector dy, Vector y, Vector scale, Vector bias, Vector variance, const batchnorm::GradientViews<float>& out) {
  const batchnorm::InPlaceBatchNorm<float> norm;
#if FORBIDDEN
  norm.backward(y, dy, scale, bias, variance, out);
#else
  norm.backward({.dy = dy, .y = y, .scale = scale, .bias = bias, .variance = variance}, out);
#endif
}
