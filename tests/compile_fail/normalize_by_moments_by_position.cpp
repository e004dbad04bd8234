// SPDX-License-Identifier: MIT
// As normalize_by_position.cpp, with moments.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

void normalize(Vector x, Vector scale, Vector bias, const batchnorm::Moments& moments, batchnorm::TensorView<float> y) {
#if FORBIDDEN
  batchnorm::normalize<float, float>(x, batchnorm::Format::NCHW, moments, scale, bias, 1e-5, y);
#else
  batchnorm::normalize<float>(batchnorm::Format::NCHW, {.x = x, .scale = scale, .bias = bias}, moments, 1e-5, y);
#endif
}
