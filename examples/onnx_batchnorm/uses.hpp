// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "onnx/model.hpp"

namespace onnx_tool {

/// How often each tensor of a model is used: by nodes, those of inner graphs too, as an output of a graph, and by notes about
/// its quantization.
class Uses {
 public:
  explicit Uses(const onnx::Model& model) {
    for (const onnx::Graph& graph : model.graphs) {
      for (const onnx::Node& node : graph.nodes) {
        for (const std::string_view input : node.inputs) add(graph, input);
        for (const std::string_view output : node.outputs) names_.insert(output);
      }
      for (const std::string_view output : graph.outputs) add(graph, output);
      for (const auto& [name, tensor] : graph.initializers) names_.insert(name);
      for (const auto& [name, declaration] : graph.declarations) names_.insert(name);
      names_.insert(graph.inputs.begin(), graph.inputs.end());
      names_.insert(graph.sparse.begin(), graph.sparse.end());
      if (!graph.is_function || graph.outer != nullptr) add_annotations(graph);
    }
  }

  std::int64_t count(const onnx::Graph& graph, std::string_view name) const {
    const auto found = counts_.find({owner(graph, name), name});
    return found == counts_.end() ? 0 : found->second;
  }

  /// A name that the model does not have; it has it from then on.
  std::string new_name(std::string_view like) {
    constexpr std::size_t longest = 100;
    const std::string begin = std::string(like.size() <= longest ? like : "tensor") + "_folded";
    std::string name = begin;
    while (names_.contains(name)) name = begin + "_" + std::to_string(++number_);
    names_.insert(given_.emplace_back(name));
    return name;
  }

 private:
  using Key = std::pair<const onnx::Graph*, std::string_view>;

  /// The graph that gives the name its value; null where none does.
  static const onnx::Graph* owner(const onnx::Graph& graph, std::string_view name) {
    for (const onnx::Graph* scope = &graph; scope != nullptr; scope = scope->outer) {
      if (scope->producers.contains(name) || scope->initializers.contains(name) || scope->inputs.contains(name) ||
          scope->sparse.contains(name)) {
        return scope;
      }
    }
    return nullptr;
  }

  void add(const onnx::Graph& graph, std::string_view name) {
    names_.insert(name);
    ++counts_[{owner(graph, name), name}];
  }

  /// GraphProto: quantization_annotation 14; TensorAnnotation: tensor_name 1.
  void add_annotations(const onnx::Graph& graph) {
    onnx::for_each_field(graph.message, "GraphProto", [&](const onnx::Field& field) {
      if (field.number != 14) return;
      onnx::for_each_field(field.nested(), "TensorAnnotation", [&](const onnx::Field& part) {
        if (part.number == 1) add(graph, part.string());
      });
    });
  }

  std::map<Key, std::int64_t> counts_;
  std::set<std::string_view> names_;
  std::deque<std::string> given_;
  std::int64_t number_ = 0;
};

}  // namespace onnx_tool
