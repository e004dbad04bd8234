// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <batchnorm/fold.hpp>

#include "any_tensor.hpp"

namespace onnx_tool {

/// What the node does in inference, in double, for any epsilon:
///
///   factor = scale / sqrt(variance + epsilon), shift = bias - mean * factor
///
/// All four have as many elements. Where variance + epsilon is 0 the factor is infinite or NaN, below 0 it is NaN.
inline batchnorm::AffineMap map_of(const AnyTensor& scale, const AnyTensor& bias, const AnyTensor& mean,
                                   const AnyTensor& variance, float epsilon) {
  const Tensor<double> s = converted<double>(scale), b = converted<double>(bias), m = converted<double>(mean);
  const Tensor<double> v = converted<double>(variance);
  batchnorm::AffineMap map;
  map.factor.reserve(static_cast<std::size_t>(s.size()));
  map.shift.reserve(static_cast<std::size_t>(s.size()));
  for (std::int64_t c = 0; c < s.size(); ++c) {
    const double factor = s[c] / std::sqrt(v[c] + static_cast<double>(epsilon));
    map.factor.push_back(factor);
    map.shift.push_back(std::fma(-m[c], factor, b[c]));
  }
  return map;
}

}  // namespace onnx_tool
