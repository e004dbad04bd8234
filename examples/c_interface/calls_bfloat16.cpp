// SPDX-License-Identifier: MIT
#include "calls_of.hpp"

BATCHNORM_C_CALLS(batchnorm::bfloat16, float)
BATCHNORM_C_CALLS(batchnorm::bfloat16, batchnorm::bfloat16)
