// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <batchnorm/format.hpp>
#include <batchnorm/tensor.hpp>

#include "digits.hpp"
#include "onnx/batch_normalization.hpp"

// Whether a node can be run: asked by `list` with what the model says, by `run` with what is there, in the same words.
namespace onnx_tool {

/// As much as is known of a tensor.
struct Known {
  onnx::DataType type{};  ///< 0 where nothing is known
  std::optional<batchnorm::Shape> shape{};
};

/// Of X, scale, B, mean and var.
using KnownInputs = std::array<Known, 5>;

/// The type that the model says an input has; 0 where it says nothing.
inline onnx::DataType declared_type(const onnx::Value& value) {
  if (value.tensor != nullptr) return value.tensor->type;
  return value.declaration == nullptr ? onnx::DataType{} : value.declaration->type;
}

/// What the model itself says. Of inputs that will be replaced, only the type counts.
/// @throws onnx::FormatError   a constant's extents are malformed
inline KnownInputs known_of(const onnx::BatchNormalization& norm, const std::array<bool, 5>& is_replaced = {}) {
  KnownInputs known;
  for (std::size_t k = 0; k < known.size(); ++k) {
    const onnx::Value& value = norm.inputs[k];
    known[k].type = declared_type(value);
    if (value.tensor != nullptr && !is_replaced[k]) known[k].shape = onnx::shape_of(*value.tensor);
  }
  return known;
}

/// ONNX puts no bounds to epsilon. A negative one or NaN is nobody's intention.
inline bool is_epsilon(float epsilon) { return epsilon >= 0 && std::isfinite(epsilon); }

namespace detail {

class Checks {
 public:
  Checks(const onnx::BatchNormalization& norm, const KnownInputs& known) : norm_(norm), known_(known) {}

  std::string problem() {
    if (!norm_.problem.empty()) return norm_.problem;
    if (!is_epsilon(norm_.epsilon)) refuse("epsilon is " + to_string(norm_.epsilon) + ", it must be finite and at least 0");
    if (norm_.is_training && !(norm_.momentum >= 0 && norm_.momentum <= 1)) {
      refuse("momentum is " + to_string(norm_.momentum) + ", it must be in [0, 1]");
    }
    check_types();
    check_shapes();
    return std::move(problem_);
  }

 private:
  void refuse(const std::string& why) {
    if (problem_.empty()) problem_ = why;
  }

  static std::string name(std::size_t k) { return std::string(onnx::input_names[k]); }

  /// The types that the version of the operator lets go together.
  void check_types() {
    for (std::size_t k = 0; k < known_.size(); ++k) {
      if (known_[k].type == onnx::DataType{} || onnx::size_of(known_[k].type) != 0) continue;
      refuse(name(k) + " is " + onnx::to_string(known_[k].type) + ", it must be float16, bfloat16, float32 or float64");
    }
    require_same_type(2, 1);
    require_same_type(4, 3);
    if (norm_.graph->opset < 15) require_same_type(1, 0);
    if (norm_.graph->opset < 14) require_same_type(3, 0);
    if (norm_.graph->opset < 14) require_same_type(3, 1);
    if (known_[0].type == onnx::DataType{} || known_[0].type == onnx::DataType::float64) return;
    for (std::size_t k = 1; k < known_.size(); ++k) {
      if (known_[k].type != onnx::DataType::float64) continue;
      refuse(name(k) + " is float64; only x of float64 takes parameters of float64");
    }
  }

  void require_same_type(std::size_t k, std::size_t other) {
    const onnx::DataType is = known_[k].type, expected = known_[other].type;
    if (is == onnx::DataType{} || expected == onnx::DataType{} || is == expected) return;
    refuse(name(k) + " is " + onnx::to_string(is) + ", opset " + std::to_string(norm_.graph->opset) + " wants the type of " +
           name(other) + ", " + onnx::to_string(expected));
  }

  /// Parameters have the extents of X after the first, except those of the positions where there is one for each channel.
  /// Where X is not known they must agree.
  void check_shapes() {
    std::optional<batchnorm::Shape> expected;
    if (known_[0].shape) expected = parameter_shape(*known_[0].shape);
    for (std::size_t k = 1; k < known_.size() && problem_.empty(); ++k) {
      if (!known_[k].shape) continue;
      const batchnorm::Shape& shape = *known_[k].shape;
      if (!expected) expected = norm_.is_spatial ? batchnorm::Shape{shape.rank() == 0 ? 1 : shape[0]} : shape;
      if (shape == *expected) continue;
      if (!norm_.is_spatial && (is_channels_alone(shape, *expected) || is_channels_alone(*expected, shape))) continue;
      refuse(name(k) + " has shape " + to_string(shape) + ", expected " + (norm_.is_spatial ? "[C]" : "[C, D1, ...]") + " = " +
             to_string(*expected));
    }
  }

  batchnorm::Shape parameter_shape(const batchnorm::Shape& x) {
    if (x.rank() == 0) refuse("X has shape [], it must have a rank of at least 1");
    if (x.rank() < 2) return {1};
    if (norm_.is_spatial) return {x[1]};
    return batchnorm::Shape(x.extents().subspan(1));
  }

  /// One position: a statistic for each channel is also one for each position.
  static bool is_channels_alone(const batchnorm::Shape& shape, const batchnorm::Shape& expected) {
    return shape.rank() == 1 && expected.rank() > 0 && shape[0] == expected[0] &&
           batchnorm::element_count(expected) == expected[0];
  }

  const onnx::BatchNormalization& norm_;
  const KnownInputs& known_;
  std::string problem_;
};

}  // namespace detail

/// Why the node cannot be run with inputs of these types and shapes; empty where nothing speaks against it. Options that the
/// node's mode has no use for are not looked at.
inline std::string problem_of(const onnx::BatchNormalization& norm, const KnownInputs& known) {
  return detail::Checks(norm, known).problem();
}

}  // namespace onnx_tool
