// SPDX-License-Identifier: MIT
// The functions of conventions.hpp take is_training last: a bool in front would silently become momentum 1 or 0.
#include <batchnorm/conventions.hpp>

double call() {
#if FORBIDDEN
  return batchnorm::from_keras(true).momentum;
#else
  return batchnorm::from_keras(0.99, 1e-3, true).momentum;
#endif
}
