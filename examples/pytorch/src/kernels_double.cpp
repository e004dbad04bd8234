// SPDX-License-Identifier: MIT
#include "kernels.hpp"

// An empty macro argument: the definition has no prefix.
BATCHNORM_TORCH_KERNELS(, double, double)
