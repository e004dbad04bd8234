// SPDX-License-Identifier: MIT
#include "in_place_kernels.hpp"

// An empty macro argument: the definition has no prefix.
FUZZ_INSTANTIATE_IN_PLACE()
