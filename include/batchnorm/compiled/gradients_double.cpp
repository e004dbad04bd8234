// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/gradients.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_GRADIENTS(, double, double)
BATCHNORM_COMPILED_GRADIENT_CHANNELS(, double, double)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
