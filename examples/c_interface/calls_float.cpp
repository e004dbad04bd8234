// SPDX-License-Identifier: MIT
#include "calls_of.hpp"

BATCHNORM_C_CALLS(float, float)
BATCHNORM_C_CALLS(float, batchnorm::half)
