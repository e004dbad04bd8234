// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_files.hpp"

// Models whose batch norms can be folded. All numbers are small multiples of powers of two, so that every sum and product of
// the layers is exact before and after: epsilon 0.25 + variance 3.75 or 0.75 have the roots 2 and 1.
namespace support {

/// A graph that grows node by node.
class FoldModel {
 public:
  /// A tensor of small random numbers.
  template <class T = float>
  FoldModel& tensor(std::string_view name, const Extents64& extents) {
    std::int64_t count = 1;
    for (const std::int64_t extent : extents) count *= extent;
    Doubles values;
    for (std::int64_t i = 0; i < count; ++i) values.push_back(std::uniform_int_distribution<int>(-4, 4)(random_));
    return add(tensor_proto<T>(name, extents, values));
  }

  FoldModel& add(const Proto& initializer) {
    initializers_.push_back(initializer);
    return *this;
  }

  FoldModel& node(std::string_view type, const Names& inputs, std::string_view output,
                  const std::vector<Proto>& attributes = {}) {
    nodes_.push_back(node_proto(type, std::string(type) + "_" + std::string(output), inputs, {output}, attributes));
    return *this;
  }

  /// A batch norm of x to y with parameters of its own.
  template <class T = float>
  FoldModel& norm(std::string_view x, std::string_view y, std::int64_t channels) {
    const std::string of(y);
    Doubles variance, scale;
    for (std::int64_t c = 0; c < channels; ++c) {
      variance.push_back(c % 2 == 0 ? 3.75 : 0.75);
      scale.push_back(static_cast<double>(c % 3 - 1));
    }
    tensor<T>(of + "_bias", {channels});
    tensor<T>(of + "_mean", {channels});
    add(tensor_proto<T>(of + "_scale", {channels}, scale)).add(tensor_proto<T>(of + "_variance", {channels}, variance));
    const std::string names[] = {of + "_scale", of + "_bias", of + "_mean", of + "_variance"};
    return node("BatchNormalization", {x, names[0], names[1], names[2], names[3]}, y, {float_attribute("epsilon", 0.25F)});
  }

  FoldModel& output(std::string_view name) {
    outputs_.push_back(value_info(name, onnx::DataType::float32, {-1}));
    return *this;
  }

  /// Every node in turn, then the rest with a field that no version of ONNX has.
  Proto model(std::int64_t opset = 15) const {
    Proto graph;
    for (const Proto& node : nodes_) graph.bytes(graph_field::node, node);
    graph.bytes(graph_field::name, "main").bytes(99, "unknown");
    for (const Proto& tensor : initializers_) graph.bytes(graph_field::initializer, tensor);
    graph.bytes(graph_field::input, value_info("x", onnx::DataType::float32, {-1}));
    for (const Proto& output : outputs_) graph.bytes(graph_field::output, output);
    return model_proto(opset, graph).bytes(77, "unknown, too");
  }

 private:
  std::mt19937 random_{1};
  std::vector<Proto> nodes_, initializers_, outputs_;
};

/// Every kind of layer: groups, both orders of a Gemm's weights, with and without a bias, a chain, shared weights.
template <class T = float>
Proto foldable_model() {
  FoldModel model;
  const auto floats = [](std::string_view name, float value) { return float_attribute(name, value); };
  model.tensor<T>("w1", {4, 2, 2}).template tensor<T>("b1", {4});
  model.node("Conv", {"x", "w1", "b1"}, "c1", {int_attribute("group", 2)})
      .template norm<T>("c1", "n1", 4)
      .node("Relu", {"n1"}, "r1");
  model.tensor<T>("w2", {4, 3, 2}).node("ConvTranspose", {"r1", "w2"}, "c2", {int_attribute("group", 2)});
  model.norm<T>("c2", "n2", 6).template norm<T>("n2", "n3", 6);
  model.tensor<T>("w3", {6, 6, 1}).node("Conv", {"n3", "w3"}, "c3").template norm<T>("c3", "n4", 6);
  model.node("Conv", {"n4", "w3", ""}, "c4").template norm<T>("c4", "y", 6);
  model.tensor<T>("w4", {3, 4}).template tensor<T>("b4", {1});
  model.node("Gemm", {"x", "w4", "b4"}, "g1", {int_attribute("transB", 1), floats("alpha", 0.5F), floats("beta", 2)});
  model.norm<T>("g1", "n5", 3);
  model.tensor<T>("w5", {3, 2}).node("Gemm", {"n5", "w5"}, "g2", {floats("beta", 4)}).template norm<T>("g2", "z", 2);
  return model.output("y").output("z").model();
}

}  // namespace support
