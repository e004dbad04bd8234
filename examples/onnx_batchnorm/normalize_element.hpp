// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <batchnorm/batchnorm.hpp>

#include "normalize.hpp"
#include "npy_tool/command_line.hpp"

// The definition that the files normalize_TYPE.cpp compile, each for one type.
namespace onnx_tool {
namespace detail {

/// The same values as P, which is no narrower.
template <Element P>
Tensor<P> widened(const AnyTensor& tensor, const std::string& name) {
  if (!std::same_as<P, double> && std::holds_alternative<Tensor<double>>(tensor)) {
    throw npy_tool::UsageError(name + " is float64; only x of float64 takes parameters of float64");
  }
  return converted<P>(tensor);
}

/// A tensor as the type that another one has.
inline AnyTensor as_type_of(const AnyTensor& model, const AnyTensor& tensor) {
  return std::visit([&]<class T>(const Tensor<T>&) -> AnyTensor { return converted<T>(tensor); }, model);
}

template <Element T, Element P>
std::vector<AnyTensor> normalize(const batchnorm::Options& options, const Tensor<T>& x, const Operands& operands,
                                 const batchnorm::CallOptions& call) {
  const Tensor<P> scale = widened<P>(operands.scale, "scale"), bias = widened<P>(operands.bias, "B");
  Tensor<P> mean = widened<P>(operands.mean, "mean"), variance = widened<P>(operands.variance, "var");
  const batchnorm::Shape shape = operator_shape(x.shape());
  Tensor<T> y(x.shape());
  batchnorm::batch_norm<T, P>(batchnorm::Format::NCHW, options, {x.data(), shape}, scale, bias, mean, variance,
                              {.output_x = {y.data(), shape}}, {}, call);
  std::vector<AnyTensor> outputs;
  outputs.emplace_back(std::move(y));
  if (options.is_training) {
    outputs.push_back(as_type_of(operands.mean, std::move(mean)));
    outputs.push_back(as_type_of(operands.variance, std::move(variance)));
  }
  return outputs;
}

}  // namespace detail

template <Element T>
std::vector<AnyTensor> normalize(const batchnorm::Options& options, const Tensor<T>& x, const Operands& operands,
                                 const batchnorm::CallOptions& call) {
  const auto all_are = [&]<class P>(const Tensor<P>&) {
    return std::holds_alternative<Tensor<P>>(operands.scale) && std::holds_alternative<Tensor<P>>(operands.bias) &&
           std::holds_alternative<Tensor<P>>(operands.mean) && std::holds_alternative<Tensor<P>>(operands.variance);
  };
  using batchnorm::bfloat16, batchnorm::half;
  if constexpr (batchnorm::ParameterOf<half, T>) {
    if (all_are(Tensor<half>())) return detail::normalize<T, half>(options, x, operands, call);
  }
  if constexpr (batchnorm::ParameterOf<bfloat16, T>) {
    if (all_are(Tensor<bfloat16>())) return detail::normalize<T, bfloat16>(options, x, operands, call);
  }
  return detail::normalize<T, batchnorm::parameter_t<T>>(options, x, operands, call);
}

}  // namespace onnx_tool
