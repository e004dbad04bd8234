// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/gradients.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_ACTIVATION_GRADIENTS(, float, float)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
