// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE(, batchnorm::half, float)
SUPPORT_INSTANTIATE(, batchnorm::half, batchnorm::half)
SUPPORT_INSTANTIATE_ELEMENT(, batchnorm::half, float)
