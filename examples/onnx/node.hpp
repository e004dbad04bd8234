// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "protobuf.hpp"

// Nodes and their attributes. All views the bytes of the file. The fields' numbers are those of onnx.proto.
namespace onnx {

/// A named constant of a node.
struct Attribute {
  std::string_view name{};
  std::int64_t type = 0;  ///< AttributeProto.AttributeType; 0 in files older than it
  std::optional<float> f{};
  std::optional<std::int64_t> i{};
  std::optional<Bytes> t{};
  std::string_view reference{};  ///< in a function: the name of the function's attribute that it stands for
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
      case 5:
        if (attribute.t) fail_at(field.position, "an attribute has a second tensor");
        attribute.t = field.nested();
        break;
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
  Bytes message{};
  std::size_t position = 0;  ///< of the field that holds the message
  bool has_graphs = false;   ///< in its attributes

  /// An operator of ONNX itself.
  bool is(std::string_view type) const noexcept { return op_type == type && (domain.empty() || domain == "ai.onnx"); }
};

inline Node parse_node(const Field& field) {
  Node node{.message = field.nested(), .position = field.position};
  for_each_field(node.message, "NodeProto", [&](const Field& part) {
    switch (part.number) {
      case 1: node.inputs.push_back(part.string()); break;
      case 2: node.outputs.push_back(part.string()); break;
      case 3: node.name = part.string(); break;
      case 4: node.op_type = part.string(); break;
      case 5: node.attributes.push_back(part.nested()); break;
      case 7: node.domain = part.string(); break;
      default: break;
    }
  });
  return node;
}

/// It reads all attributes: once for a node, not once for each that refers to it.
inline std::optional<Attribute> find_attribute(const Node& node, std::string_view name) {
  for (const Bytes& bytes : node.attributes) {
    Attribute attribute = parse_attribute(bytes);
    if (attribute.name == name) return attribute;
  }
  return std::nullopt;
}

}  // namespace onnx
