// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/in_place.hpp>

#include "support/instantiations.hpp"

// The kernels of the in-place forms of float, compiled once in in_place_kernels.cpp.

// A macro, because an explicit instantiation and its declaration must repeat the whole signature.
#define FUZZ_INSTANTIATE_IN_PLACE(PREFIX)                                                              \
  SUPPORT_INSTANTIATE_EPILOGUE(PREFIX, float, float, batchnorm::LeakyRelu)                             \
  PREFIX template void batchnorm::arguments::backward<float, fuzz::UndoneLeakyRelu, float>(            \
      const Arguments&, const CallOptions&, const cpu::GradientTensors<float, fuzz::UndoneLeakyRelu>&, \
      const GivenVectors<float>&, const cpu::GradientArguments<float>&, bool);

namespace fuzz {

using UndoneLeakyRelu = batchnorm::cpu::Passage<batchnorm::LeakyRelu, batchnorm::cpu::Through::inverse>;

}  // namespace fuzz

FUZZ_INSTANTIATE_IN_PLACE(extern)
