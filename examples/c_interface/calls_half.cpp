// SPDX-License-Identifier: MIT
#include "calls_of.hpp"

BATCHNORM_C_CALLS(batchnorm::half, float)
BATCHNORM_C_CALLS(batchnorm::half, batchnorm::half)
