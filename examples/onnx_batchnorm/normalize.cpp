// SPDX-License-Identifier: MIT
#include "normalize.hpp"

#include <cmath>
#include <cstdint>
#include <utility>
#include <variant>

#include <batchnorm/batchnorm.hpp>

namespace onnx_tool {
namespace {

/// The values of a tensor rounded to the type that another one has.
AnyTensor as_type_of(const AnyTensor& model, const AnyTensor& tensor) {
  return std::visit([&]<class T>(const Tensor<T>&) -> AnyTensor { return converted<T>(tensor); }, model);
}

/// y = (x - mean) / sqrt(variance + epsilon) * scale + bias, operation by operation as ONNX defines it. x is [N, C, ...].
Tensor<double> formula(const Tensor<double>& x, const Tensor<double>& scale, const Tensor<double>& bias,
                       const Tensor<double>& mean, const Tensor<double>& variance, double epsilon) {
  Tensor<double> y(x.shape());
  if (x.size() == 0) return y;
  const std::int64_t channels = scale.size(), positions = x.size() / x.shape()[0] / channels;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const std::int64_t c = i / positions % channels;
    y[i] = (x[i] - mean[c]) / std::sqrt(variance[c] + epsilon) * scale[c] + bias[c];
  }
  return y;
}

/// An epsilon that the library does not take: 0, or above 1. All is widened to double.
std::vector<AnyTensor> normalize_plainly(batchnorm::Options options, const Operands& operands,
                                         const batchnorm::CallOptions& call) {
  const double epsilon = std::exchange(options.epsilon, 1.0);
  Operands wide{converted<double>(operands.x), converted<double>(operands.scale), converted<double>(operands.bias),
                converted<double>(operands.mean), converted<double>(operands.variance)};
  const auto& x = std::get<Tensor<double>>(wide.x);
  const auto& scale = std::get<Tensor<double>>(wide.scale);
  const auto& bias = std::get<Tensor<double>>(wide.bias);
  auto& mean = std::get<Tensor<double>>(wide.mean);
  auto& variance = std::get<Tensor<double>>(wide.variance);
  std::vector<AnyTensor> outputs;
  if (!options.is_training) {
    outputs.push_back(as_type_of(operands.x, formula(x, scale, bias, mean, variance, epsilon)));
    return outputs;
  }
  // The statistics do not depend on epsilon.
  Tensor<double> y(x.shape()), batch_mean(mean.shape()), batch_variance(mean.shape());
  const batchnorm::Shape shape = operator_shape(x.shape());
  batchnorm::batch_norm<double, double>(
      batchnorm::Format::NCHW, options, {x.data(), shape}, scale, bias, mean, variance,
      {.output_x = {y.data(), shape}, .batch_mean = batch_mean, .batch_variance = batch_variance}, {}, call);
  outputs.push_back(as_type_of(operands.x, formula(x, scale, bias, batch_mean, batch_variance, epsilon)));
  outputs.push_back(as_type_of(operands.mean, std::move(wide.mean)));
  outputs.push_back(as_type_of(operands.variance, std::move(wide.variance)));
  return outputs;
}

}  // namespace

batchnorm::Shape operator_shape(const batchnorm::Shape& shape) {
  if (shape.rank() == 1) return {shape[0], 1};
  if (shape.rank() <= 5) return shape;
  std::int64_t plane = 1;
  for (int axis = 2; axis < shape.rank(); ++axis) plane *= shape[axis];
  return {shape[0], shape[1], plane};
}

std::vector<AnyTensor> normalize(const batchnorm::Options& options, const Operands& operands,
                                 const batchnorm::CallOptions& call) {
  if (!(options.epsilon > 0 && options.epsilon <= 1)) return normalize_plainly(options, operands, call);
  return std::visit([&](const auto& x) { return normalize(options, x, operands, call); }, operands.x);
}

std::vector<AnyTensor> normalize_positions(const batchnorm::Options& options, const Operands& operands,
                                           const batchnorm::CallOptions& call) {
  const batchnorm::Shape x_shape = shape_of(operands.x);
  const std::int64_t channels = batchnorm::element_count(shape_of(operands.scale));
  const auto flat = [&](const AnyTensor& parameter) { return reshaped(parameter, {channels}); };
  const Operands flattened{reshaped(operands.x, {x_shape[0], channels}), flat(operands.scale), flat(operands.bias),
                           flat(operands.mean), flat(operands.variance)};
  std::vector<AnyTensor> outputs = normalize(options, flattened, call);
  outputs[0] = reshaped(outputs[0], x_shape);
  if (outputs.size() > 1) outputs[1] = reshaped(outputs[1], shape_of(operands.mean));
  if (outputs.size() > 2) outputs[2] = reshaped(outputs[2], shape_of(operands.variance));
  return outputs;
}

}  // namespace onnx_tool
