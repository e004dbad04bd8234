// SPDX-License-Identifier: MIT
#include "instantiations.hpp"

// An empty macro argument: the definition has no prefix.
SUPPORT_INSTANTIATE_ACTIVATION_GRADIENTS(, float, float)
