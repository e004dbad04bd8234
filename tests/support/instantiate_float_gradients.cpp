// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE_GRADIENTS(, float, float)
SUPPORT_INSTANTIATE_GRADIENTS(, float, batchnorm::half)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(, float, float)
