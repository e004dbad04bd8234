// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

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
  std::string_view name{};                   ///< where it comes from; an Identity may give it another
  const Graph* graph = nullptr;              ///< that knows the name
  const TensorProto* tensor = nullptr;       ///< of an initializer or constant
  std::string_view op_type{};                ///< of the node that computes it
  const Declaration* declaration = nullptr;  ///< what the graph that asked says, if anything
};

/// The values that the nodes of a model refer to. Each name is looked up once in each graph, whoever refers to it.
class Values {
 public:
  /// The value of a node's input, through nodes Identity: exporters put them where several nodes share a constant. It views
  /// the graphs and this object.
  /// @throws FormatError   malformed
  Value of(const Graph& graph, std::string_view input) {
    if (input.empty()) return {.source = Source::absent};
    Value value = find(graph, input);
    value.declaration = declaration_of(graph, input);
    return value;
  }

 private:
  using Key = std::pair<const Graph*, std::string_view>;

  struct Constant {
    std::optional<TensorProto> tensor{};
    bool is_sparse = false;
  };

  Value find(const Graph& graph, std::string_view input) {
    std::vector<std::map<Key, Value>::iterator> path;
    Value value;
    const Graph* scope = &graph;
    std::string_view name = input;
    for (bool is_new_name = true; scope != nullptr;) {
      if (is_new_name) {
        // What is on the way counts as unknown: a circle of nodes Identity ends there.
        const auto [entry, is_new] = values_.try_emplace(Key(scope, name));
        if (!is_new) {
          value = entry->second;
          break;
        }
        path.push_back(entry);
      }
      const auto before = renamed(*scope, name);
      is_new_name = before.has_value();
      if (before) {
        name = *before;
      } else if (std::optional<Value> found = value_in(*scope, name)) {
        value = *found;
        break;
      } else {
        scope = scope->outer;
      }
    }
    for (const auto& entry : path) {
      entry->second = value;
      if (value.source == Source::unknown) entry->second.name = entry->first.second;
    }
    if (value.source == Source::unknown) value.name = input;
    return value;
  }

  /// What a node Identity of the graph puts out as `name`, under the name that it has there.
  static std::optional<std::string_view> renamed(const Graph& graph, std::string_view name) {
    const auto found = graph.producers.find(name);
    if (found == graph.producers.end() || graph.initializers.contains(name)) return std::nullopt;
    const Node& node = *found->second;
    if (!node.is("Identity") || node.inputs.size() != 1) return std::nullopt;
    return node.inputs[0];
  }

  /// The value of a name that this graph itself knows.
  std::optional<Value> value_in(const Graph& graph, std::string_view name) {
    if (const auto found = graph.initializers.find(name); found != graph.initializers.end()) {
      return Value{.source = Source::initializer, .name = name, .graph = &graph, .tensor = &found->second};
    }
    if (graph.sparse.contains(name)) return Value{.source = Source::sparse, .name = name, .graph = &graph};
    if (const auto found = graph.producers.find(name); found != graph.producers.end()) {
      Value value = produced_value(*found->second, name);
      value.graph = &graph;
      return value;
    }
    if (graph.inputs.contains(name)) return Value{.source = Source::input, .name = name, .graph = &graph};
    return std::nullopt;
  }

  Value produced_value(const Node& node, std::string_view name) {
    // A node of many outputs would be read for each of them; a Constant has one.
    if (!node.is("Constant") || node.outputs.size() != 1) {
      return {.source = Source::computed, .name = name, .op_type = node.op_type};
    }
    const auto [entry, is_new] = constants_.try_emplace(&node);
    Constant& constant = entry->second;
    if (is_new) {
      constant.is_sparse = find_attribute(node, "sparse_value").has_value();
      if (!constant.is_sparse) constant.tensor = constant_tensor(node);
      if (constant.tensor) constant.tensor->name = name;
    }
    if (constant.is_sparse) return {.source = Source::sparse, .name = name};
    if (!constant.tensor) return {.source = Source::computed, .name = name, .op_type = node.op_type};
    return {.source = Source::constant, .name = name, .tensor = &*constant.tensor};
  }

  /// The tensor of a Constant node, if its attribute is a dense tensor or floats.
  static std::optional<TensorProto> constant_tensor(const Node& node) {
    if (const auto value = find_attribute(node, "value"); value && value->t) return parse_tensor(*value->t);
    for (const Storage& storage : {storages::value_float, storages::value_floats}) {
      const auto floats = find_attribute(node, storage.name);
      if (!floats) continue;
      TensorProto tensor{.type = DataType::float32, .storage = storage, .message = floats->message};
      std::int64_t bytes = 0;
      detail::for_each_piece(tensor, [&](std::string_view piece) { bytes += static_cast<std::int64_t>(piece.size()); });
      if (storage == storages::value_floats) tensor.add_extent(bytes / size_of(tensor.type));
      return tensor;
    }
    return std::nullopt;
  }

  const Declaration* declaration_of(const Graph& graph, std::string_view name) {
    const auto [entry, is_new] = declarations_.try_emplace(Key(&graph, name));
    if (is_new) entry->second = declaration(graph, name);
    return &entry->second;
  }

  std::map<Key, Value> values_;
  std::map<Key, Declaration> declarations_;
  std::map<const Node*, Constant> constants_;
};

}  // namespace onnx
