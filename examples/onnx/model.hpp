// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "node.hpp"
#include "protobuf.hpp"
#include "tensor.hpp"
#include "text.hpp"

// As much of a model as its nodes of one operator need: those nodes, wherever they stand, and where their inputs come from. All
// views the bytes of the file. The fields' numbers are those of onnx.proto.
//
// What a file costs: each of its bytes is looked at once for each of the few passes over the message that it is in, and each
// name is looked up once in each graph around it, so the time is that of sorting the file. What is kept is less than 200 bytes
// for each byte of the file: an object of a few hundred bytes for each graph, node, attribute, name or tensor that is not
// empty, however many refer to it.
namespace onnx {

/// What a model says about a tensor that it does not hold.
struct Declaration {
  DataType type{};                     ///< 0 where it says nothing
  std::optional<std::string> shape{};  ///< "[N, 3, 224, 224]", shortened where it is long
};

/// A graph, the body of a branch or loop, or that of a function.
struct Graph {
  std::string place{};           ///< "" for the model's own graph, otherwise "graph 'then'" or "function 'Block'"
  const Graph* outer = nullptr;  ///< whose names can be seen here, too
  std::int64_t opset = 0;        ///< of ONNX's own operators; 0 where the model imports none
  bool is_function = false;      ///< of a function, or within one
  Bytes message{};
  std::map<std::string_view, TensorProto> initializers{};
  std::map<std::string_view, Bytes> declarations{};     ///< ValueInfoProto
  std::map<std::string_view, const Node*> producers{};  ///< by the names of their outputs
  std::set<std::string_view> inputs{}, outputs{};
  std::set<std::string_view> sparse{};  ///< names of sparse initializers
  std::vector<Node> nodes{};            ///< but for empty ones
};

/// A model's graphs: its own, those of its functions, and those within these, each after the one that it is in.
struct Model {
  Bytes message{};
  std::int64_t ir_version = 0;
  bool has_training_info = false;
  std::deque<Graph> graphs{};
};

namespace detail {

class ModelParser {
 public:
  Model parse(Bytes bytes) {
    bool has_graph = false;
    model_.message = bytes;
    const std::int64_t opset = imported_opset(bytes, "ModelProto", 8);
    for_each_field(bytes, "ModelProto", [&](const Field& field) {
      if (field.number == 1) model_.ir_version = field.integer();
      if (field.number == 20) model_.has_training_info = true;
      if (field.number == 7) {
        if (std::exchange(has_graph, true)) fail_at(field.position, "the model has a second graph");
        parse_graph(field.nested(), {.opset = opset}, 0);
      }
      if (field.number == 25) parse_function(field.nested());
    });
    if (!has_graph) throw FormatError("it is no model: it has no graph");
    return std::move(model_);
  }

 private:
  /// The version of ONNX's own operators among OperatorSetIdProto: domain 1, version 2. Before these existed it was 1.
  static std::int64_t imported_opset(Bytes bytes, std::string_view message, std::uint64_t number) {
    std::int64_t opset = 1;
    bool others = false, found = false;
    for_each_field(bytes, message, [&](const Field& field) {
      if (field.number != number) return;
      std::string_view domain;
      std::int64_t version = 0;
      for_each_field(field.nested(), "OperatorSetIdProto", [&](const Field& part) {
        if (part.number == 1) domain = part.string();
        if (part.number == 2) version = part.integer();
      });
      const bool own = domain.empty() || domain == "ai.onnx";
      if (own) opset = found ? std::max(opset, version) : version;
      (own ? found : others) = true;
    });
    return others && !found ? 0 : opset;
  }

  void parse_graph(Bytes bytes, Graph begin, int depth) {
    // Each level is a few calls on the stack.
    constexpr int deepest = 32;
    if (depth > deepest) {
      fail_at(bytes.position, "graphs are nested more than " + std::to_string(deepest) + " deep");
    }
    Graph& graph = model_.graphs.emplace_back(std::move(begin));
    graph.message = bytes;
    graph.nodes.reserve(count_nodes(bytes, "GraphProto", 1));
    std::vector<Bytes> inner;
    for_each_field(bytes, "GraphProto", [&](const Field& field) {
      switch (field.number) {
        case 1: add_node(graph, field, inner); break;
        case 2:
          if (depth > 0) graph.place = "graph " + quoted(field.string());
          break;
        case 5: add_initializer(graph, field); break;
        case 11: graph.inputs.insert(declare(graph, field.nested())); break;
        case 12: graph.outputs.insert(declare(graph, field.nested())); break;
        case 13: declare(graph, field.nested()); break;
        case 15: graph.sparse.insert(sparse_name(field.nested())); break;
        default: break;
      }
    });
    parse_inner(inner, graph, depth);
  }

  void parse_inner(const std::vector<Bytes>& inner, const Graph& graph, int depth) {
    for (const Bytes& body : inner) {
      parse_graph(body, {.place = "a graph", .outer = &graph, .opset = graph.opset, .is_function = graph.is_function},
                  depth + 1);
    }
  }

  /// Its nodes must not move when there are more: others point to them.
  static std::size_t count_nodes(Bytes bytes, std::string_view message, std::uint64_t number) {
    std::size_t count = 0;
    for_each_field(bytes, message, [&](const Field& field) {
      if (field.number == number && !field.nested().text.empty()) ++count;
    });
    return count;
  }

  /// FunctionProto: name 1, input 4, output 5, node 7, opset_import 9. It sees no names but its own.
  void parse_function(Bytes bytes) {
    Graph& graph = model_.graphs.emplace_back();
    graph.message = bytes;
    graph.is_function = true;
    graph.opset = imported_opset(bytes, "FunctionProto", 9);
    graph.nodes.reserve(count_nodes(bytes, "FunctionProto", 7));
    std::vector<Bytes> inner;
    for_each_field(bytes, "FunctionProto", [&](const Field& field) {
      if (field.number == 1) graph.place = "function " + quoted(field.string());
      if (field.number == 4) graph.inputs.insert(field.string());
      if (field.number == 5) graph.outputs.insert(field.string());
      if (field.number == 7) add_node(graph, field, inner);
    });
    parse_inner(inner, graph, 0);
  }

  static void add_node(Graph& graph, const Field& field, std::vector<Bytes>& inner) {
    if (field.nested().text.empty()) return;
    Node& node = graph.nodes.emplace_back(parse_node(field));
    for (const Bytes& attribute : node.attributes) {
      for_each_field(attribute, "AttributeProto", [&](const Field& part) {
        if ((part.number == 6 || part.number == 11) && !part.nested().text.empty()) {
          inner.push_back(part.nested());
          node.has_graphs = true;
        }
      });
    }
    for (const std::string_view output : node.outputs) {
      if (output.empty()) continue;
      if (!graph.producers.emplace(output, &node).second) {
        fail_at(node.message.position, "two nodes put out " + quoted(output));
      }
    }
  }

  static void add_initializer(Graph& graph, const Field& field) {
    TensorProto tensor = parse_tensor(field.nested());
    const std::string_view name = tensor.name;
    if (!graph.initializers.emplace(name, std::move(tensor)).second) {
      fail_at(field.position, "two initializers have the name " + quoted(name));
    }
  }

  /// ValueInfoProto: name 1.
  static std::string_view declare(Graph& graph, Bytes bytes) {
    std::string_view name;
    for_each_field(bytes, "ValueInfoProto", [&](const Field& field) {
      if (field.number == 1) name = field.string();
    });
    graph.declarations.emplace(name, bytes);
    return name;
  }

  /// SparseTensorProto: values 1, whose name is that of the tensor.
  static std::string_view sparse_name(Bytes bytes) {
    std::string_view name;
    for_each_field(bytes, "SparseTensorProto", [&](const Field& field) {
      if (field.number == 1) name = parse_tensor(field.nested()).name;
    });
    return name;
  }

  Model model_;
};

/// TensorShapeProto: dim 1; Dimension: dim_value 1, dim_param 2. Whoever refers to the tensor prints it: it is kept short.
inline std::string shape_text(Bytes bytes) {
  constexpr std::size_t longest = 200;
  std::string text = "[";
  bool is_cut = false;
  for_each_field(bytes, "TensorShapeProto", [&](const Field& field) {
    if (field.number != 1) return;
    is_cut = text.size() >= longest;
    if (is_cut) return;
    std::string extent = "?";
    for_each_field(field.nested(), "Dimension", [&](const Field& part) {
      if (part.number == 1) extent = std::to_string(part.integer());
      if (part.number == 2 && !part.string().empty()) extent = printable(part.string());
    });
    text.append(text.size() > 1 ? ", " : "").append(extent);
  });
  return text + (is_cut ? ", ...]" : "]");
}

}  // namespace detail

/// The graphs of a ModelProto.
/// @throws FormatError   malformed; two nodes or initializers claim one name; graphs nested too deep
inline Model parse_model(Bytes bytes) { return detail::ModelParser().parse(bytes); }

/// What the graph says about a name: ValueInfoProto: type 2; TypeProto: tensor_type 1; TypeProto.Tensor: elem_type 1, shape 2.
inline Declaration declaration(const Graph& graph, std::string_view name) {
  Declaration result;
  const auto found = graph.declarations.find(name);
  if (found == graph.declarations.end()) return result;
  for_each_field(found->second, "ValueInfoProto", [&](const Field& info) {
    if (info.number != 2) return;
    for_each_field(info.nested(), "TypeProto", [&](const Field& type) {
      if (type.number != 1) return;
      for_each_field(type.nested(), "TypeProto.Tensor", [&](const Field& part) {
        if (part.number == 1) result.type = static_cast<DataType>(part.integer());
        if (part.number == 2) result.shape = detail::shape_text(part.nested());
      });
    });
  });
  return result;
}

}  // namespace onnx
