// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "checks.hpp"
#include "digits.hpp"
#include "onnx/batch_normalization.hpp"

// A model's batch norms in words.
namespace onnx_tool {

/// "node 3 'block/bn' of graph 'then'", as messages name a node.
inline std::string name_of(const onnx::BatchNormalization& norm, std::size_t index) {
  std::string text = "node " + std::to_string(index);
  if (!norm.node->name.empty()) text += " " + onnx::quoted(norm.node->name);
  if (!norm.graph->place.empty()) text += " of " + norm.graph->place;
  return text;
}

/// Where an input of a node comes from, in a few words.
inline std::string origin_of(const onnx::Value& value) {
  switch (value.source) {
    case onnx::Source::absent: return "left out";
    case onnx::Source::input: return "an input of the graph";
    case onnx::Source::initializer: return "an initializer";
    case onnx::Source::constant: return "a node Constant";
    case onnx::Source::sparse: return "a sparse constant";
    case onnx::Source::computed: return "computed by a node " + onnx::printable(value.op_type);
    case onnx::Source::unknown: return "nowhere in the model";
  }
  return "";
}

namespace detail {

/// "float32 [64], ", as far as the model says.
inline std::string type_and_shape(const onnx::Value& value) {
  if (value.tensor != nullptr) {
    return onnx::to_string(value.tensor->type) + " " + to_string(onnx::shape_of(*value.tensor)) + ", ";
  }
  const onnx::Declaration* declared = value.declaration;
  if (declared == nullptr || declared->type == onnx::DataType{}) return "";
  return onnx::to_string(declared->type) + (declared->shape ? " " + *declared->shape : "") + ", ";
}

/// The number of channels, where a parameter in the model has it.
inline std::string channels_of(const onnx::BatchNormalization& norm) {
  for (const onnx::Value& value : norm.inputs) {
    if (value.tensor == nullptr || value.tensor->extents.empty()) continue;
    if (value.tensor->rank == 1 || !norm.is_spatial) return std::to_string(value.tensor->extents[0]);
  }
  return "not told";
}

inline void append_input(std::string& text, std::string_view role, const onnx::Value& value) {
  text.append("    ").append(role).append(" ").append(onnx::quoted(value.name)).append(": ");
  text += type_and_shape(value) + origin_of(value);
  if (value.tensor == nullptr) return;
  text.append(" (").append(value.tensor->storage.name).append(")");
  if (value.tensor->storage == onnx::storages::external_data) text += ", which is not read";
}

/// The constants hold the values that they should; each is looked at once, however many nodes refer to it.
inline void check_constants(const std::vector<onnx::BatchNormalization>& norms) {
  std::set<const onnx::TensorProto*> checked;
  for (const onnx::BatchNormalization& norm : norms) {
    for (const onnx::Value& value : norm.inputs) {
      if (value.tensor == nullptr || value.tensor->storage == onnx::storages::external_data) continue;
      if (checked.insert(value.tensor).second) onnx::check_values(*value.tensor);
    }
  }
}

}  // namespace detail

/// A line for each node, and one for each of its inputs and outputs.
/// @throws onnx::FormatError   a constant is malformed
inline std::string describe(const std::vector<onnx::BatchNormalization>& norms) {
  detail::check_constants(norms);
  std::string text = std::to_string(norms.size()) + (norms.size() == 1 ? " node" : " nodes") + " BatchNormalization\n";
  for (std::size_t i = 0; i < norms.size(); ++i) {
    const onnx::BatchNormalization& norm = norms[i];
    text += name_of(norm, i) + ": opset " + std::to_string(norm.graph->opset) + ", channels " + detail::channels_of(norm) +
            ", epsilon " + to_string(norm.epsilon) + ", momentum " + to_string(norm.momentum) +
            (norm.is_training ? ", training" : ", inference") + (norm.is_spatial ? "\n" : ", statistics for each position\n");
    if (const std::string problem = problem_of(norm, known_of(norm)); !problem.empty()) {
      text += "    cannot be run: " + problem + "\n";
    }
    for (std::size_t k = 0; k < norm.inputs.size(); ++k) {
      detail::append_input(text, onnx::input_names[k], norm.inputs[k]);
      text += "\n";
    }
    for (const std::string_view output : norm.node->outputs) text += "    output " + onnx::quoted(output) + "\n";
  }
  return text;
}

}  // namespace onnx_tool
