// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/forward.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_FORWARD(, half, float)
BATCHNORM_COMPILED_CHANNELS(, float, half)
BATCHNORM_COMPILED_CALLS(, half, half)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
