// SPDX-License-Identifier: MIT
// is_training comes first: a number in its place would silently become true.
#include <batchnorm/batch_norm.hpp>

batchnorm::BatchNorm<float> call() {
#if FORBIDDEN
  return batchnorm::BatchNorm<float>(1e-5, true);
#else
  return batchnorm::BatchNorm<float>(true, 1e-5);
#endif
}
