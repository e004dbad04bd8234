// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the arrays of a layer are called in files, here and elsewhere.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <batchnorm/errors.hpp>

namespace batchnorm {

/// What the five arrays of a layer are called. "" stands for an array that the file lacks: a new layer's values take its
/// place, scale 1, bias 0, mean 0, variance 1, batches 0.
struct ParameterNames {
  std::string scale = "scale";        ///< of Parameters::scale
  std::string bias = "bias";          ///< of Parameters::bias
  std::string mean = "mean";          ///< of Parameters::mean
  std::string variance = "variance";  ///< of Parameters::variance
  std::string batches = "batches";    ///< of Parameters::batches

  /// The same with `prefix` before each, "bn1/" for example; what is absent stays absent.
  ParameterNames with_prefix(std::string_view prefix) const {
    const auto prefixed = [&](const std::string& name) { return name.empty() ? name : std::string(prefix).append(name); };
    return {prefixed(scale), prefixed(bias), prefixed(mean), prefixed(variance), prefixed(batches)};
  }
};

/// weight, bias, running_mean, running_var, num_batches_tracked. With affine=False, weight
/// and bias are absent: set them to "".
inline ParameterNames pytorch_names() { return {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}; }
/// gamma, beta, moving_mean, moving_variance; no batches. MindSpore's nn.BatchNorm has the same names.
inline ParameterNames keras_names() { return {"gamma", "beta", "moving_mean", "moving_variance", ""}; }
/// scale, bias, mean, var; no batches.
inline ParameterNames flax_names() { return {"scale", "bias", "mean", "var", ""}; }
/// scale, B, input_mean, input_var, the inputs of the operator since opset 14; no batches.
inline ParameterNames onnx_names() { return {"scale", "B", "input_mean", "input_var", ""}; }
/// weight, bias, _mean, _variance; no batches.
inline ParameterNames paddle_names() { return {"weight", "bias", "_mean", "_variance", ""}; }

/// How the arrays of a layer are read.
///
/// With `convert` scale, bias, mean and variance may be float16, float32, float64 or int64: each value is rounded once, to
/// nearest, ties to even; what is too small becomes subnormal or 0; NaN and the infinities stay; a finite value beyond the
/// largest one is an error that names the element. batches may be () or (1,), of any of these types, if it is a whole number
/// from 0 to 2^53. Without it the types must be those of checkpoint.hpp.
struct LoadOptions {
  ParameterNames names{};                  ///< what they are called
  bool convert = false;                    ///< whether values are converted from other types
  std::optional<std::int64_t> channels{};  ///< C; without it any will do
  std::optional<Error>* error = nullptr;   ///< if given, takes the error instead of a throw; the layer then has no channels
};

}  // namespace batchnorm
