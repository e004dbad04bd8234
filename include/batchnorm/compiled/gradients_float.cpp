// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/gradients.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_GRADIENTS(, float, float)
BATCHNORM_COMPILED_GRADIENT_CHANNELS(, float, float)
BATCHNORM_COMPILED_GRADIENT_CALLS(, float, half)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
