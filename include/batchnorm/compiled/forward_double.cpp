// SPDX-License-Identifier: MIT
#include <batchnorm/compiled/forward.hpp>

// An empty macro argument: a definition has no prefix.
namespace batchnorm::inline BATCHNORM_KERNELS {
BATCHNORM_COMPILED_FORWARD(, double, double)
BATCHNORM_COMPILED_CHANNELS(, double, double)
}  // namespace batchnorm::inline BATCHNORM_KERNELS
