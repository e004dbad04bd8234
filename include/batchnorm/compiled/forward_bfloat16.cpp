// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/forward.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_FORWARD(, bfloat16, float)
BATCHNORM_COMPILED_CHANNELS(, float, bfloat16)
BATCHNORM_COMPILED_CALLS(, bfloat16, bfloat16)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
