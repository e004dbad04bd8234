// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE_GRADIENTS(, batchnorm::half, float)
SUPPORT_INSTANTIATE_GRADIENTS(, batchnorm::half, batchnorm::half)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(, batchnorm::half, float)
