// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/forward.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_FORWARD(, float, float)
BATCHNORM_COMPILED_MERGES()
BATCHNORM_COMPILED_CHANNELS(, float, float)
BATCHNORM_COMPILED_CALLS(, float, half)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
