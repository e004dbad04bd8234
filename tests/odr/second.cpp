// SPDX-License-Identifier: MIT
// clang-format off: the poison comes first
#include "poison.hpp"
#include <headers_of_ours.hpp>
// clang-format on
#include "normalized.hpp"
#include "second.hpp"

std::vector<float> normalized_by_second(const std::vector<float>& x) { return normalized(x); }
batchnorm::Isa compiled_isa_of_second() { return batchnorm::compiled_isa(); }
batchnorm::Isa active_isa_of_second() { return batchnorm::active_isa(); }
