// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <batchnorm/fold.hpp>

#include "any_tensor.hpp"
#include "description.hpp"
#include "onnx/model.hpp"
#include "onnx/values.hpp"

// The layers that a batch norm can be folded into: Conv, ConvTranspose and Gemm with weights that the model holds.
namespace onnx_tool {

/// Why a node's input is no constant that can be read and is the same in every call; empty where it is one.
inline std::string obstacle(const onnx::Model& model, const std::string& name, const onnx::Value& value) {
  if (value.tensor == nullptr) return name + " is " + origin_of(value);
  const onnx::TensorProto& tensor = *value.tensor;
  if (tensor.storage == onnx::storages::external_data) return name + " is in another file (external data), which is not read";
  if (tensor.storage == onnx::storages::segment) return name + " is a segment of a larger tensor";
  if (onnx::size_of(tensor.type) == 0) return name + " is " + onnx::to_string(tensor.type);
  // Before version 4 of the format every initializer was also an input.
  const bool is_input = value.source == onnx::Source::initializer && value.graph->inputs.contains(value.name);
  if (is_input && (model.ir_version >= 4 || value.graph->outer != nullptr)) {
    return name + " is also an input of the graph, whose caller may replace it";
  }
  return "";
}

struct Layer {
  enum class Kind { conv, conv_transpose, gemm };

  const onnx::Node* node = nullptr;
  Kind kind = Kind::conv;
  onnx::Value weights{}, bias{};  ///< bias.tensor is null where it has none
  batchnorm::Shape shape{};       ///< of the weights
  batchnorm::Shape bias_shape{};  ///< of the bias that it has when a batch norm is folded into it
  std::int64_t groups = 1;        ///< of a transposed convolution
  bool is_transposed = false;     ///< a Gemm's weights are [channels, K]
  float beta = 1;                 ///< what a Gemm multiplies its bias with

  std::int64_t channels() const {
    if (kind == Kind::conv_transpose) return shape[1] * groups;
    return shape[kind == Kind::gemm && !is_transposed ? 1 : 0];
  }

  /// That the weight i in memory belongs to.
  std::int64_t channel_of(std::int64_t i) const {
    const std::int64_t size = batchnorm::element_count(shape);
    if (kind == Kind::gemm && !is_transposed) return i % shape[1];
    if (kind != Kind::conv_transpose) return i / (size / shape[0]);
    const std::int64_t row = size / shape[0], rest = row / shape[1];
    return i / row / (shape[0] / groups) * shape[1] + i / rest % shape[1];
  }
};

namespace detail {

/// Reads a layer from its node; what speaks against folding into it is `problem`.
class LayerReader {
 public:
  LayerReader(const onnx::Model& model, const onnx::Graph& graph, const onnx::Node& node, onnx::Values& values)
      : model_(model), graph_(graph), values_(values), layer_{.node = &node} {}

  std::string problem{};

  Layer read() {
    const onnx::Node& node = *layer_.node;
    if (node.is("ConvTranspose")) layer_.kind = Layer::Kind::conv_transpose;
    if (node.is("Gemm")) layer_.kind = Layer::Kind::gemm;
    if (node.inputs.size() < 2 || node.inputs.size() > 3) refuse("it has " + std::to_string(node.inputs.size()) + " inputs");
    if (node.outputs.size() != 1) refuse("it has " + std::to_string(node.outputs.size()) + " outputs");
    if (node.has_graphs) refuse("it has graphs in its attributes");
    if (layer_.kind == Layer::Kind::gemm && graph_.opset < 7) refuse("before opset 7 it adds its bias otherwise");
    if (problem.empty()) read_weights();
    if (problem.empty()) read_attributes();
    if (problem.empty()) read_bias();
    return layer_;
  }

 private:
  void refuse(const std::string& why) {
    if (problem.empty()) problem = why;
  }

  void read_weights() {
    layer_.weights = values_.of(graph_, layer_.node->inputs[1]);
    refuse(obstacle(model_, "its input of weights", layer_.weights));
    if (!problem.empty()) return;
    layer_.shape = onnx::shape_of(*layer_.weights.tensor);
    const bool is_gemm = layer_.kind == Layer::Kind::gemm;
    if (is_gemm ? layer_.shape.rank() != 2 : layer_.shape.rank() < 3) {
      refuse("its weights have shape " + to_string(layer_.shape));
    } else if (batchnorm::element_count(layer_.shape) == 0) {
      refuse("its weights are empty");
    }
  }

  void read_attributes() {
    for (const onnx::Bytes& bytes : layer_.node->attributes) {
      const onnx::Attribute attribute = onnx::parse_attribute(bytes);
      const bool is_gemm = layer_.kind == Layer::Kind::gemm;
      if (!attribute.reference.empty()) refuse("its attributes are those of a function's caller");
      if (!is_gemm && attribute.name == "group") layer_.groups = attribute.i.value_or(0);
      if (is_gemm && attribute.name == "transB") layer_.is_transposed = attribute.i.value_or(0) != 0;
      if (is_gemm && attribute.name == "beta") layer_.beta = attribute.f.value_or(0);
    }
    const std::int64_t groups = layer_.groups;
    if (groups < 1 || layer_.shape[0] % groups != 0 || groups > INT64_MAX / layer_.shape[1]) {
      refuse("its group is " + std::to_string(groups) + ", its weights have shape " + to_string(layer_.shape));
    }
    if (!std::isfinite(layer_.beta)) refuse("its beta is " + to_string(layer_.beta));
  }

  /// [channels]; a Gemm's may be anything that can be spread over [M, channels].
  void read_bias() {
    const std::int64_t channels = layer_.channels();
    layer_.bias_shape = {channels};
    if (layer_.node->inputs.size() < 3 || layer_.node->inputs[2].empty()) return;
    layer_.bias = values_.of(graph_, layer_.node->inputs[2]);
    refuse(obstacle(model_, "its bias", layer_.bias));
    if (!problem.empty()) return;
    const batchnorm::Shape shape = onnx::shape_of(*layer_.bias.tensor);
    if (layer_.bias.tensor->type != layer_.weights.tensor->type) refuse("its bias has another type than its weights");
    const bool is_gemm = layer_.kind == Layer::Kind::gemm;
    const std::int64_t last = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
    if (shape.rank() > (is_gemm ? 2 : 1) || batchnorm::element_count(shape) == 0 ||
        (last != channels && (!is_gemm || last != 1))) {
      refuse("its bias has shape " + to_string(shape));
    } else if (shape.rank() == 2) {
      layer_.bias_shape = {shape[0], channels};
    } else if (!is_gemm && shape.rank() != 1) {
      refuse("its bias has shape " + to_string(shape));
    }
  }

  const onnx::Model& model_;
  const onnx::Graph& graph_;
  onnx::Values& values_;
  Layer layer_;
};

/// The elements of a tensor as a file holds them. An element that is not finite where it was before is noted.
template <Element T>
class RawData {
 public:
  void add(double value, bool was_finite) {
    const T element = batchnorm::folding::rounded<T>(value);
    is_finite = is_finite && (!was_finite || std::isfinite(batchnorm::folding::widened(element)));
    char bytes[sizeof(T)];
    std::memcpy(bytes, &element, sizeof(T));
    text.append(bytes, sizeof(T));
  }

  std::string text{};
  bool is_finite = true;
};

}  // namespace detail

/// What the layer's tensors become, as raw_data.
struct FoldedTensors {
  std::string weights, bias;
  bool is_finite = true;  ///< what was finite still is
};

/// W' = factor W and B' = factor beta B + shift in double, each rounded once to the type of the weights.
///   original_bias   of that type; null where the layer has none
inline FoldedTensors folded(const Layer& layer, const AnyTensor& original_weights, const AnyTensor* original_bias,
                            const batchnorm::AffineMap& map) {
  const auto fold = [&]<class T>(const Tensor<T>& weights) {
    detail::RawData<T> folded_weights, folded_bias;
    const auto at = [](std::int64_t c) { return static_cast<std::size_t>(c); };
    for (std::int64_t i = 0; i < weights.size(); ++i) {
      const double weight = batchnorm::folding::widened(weights[i]);
      folded_weights.add(map.factor[at(layer.channel_of(i))] * weight, std::isfinite(weight));
    }
    const Tensor<T> zero(batchnorm::Shape{1});
    const Tensor<T>& bias = original_bias != nullptr ? std::get<Tensor<T>>(*original_bias) : zero;
    const std::int64_t channels = layer.channels();
    const std::int64_t rows = batchnorm::element_count(layer.bias_shape) / channels, columns = bias.size() / rows;
    for (std::int64_t i = 0; i < rows * channels; ++i) {
      const std::int64_t c = i % channels;
      const double b = batchnorm::folding::widened(bias[i / channels * columns + (columns == 1 ? 0 : c)]);
      // beta of 0 switches a bias off, whatever it is.
      const double added = layer.beta == 0 ? 0 : static_cast<double>(layer.beta) * b;
      folded_bias.add(std::fma(map.factor[at(c)], added, map.shift[at(c)]), std::isfinite(b));
    }
    return FoldedTensors{std::move(folded_weights.text), std::move(folded_bias.text),
                         folded_weights.is_finite && folded_bias.is_finite};
  };
  return std::visit(fold, original_weights);
}

}  // namespace onnx_tool
