// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE_GRADIENTS(, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE_GRADIENTS(, batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(, batchnorm::bfloat16, float)
