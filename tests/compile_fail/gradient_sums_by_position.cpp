// SPDX-License-Identifier: MIT
// dy and x are of one type: named, neither takes the other's place.
#include <batchnorm/batchnorm.hpp>

using Vector = batchnorm::TensorView<const float>;

void sums(Vector dy, Vector x, Vector mean) {
#if FORBIDDEN
  batchnorm::gradient_sums<float, float>(x, dy, batchnorm::Format::NCHW, mean);
#else
  batchnorm::gradient_sums<float>(batchnorm::Format::NCHW, {.dy = dy, .x = x, .mean = mean});
#endif
}
