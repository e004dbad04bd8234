// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <batchnorm/element.hpp>

#include "onnx/model.hpp"
#include "onnx/tensor.hpp"

// Writes as much of ONNX's files as the tests of their reader need, right or wrong.
namespace support {

/// A protocol buffer that grows field by field.
class Proto {
 public:
  Proto& integer(std::uint64_t number, std::int64_t value) {
    varint(number << 3U);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Proto& bytes(std::uint64_t number, std::string_view text) {
    varint(number << 3U | 2U);
    varint(text.size());
    text_ += text;
    return *this;
  }
  Proto& float32(std::uint64_t number, float value) {
    varint(number << 3U | 5U);
    return plain(value);
  }
  Proto& float64(std::uint64_t number, double value) {
    varint(number << 3U | 1U);
    return plain(value);
  }
  Proto& varint(std::uint64_t value) {
    for (; value > 0x7FU; value >>= 7U) text_ += static_cast<char>(value | 0x80U);
    text_ += static_cast<char>(value);
    return *this;
  }
  template <class Number>
  Proto& plain(Number value) {
    char copy[sizeof(value)];
    std::memcpy(copy, &value, sizeof(value));
    text_.append(copy, sizeof(value));
    return *this;
  }

  operator std::string_view() const { return text_; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

using Doubles = std::vector<double>;
using Extents64 = std::vector<std::int64_t>;

/// TensorProto without values.
inline Proto tensor_head(std::string_view name, onnx::DataType type, const Extents64& extents) {
  Proto tensor;
  for (const std::int64_t extent : extents) tensor.integer(1, extent);
  return tensor.integer(2, static_cast<std::int64_t>(type)).bytes(8, name);
}

/// The values as little-endian elements T.
template <class T>
std::string raw(const Doubles& values) {
  Proto bytes;
  for (const double value : values) bytes.plain(static_cast<T>(static_cast<batchnorm::compute_t<T>>(value)));
  return bytes.text();
}

/// TensorProto with its values in raw_data.
template <class T = float>
Proto tensor_proto(std::string_view name, const Extents64& extents, const Doubles& values) {
  return tensor_head(name, onnx::data_type_of<T>(), extents).bytes(9, raw<T>(values));
}

/// The bits of values of two bytes, as packed integers of int32_data.
template <class T>
Proto int32_data(const Doubles& values) {
  Proto packed;
  for (const double value : values) packed.varint(std::bit_cast<std::uint16_t>(static_cast<T>(static_cast<float>(value))));
  return packed;
}

inline Proto float_attribute(std::string_view name, float value) {
  return Proto().bytes(1, name).float32(2, value).integer(20, onnx::Attribute::type_float);
}

inline Proto int_attribute(std::string_view name, std::int64_t value) {
  return Proto().bytes(1, name).integer(3, value).integer(20, onnx::Attribute::type_int);
}

inline Proto tensor_attribute(std::string_view name, const Proto& tensor) {
  return Proto().bytes(1, name).bytes(5, tensor).integer(20, 4);
}

using Names = std::vector<std::string_view>;

inline Proto node_proto(std::string_view op_type, std::string_view name, const Names& inputs, const Names& outputs,
                        const std::vector<Proto>& attributes = {}, std::string_view domain = "") {
  Proto node;
  for (const std::string_view input : inputs) node.bytes(1, input);
  for (const std::string_view output : outputs) node.bytes(2, output);
  node.bytes(3, name).bytes(4, op_type);
  for (const Proto& attribute : attributes) node.bytes(5, attribute);
  return domain.empty() ? node : node.bytes(7, domain);
}

/// ValueInfoProto of a tensor; an extent is a number, or a name where it is -1.
inline Proto value_info(std::string_view name, onnx::DataType type, const Extents64& extents) {
  Proto shape;
  for (const std::int64_t extent : extents) {
    shape.bytes(1, extent < 0 ? Proto().bytes(2, "N") : Proto().integer(1, extent));
  }
  const Proto tensor = Proto().integer(1, static_cast<std::int64_t>(type)).bytes(2, shape);
  return Proto().bytes(1, name).bytes(2, Proto().bytes(1, tensor));
}

inline Proto opset_import(std::int64_t version, std::string_view domain = "") {
  return Proto().bytes(1, domain).integer(2, version);
}

inline Proto model_proto(std::int64_t opset, const Proto& graph) {
  return Proto().integer(1, 8).bytes(8, opset_import(opset)).bytes(7, graph);
}

/// Fields of a GraphProto.
namespace graph_field {
inline constexpr std::uint64_t node = 1, name = 2, initializer = 5, input = 11, output = 12, sparse_initializer = 15;
}

}  // namespace support
