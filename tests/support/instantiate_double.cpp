// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE(, double, double)
SUPPORT_INSTANTIATE_ELEMENT(, double, double)
