// SPDX-License-Identifier: MIT
// As double_backward_by_position.cpp, of the function.
#include <batchnorm/batchnorm.hpp>

void double_backward(batchnorm::TensorView<const float> dy, batchnorm::TensorView<const float> x,
                     batchnorm::TensorView<const float> mean, batchnorm::TensorView<const float> variance,
                     batchnorm::TensorView<const float> ddx, const batchnorm::DoubleGradientViews<float>& out) {
#if FORBIDDEN
  batchnorm::batch_norm_double_backward<float>(batchnorm::Format::NCHW, {}, x, dy, nullptr, mean, variance, ddx, nullptr,
                                               nullptr, out);
#else
  batchnorm::batch_norm_double_backward<float>(batchnorm::Format::NCHW, {},
                                               {.dy = dy, .x = x, .mean = mean, .variance = variance, .ddx = ddx}, out);
#endif
}
