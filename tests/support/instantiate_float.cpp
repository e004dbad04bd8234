// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE(, float, float)
SUPPORT_INSTANTIATE(, float, batchnorm::half)
SUPPORT_INSTANTIATE_ELEMENT(, float, float)
