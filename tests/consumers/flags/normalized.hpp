// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <batchnorm/batchnorm.hpp>

namespace {

/// Of each unit that includes it, with the unit's flags.
std::vector<float> normalized(const std::vector<float>& x) {
  using namespace batchnorm;
  std::vector<float> y(x.size());
  const Shape shape{2, 3, 1000};
  const std::vector<float> bias(3, 0.7F);
  BatchNorm<float>(true)(TensorView<const float>(x.data(), shape), nullptr, bias, nullptr, nullptr,
                         {.output_x = TensorView<float>(y.data(), shape)});
  return y;
}

}  // namespace
