// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <batchnorm/format.hpp>

#include "any_tensor.hpp"
#include "digits.hpp"
#include "npy_tool/command_line.hpp"

namespace onnx_tool {

/// The element where two tensors differ most. A NaN beside a number differs by infinity, beside a NaN by nothing.
struct Difference {
  double largest = 0;
  std::int64_t index = 0;
  double is = 0, expected = 0;
};

inline Difference largest_difference(const Tensor<double>& is, const Tensor<double>& expected) {
  Difference result;
  for (std::int64_t i = 0; i < is.size(); ++i) {
    const bool same = is[i] == expected[i] || (std::isnan(is[i]) && std::isnan(expected[i]));
    double difference = same ? 0 : std::abs(is[i] - expected[i]);
    if (std::isnan(difference)) difference = INFINITY;
    if (difference > result.largest) result = {difference, i, is[i], expected[i]};
  }
  return result;
}

/// "Y float32 [2, 3]: largest difference 1.2e-07, element 4 is 0.5, expected 0.50000012"
/// @throws UsageError   the shapes differ
inline std::string compare(const std::string& name, const AnyTensor& is, const AnyTensor& expected) {
  const batchnorm::Shape& shape = shape_of(is);
  if (shape != shape_of(expected)) {
    throw npy_tool::UsageError(name + " has shape " + to_string(shape) + ", the one expected has " +
                               to_string(shape_of(expected)));
  }
  // In the digits of the tensor's type.
  const auto number = [&](double value) {
    return type_of(is) == onnx::DataType::float64 ? to_string(value) : to_string(static_cast<float>(value));
  };
  const Difference difference = largest_difference(converted<double>(is), converted<double>(expected));
  std::string text =
      name + " " + to_string(type_of(is)) + " " + to_string(shape) + ": largest difference " + number(difference.largest);
  if (difference.largest > 0) {
    text += ", element " + std::to_string(difference.index) + " is " + number(difference.is) + ", expected " +
            number(difference.expected);
  }
  return text + "\n";
}

}  // namespace onnx_tool
