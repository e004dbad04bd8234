// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "model.hpp"
#include "tensor.hpp"

// Where the inputs of a node come from.
namespace onnx {

/// Who gives a tensor its value.
enum class Source {
  absent,       ///< nobody: the node leaves the input out
  input,        ///< who calls the graph
  initializer,  ///< the model
  constant,     ///< the model, by a Constant node
  sparse,       ///< the model, as a sparse tensor
  computed,     ///< another node
  unknown       ///< nothing in the model has that name
};

struct Value {
  Source source = Source::unknown;
  std::string_view name{};
  std::optional<TensorProto> tensor{};  ///< of an initializer or constant
  std::string_view op_type{};           ///< of the node that computes it
  Declaration declaration{};
};

inline std::optional<Attribute> find_attribute(const Node& node, std::string_view name) {
  for (const Bytes& bytes : node.attributes) {
    Attribute attribute = parse_attribute(bytes);
    if (attribute.name == name) return attribute;
  }
  return std::nullopt;
}

namespace detail {

/// The tensor of a Constant node, if its attribute is a dense tensor or floats.
inline std::optional<TensorProto> constant_tensor(const Node& node) {
  if (const auto value = find_attribute(node, "value"); value && value->t) return parse_tensor(*value->t);
  for (const Storage& storage : {storages::value_float, storages::value_floats}) {
    const auto floats = find_attribute(node, storage.name);
    if (!floats) continue;
    TensorProto tensor{.type = DataType::float32, .storage = storage, .message = floats->message};
    std::int64_t bytes = 0;
    for_each_piece(tensor, [&](std::string_view piece) { bytes += static_cast<std::int64_t>(piece.size()); });
    if (storage == storages::value_floats) tensor.extents.push_back(bytes / size_of(tensor.type));
    return tensor;
  }
  return std::nullopt;
}

inline Value produced_value(const Node& node, std::string_view name) {
  if (!node.is("Constant")) return {.source = Source::computed, .name = name, .op_type = node.op_type};
  if (find_attribute(node, "sparse_value")) return {.source = Source::sparse, .name = name};
  std::optional<TensorProto> tensor = constant_tensor(node);
  if (!tensor) return {.source = Source::computed, .name = name, .op_type = node.op_type};
  tensor->name = name;
  return {.source = Source::constant, .name = name, .tensor = std::move(tensor)};
}

/// The value of a name that this graph itself knows; a node Identity is seen through by the caller.
inline std::optional<Value> value_in(const Graph& graph, std::string_view name) {
  if (const auto found = graph.initializers.find(name); found != graph.initializers.end()) {
    return Value{.source = Source::initializer, .name = name, .tensor = found->second};
  }
  if (graph.sparse.contains(name)) return Value{.source = Source::sparse, .name = name};
  if (const auto found = graph.producers.find(name); found != graph.producers.end()) {
    return produced_value(*found->second, name);
  }
  if (graph.inputs.contains(name)) return Value{.source = Source::input, .name = name};
  return std::nullopt;
}

/// What a node Identity of the graph puts out as `name`, under the name that it has there.
inline std::optional<std::string_view> renamed(const Graph& graph, std::string_view name) {
  const auto found = graph.producers.find(name);
  if (found == graph.producers.end() || graph.initializers.contains(name)) return std::nullopt;
  const Node& node = *found->second;
  if (!node.is("Identity") || node.inputs.size() != 1) return std::nullopt;
  return node.inputs[0];
}

}  // namespace detail

/// The value of a node's input, through nodes Identity: exporters put them where several nodes share a constant.
/// @throws FormatError   malformed
inline Value value_of(const Graph& graph, std::string_view input) {
  if (input.empty()) return {.source = Source::absent};
  const Graph* scope = &graph;
  std::string_view name = input;
  // A chain that is longer than any model's may be a circle.
  for (int links = 0; scope != nullptr && links < 64; ++links) {
    if (const auto before = detail::renamed(*scope, name)) {
      name = *before;
      continue;
    }
    if (std::optional<Value> value = detail::value_in(*scope, name)) {
      value->declaration = declaration(graph, input);
      return std::move(*value);
    }
    scope = scope->outer;
  }
  return {.source = Source::unknown, .name = input};
}

}  // namespace onnx
