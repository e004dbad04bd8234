// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/gradients.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_GRADIENTS(, half, float)
BATCHNORM_COMPILED_GRADIENT_CHANNELS(, float, half)
BATCHNORM_COMPILED_GRADIENT_CALLS(, half, half)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
