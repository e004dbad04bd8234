// SPDX-License-Identifier: MIT
#include "normalized.hpp"

batchnorm::Isa floor_of_second() { return batchnorm::compiled_isa(); }

std::vector<float> normalized_by_second(const std::vector<float>& x) { return normalized(x); }
