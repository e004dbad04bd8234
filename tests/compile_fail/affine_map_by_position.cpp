// SPDX-License-Identifier: MIT
// Four vectors of one type: named, none takes another's place.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

batchnorm::AffineMap map(Vector scale, Vector bias, Vector mean, Vector variance) {
#if FORBIDDEN
  return batchnorm::affine_map<float>(mean, variance, scale, bias, 1e-5);
#else
  return batchnorm::affine_map<float>({.scale = scale, .bias = bias, .mean = mean, .variance = variance}, 1e-5);
#endif
}
