// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE(, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE(, batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_INSTANTIATE_ELEMENT(, batchnorm::bfloat16, float)
