// SPDX-License-Identifier: MIT
// Outputs have another type than inputs: they do not change places.
#include <batchnorm/batchnorm.hpp>

void forward(batchnorm::TensorView<const float> x, batchnorm::TensorView<float> y, batchnorm::TensorView<const float> mean,
             batchnorm::TensorView<const float> variance) {
  const batchnorm::BatchNorm<float> norm;
#if FORBIDDEN
  norm({.output_x = y}, {.x = x, .mean = {mean.data(), {3}}, .variance = {variance.data(), {3}}});
#else
  norm({.x = x, .mean = {mean.data(), {3}}, .variance = {variance.data(), {3}}}, {.output_x = y});
#endif
}
