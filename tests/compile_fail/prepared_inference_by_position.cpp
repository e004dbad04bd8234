// SPDX-License-Identifier: MIT
// Parameters are named, and a constant x is no output.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

void infer(Vector scale, Vector bias, Vector mean, Vector variance, Vector x, batchnorm::TensorView<float> y) {
  const batchnorm::PreparedInference<float> layer(batchnorm::Format::NCHW,
                                                  {.scale = scale, .bias = bias, .mean = mean, .variance = variance});
#if FORBIDDEN
  layer(y, x);
#else
  layer(x, y);
#endif
}
