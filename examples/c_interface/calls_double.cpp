// SPDX-License-Identifier: MIT
#include "calls_of.hpp"

BATCHNORM_C_CALLS(double, double)
