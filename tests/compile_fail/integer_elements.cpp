// SPDX-License-Identifier: MIT
// Integers cannot be normalised.
#include <batchnorm/batchnorm.hpp>

#if FORBIDDEN
batchnorm::BatchNorm<int> batch_norm;
#else
batchnorm::BatchNorm<float> batch_norm;
#endif
