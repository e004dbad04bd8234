// SPDX-License-Identifier: MIT
// dy and x are of one type, and so are mean, variance and scale, which once came last.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

void gradient(Vector dy, Vector x, Vector scale, Vector mean, Vector variance, const batchnorm::GradientSums& sums,
              const batchnorm::GradientViews<float>& out) {
#if FORBIDDEN
  batchnorm::input_gradient<float, float>(dy, x, batchnorm::Format::NCHW, sums, mean, variance, scale, 1e-5, out);
#else
  batchnorm::input_gradient<float>(batchnorm::Format::NCHW,
                                   {.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance}, sums, 1e-5, out);
#endif
}
