// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <batchnorm/format.hpp>

// As much of ONNX's files as its BatchNormalization tests need: float tensors, and one node with its attributes. The fields'
// numbers are those of onnx.proto3; anything malformed is a std::runtime_error.
namespace support::onnx {

/// One field of a protobuf message: a varint or fixed number, or the bytes of a string, message or packed array.
struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;
  std::string_view bytes;
};

/// Walks over the fields of a message.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    field = {key >> 3, 0, {}};
    switch (key & 7) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.value = fixed(4); break;
      default: throw std::runtime_error("protobuf: unknown wire type " + std::to_string(key & 7));
    }
    return true;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    throw std::runtime_error("protobuf: a varint of more than 10 bytes");
  }

  bool at_end() const { return rest_.empty(); }

 private:
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size()) throw std::runtime_error("protobuf: truncated");
    const std::string_view result = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(result.size());
    return result;
  }
  std::uint64_t fixed(std::size_t size) {
    std::uint64_t value = 0;  // little endian, as the machines that these tests run on
    std::memcpy(&value, take(size).data(), size);
    return value;
  }

  std::string_view rest_;
};

template <class Visit>
void for_each_field(std::string_view message, Visit&& visit) {
  Message fields(message);
  for (Field field; fields.next(field);) visit(field);
}

struct Tensor {
  std::string name;
  std::vector<std::int64_t> extents;
  std::vector<float> values;
};

inline void append_floats(std::vector<float>& values, std::string_view bytes) {
  if (bytes.size() % sizeof(float) != 0) throw std::runtime_error("onnx: floats of a broken size");
  const std::size_t before = values.size();
  values.resize(before + bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(values.data() + before, bytes.data(), bytes.size());
}

/// TensorProto: dims 1, data_type 2 (1 is float), float_data 4, name 8, raw_data 9.
inline Tensor parse_tensor(std::string_view bytes) {
  Tensor tensor;
  std::uint64_t type = 0;
  for_each_field(bytes, [&](const Field& field) {
    if (field.number == 1 && field.bytes.empty()) tensor.extents.push_back(static_cast<std::int64_t>(field.value));
    if (field.number == 1) {
      for (Message packed(field.bytes); !packed.at_end();) tensor.extents.push_back(static_cast<std::int64_t>(packed.varint()));
    }
    if (field.number == 2) type = field.value;
    if (field.number == 4 || field.number == 9) append_floats(tensor.values, field.bytes);
    if (field.number == 8) tensor.name = field.bytes;
  });
  if (type != 1) throw std::runtime_error("onnx: tensor '" + tensor.name + "' is not of type float");
  const std::int64_t count = batchnorm::element_count(batchnorm::Shape(tensor.extents));
  if (count != static_cast<std::int64_t>(tensor.values.size())) {
    throw std::runtime_error("onnx: tensor '" + tensor.name + "' does not hold as many values as its shape says");
  }
  return tensor;
}

/// A model of one node: its inputs by name, the values of those that the model holds, its number attributes.
struct Model {
  std::string operator_name;
  std::vector<std::string> node_inputs;
  std::vector<std::string> graph_inputs;  ///< without those that the model holds
  std::map<std::string, Tensor> held;
  std::map<std::string, float> floats;
  std::map<std::string, std::int64_t> integers;
};

/// NodeProto: input 1, op_type 4, attribute 5; AttributeProto: name 1, f 2, i 3.
inline void parse_node(std::string_view bytes, Model& model) {
  if (!model.operator_name.empty()) throw std::runtime_error("onnx: more than one node");
  for_each_field(bytes, [&](const Field& field) {
    if (field.number == 1) model.node_inputs.emplace_back(field.bytes);
    if (field.number == 4) model.operator_name = field.bytes;
    if (field.number != 5) return;
    std::string name;
    for_each_field(field.bytes, [&](const Field& part) {
      if (part.number == 1) name = part.bytes;
      if (part.number == 2) std::memcpy(&model.floats[name], &part.value, sizeof(float));
      if (part.number == 3) model.integers[name] = static_cast<std::int64_t>(part.value);
    });
  });
}

/// ModelProto: graph 7; GraphProto: node 1, initializer 5, input 11 (ValueInfoProto: name 1).
inline Model parse_model(std::string_view bytes) {
  Model model;
  const auto parse_graph = [&](const Field& field) {
    if (field.number == 1) parse_node(field.bytes, model);
    if (field.number == 5) {
      Tensor tensor = parse_tensor(field.bytes);
      model.held.emplace(tensor.name, std::move(tensor));
    }
    if (field.number == 11) {
      for_each_field(field.bytes, [&](const Field& part) {
        if (part.number == 1) model.graph_inputs.emplace_back(part.bytes);
      });
    }
  };
  for_each_field(bytes, [&](const Field& field) {
    if (field.number == 7) for_each_field(field.bytes, parse_graph);
  });
  std::erase_if(model.graph_inputs, [&](const std::string& name) { return model.held.contains(name); });
  return model;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// A model and the tensors of its first data set.
struct Case {
  Model model;
  std::map<std::string, Tensor> inputs;  ///< by the node's names
  std::vector<Tensor> outputs;
};

inline Case read_case(const std::string& folder) {
  Case result{parse_model(read_file(folder + "/model.onnx")), {}, {}};
  result.inputs = result.model.held;
  const std::string data = folder + "/test_data_set_0/";
  for (std::size_t i = 0; i < result.model.graph_inputs.size(); ++i) {
    result.inputs[result.model.graph_inputs[i]] = parse_tensor(read_file(data + "input_" + std::to_string(i) + ".pb"));
  }
  for (std::size_t i = 0; std::ifstream(data + "output_" + std::to_string(i) + ".pb").good(); ++i) {
    result.outputs.push_back(parse_tensor(read_file(data + "output_" + std::to_string(i) + ".pb")));
  }
  return result;
}

}  // namespace support::onnx
