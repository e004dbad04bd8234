// SPDX-License-Identifier: MIT
// mean and variance once came before scale and bias, as in no other call: the names say which is which.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

void normalize(Vector x, Vector scale, Vector bias, Vector mean, Vector variance, batchnorm::TensorView<float> y) {
#if FORBIDDEN
  batchnorm::normalize<float, float>(x, batchnorm::Format::NCHW, mean, variance, scale, bias, 1e-5, y);
#else
  batchnorm::normalize<float>(batchnorm::Format::NCHW,
                              {.x = x, .scale = scale, .bias = bias, .mean = mean, .variance = variance}, 1e-5, y);
#endif
}
