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

#include "protobuf.hpp"
#include "tensor.hpp"
#include "text.hpp"

// As much of a model as its nodes of one operator need: those nodes, wherever they stand, and where their inputs come from. All
// views the bytes of the file. The fields' numbers are those of onnx.proto.
namespace onnx {

/// A named constant of a node.
struct Attribute {
  std::string_view name{};
  std::int64_t type = 0;  ///< AttributeProto.AttributeType; 0 in files older than it
  std::optional<float> f{};
  std::optional<std::int64_t> i{};
  std::optional<Bytes> t{};
  std::string_view reference{};  ///< in a function: the name of the function's attribute that it stands for
  std::vector<Bytes> graphs{};
  Bytes message{};

  // The values of type.
  static constexpr std::int64_t type_float = 1, type_int = 2, type_floats = 6;
};

inline Attribute parse_attribute(Bytes bytes) {
  Attribute attribute{.message = bytes};
  for_each_field(bytes, "AttributeProto", [&](const Field& field) {
    switch (field.number) {
      case 1: attribute.name = field.string(); break;
      case 2: attribute.f = field.float32(); break;
      case 3: attribute.i = field.integer(); break;
      case 5: attribute.t = field.nested(); break;
      case 6:
      case 11: attribute.graphs.push_back(field.nested()); break;
      case 20: attribute.type = field.integer(); break;
      case 21: attribute.reference = field.string(); break;
      default: break;
    }
  });
  return attribute;
}

struct Node {
  std::string_view name{}, op_type{}, domain{};
  std::vector<std::string_view> inputs{}, outputs{};  ///< "" is one that is left out
  std::vector<Bytes> attributes{};

  /// An operator of ONNX itself.
  bool is(std::string_view type) const noexcept { return op_type == type && (domain.empty() || domain == "ai.onnx"); }
};

inline Node parse_node(Bytes bytes) {
  Node node;
  for_each_field(bytes, "NodeProto", [&](const Field& field) {
    switch (field.number) {
      case 1: node.inputs.push_back(field.string()); break;
      case 2: node.outputs.push_back(field.string()); break;
      case 3: node.name = field.string(); break;
      case 4: node.op_type = field.string(); break;
      case 5: node.attributes.push_back(field.nested()); break;
      case 7: node.domain = field.string(); break;
      default: break;
    }
  });
  return node;
}

/// What a model says about a tensor that it does not hold.
struct Declaration {
  DataType type{};                     ///< 0 where it says nothing
  std::optional<std::string> shape{};  ///< "[N, 3, 224, 224]"
};

/// A graph, the body of a branch or loop, or that of a function.
struct Graph {
  std::string place{};           ///< "" for the model's own graph, otherwise "graph 'then'" or "function 'Block'"
  const Graph* outer = nullptr;  ///< whose names can be seen here, too
  std::int64_t opset = 0;        ///< of ONNX's own operators; 0 where the model imports none
  std::map<std::string_view, TensorProto> initializers{};
  std::map<std::string_view, Bytes> declarations{};     ///< ValueInfoProto
  std::map<std::string_view, const Node*> producers{};  ///< by the names of their outputs
  std::set<std::string_view> inputs{};
  std::set<std::string_view> sparse{};  ///< names of sparse initializers
  std::deque<Node> nodes{};
};

/// A model's graphs: its own, those of its functions, and those within these, each after the one that it is in.
struct Model {
  std::deque<Graph> graphs{};
};

namespace detail {

class ModelParser {
 public:
  Model parse(Bytes bytes) {
    bool has_graph = false;
    const std::int64_t opset = imported_opset(bytes, "ModelProto", 8);
    for_each_field(bytes, "ModelProto", [&](const Field& field) {
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
    std::vector<Bytes> inner;
    for_each_field(bytes, "GraphProto", [&](const Field& field) {
      switch (field.number) {
        case 1: add_node(graph, field.nested(), inner); break;
        case 2:
          if (depth > 0) graph.place = "graph " + quoted(field.string());
          break;
        case 5: add_initializer(graph, field); break;
        case 11: graph.inputs.insert(declare(graph, field.nested())); break;
        case 12:
        case 13: declare(graph, field.nested()); break;
        case 15: graph.sparse.insert(sparse_name(field.nested())); break;
        default: break;
      }
    });
    for (const Bytes& body : inner) parse_graph(body, {.place = "a graph", .outer = &graph, .opset = graph.opset}, depth + 1);
  }

  /// FunctionProto: name 1, input 4, node 7, opset_import 9. It sees no names but its own.
  void parse_function(Bytes bytes) {
    Graph& graph = model_.graphs.emplace_back();
    graph.opset = imported_opset(bytes, "FunctionProto", 9);
    std::vector<Bytes> inner;
    for_each_field(bytes, "FunctionProto", [&](const Field& field) {
      if (field.number == 1) graph.place = "function " + quoted(field.string());
      if (field.number == 4) graph.inputs.insert(field.string());
      if (field.number == 7) add_node(graph, field.nested(), inner);
    });
    for (const Bytes& body : inner) parse_graph(body, {.place = "a graph", .outer = &graph, .opset = graph.opset}, 1);
  }

  static void add_node(Graph& graph, Bytes bytes, std::vector<Bytes>& inner) {
    Node node = parse_node(bytes);
    for (const Bytes& attribute : node.attributes) {
      const std::vector<Bytes> graphs = parse_attribute(attribute).graphs;
      inner.insert(inner.end(), graphs.begin(), graphs.end());
    }
    graph.nodes.push_back(std::move(node));
    for (const std::string_view output : graph.nodes.back().outputs) {
      if (output.empty()) continue;
      if (!graph.producers.emplace(output, &graph.nodes.back()).second) {
        fail_at(bytes.position, "two nodes put out " + quoted(output));
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

/// TensorShapeProto: dim 1; Dimension: dim_value 1, dim_param 2.
inline std::string shape_text(Bytes bytes) {
  std::string text = "[";
  for_each_field(bytes, "TensorShapeProto", [&](const Field& field) {
    if (field.number != 1) return;
    std::string extent = "?";
    for_each_field(field.nested(), "Dimension", [&](const Field& part) {
      if (part.number == 1) extent = std::to_string(part.integer());
      if (part.number == 2 && !part.string().empty()) extent = printable(part.string());
    });
    text.append(text.size() > 1 ? ", " : "").append(extent);
  });
  return text + "]";
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
