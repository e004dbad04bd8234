// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model.hpp"
#include "text.hpp"
#include "values.hpp"

// The nodes BatchNormalization of a model, in whichever version of the operator.
namespace onnx {

/// The inputs' names in opset 15 are X, scale, B, input_mean, input_var; older ones call the last two mean and var.
inline constexpr std::array<std::string_view, 5> input_names{"X", "scale", "B", "mean", "var"};

struct BatchNormalization {
  const Graph* graph = nullptr;
  const Node* node = nullptr;
  float epsilon = 1e-5F;
  float momentum = 0.9F;
  bool is_training = false;
  bool is_spatial = true;  ///< one statistic for each channel; otherwise one for each channel and position, [C, D1, ...]
  std::array<Value, 5> inputs{};
  std::string problem{};  ///< why the node cannot be run; empty where it can
};

namespace detail {

/// Reads the attributes and inputs of one node. What does not fit the operator is noted as the node's problem.
class BatchNormalizationReader {
 public:
  BatchNormalizationReader(const Graph& graph, const Node& node, Values& values) : values_(values) {
    result_.graph = &graph;
    result_.node = &node;
  }

  BatchNormalization read() {
    const std::int64_t opset = result_.graph->opset;
    const std::vector<std::string_view>& outputs = result_.node->outputs;
    if (opset < 1) refuse("the model imports no version of ONNX's operators");
    // Before training_mode, training was asked for by asking for the statistics; before that, by is_test.
    if (opset < 14) {
      result_.is_training = opset < 7 || std::any_of(outputs.begin() + (outputs.empty() ? 0 : 1), outputs.end(),
                                                     [](std::string_view name) { return !name.empty(); });
    }
    for (const Bytes& bytes : result_.node->attributes) read_attribute(parse_attribute(bytes));
    if (result_.is_training && !momentum_problem_.empty()) refuse(momentum_problem_);
    const std::vector<std::string_view>& inputs = result_.node->inputs;
    if (inputs.size() != input_names.size()) {
      refuse("it has " + std::to_string(inputs.size()) + " inputs, it must have " + std::to_string(input_names.size()));
    }
    for (std::size_t i = 0; i < std::min(inputs.size(), input_names.size()); ++i) {
      result_.inputs[i] = values_.of(*result_.graph, inputs[i]);
    }
    return std::move(result_);
  }

 private:
  void refuse(const std::string& why) {
    if (result_.problem.empty()) result_.problem = why;
  }

  void read_attribute(const Attribute& attribute) {
    const std::int64_t opset = result_.graph->opset;
    const std::string name = "its attribute " + quoted(attribute.name);
    if (!attribute.reference.empty()) {
      const std::string why = name + " is that of the function's caller, " + quoted(attribute.reference);
      if (attribute.name != "momentum") return refuse(why);
      momentum_problem_ = why;  // inference has no use for it
      return;
    }
    if (attribute.name == "epsilon") return read_float(attribute, result_.epsilon);
    if (attribute.name == "momentum") return read_float(attribute, result_.momentum);
    if (attribute.name == "training_mode" && opset >= 14) {
      result_.is_training = read_int(attribute) != 0;
    } else if (attribute.name == "is_test" && opset < 7) {
      result_.is_training = read_int(attribute) == 0;
    } else if (attribute.name == "spatial" && opset < 9) {
      result_.is_spatial = read_int(attribute) != 0;
    } else if (attribute.name != "consumed_inputs" || opset >= 6) {
      refuse(name + " does not exist in opset " + std::to_string(opset));
    }
  }

  /// A number that is 0 may be left out of the file; then its type shows that it is one.
  void read_float(const Attribute& attribute, float& value) {
    const bool typed = attribute.type == Attribute::type_float;
    if (typed || (attribute.type == 0 && attribute.f)) {
      value = attribute.f.value_or(0.0F);
    } else {
      refuse("its attribute " + quoted(attribute.name) + " is no float");
    }
  }

  std::int64_t read_int(const Attribute& attribute) {
    const bool typed = attribute.type == Attribute::type_int;
    if (typed || (attribute.type == 0 && attribute.i)) return attribute.i.value_or(0);
    refuse("its attribute " + quoted(attribute.name) + " is no integer");
    return 0;
  }

  Values& values_;
  BatchNormalization result_;
  std::string momentum_problem_;
};

}  // namespace detail

/// The nodes BatchNormalization of all graphs, in the order of the file. They view the model and `values`.
/// @throws FormatError   malformed
inline std::vector<BatchNormalization> batch_normalizations(const Model& model, Values& values) {
  std::vector<BatchNormalization> result;
  for (const Graph& graph : model.graphs) {
    for (const Node& node : graph.nodes) {
      if (node.is("BatchNormalization")) result.push_back(detail::BatchNormalizationReader(graph, node, values).read());
    }
  }
  return result;
}

}  // namespace onnx
