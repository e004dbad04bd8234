// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <batchnorm/format.hpp>

#include "tensor.hpp"

// What is written of a model: fields, each appended to a text.
namespace onnx {

inline void append_varint(std::string& text, std::uint64_t value) {
  for (; value > 0x7FU; value >>= 7U) text += static_cast<char>(value | 0x80U);
  text += static_cast<char>(value);
}

inline void append_integer(std::string& text, std::uint64_t number, std::int64_t value) {
  append_varint(text, number << 3U);
  append_varint(text, static_cast<std::uint64_t>(value));
}

inline void append_bytes(std::string& text, std::uint64_t number, std::string_view bytes) {
  append_varint(text, number << 3U | 2U);
  append_varint(text, bytes.size());
  text += bytes;
}

/// An initializer of a graph: TensorProto with dims 1, data_type 2, name 8 and raw_data 9.
inline void append_initializer(std::string& text, std::string_view name, DataType type, const batchnorm::Shape& shape,
                               std::string_view raw) {
  std::string tensor;
  for (const std::int64_t extent : shape.extents()) append_integer(tensor, 1, extent);
  append_integer(tensor, 2, static_cast<std::int64_t>(type));
  append_bytes(tensor, 8, name);
  append_bytes(tensor, 9, raw);
  append_bytes(text, 5, tensor);
}

/// An input of a graph: ValueInfoProto with name 1 and type 2; TypeProto: tensor_type 1; its elem_type 1 and shape 2.
inline void append_input(std::string& text, std::string_view name, DataType type, const batchnorm::Shape& shape) {
  std::string extents, tensor, info, type_text;
  for (const std::int64_t extent : shape.extents()) {
    std::string dimension;
    append_integer(dimension, 1, extent);
    append_bytes(extents, 1, dimension);
  }
  append_integer(tensor, 1, static_cast<std::int64_t>(type));
  append_bytes(tensor, 2, extents);
  append_bytes(type_text, 1, tensor);
  append_bytes(info, 1, name);
  append_bytes(info, 2, type_text);
  append_bytes(text, 11, info);
}

}  // namespace onnx
