// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <batchnorm/element.hpp>
#include <batchnorm/format.hpp>
#include <batchnorm/tensor.hpp>

#include "protobuf.hpp"
#include "text.hpp"

// TensorProto, as model files hold their constants and test data its tensors.
namespace onnx {

/// The numbers of TensorProto.DataType for the types that batchnorm has; a file may hold any other number, too.
enum class DataType : std::int64_t { float32 = 1, float16 = 10, float64 = 11, bfloat16 = 16 };

/// "float32"; "type 99" where there is no such type.
inline std::string to_string(DataType type) {
  constexpr std::array names{"undefined", "float32", "uint8",     "int8",       "uint16",  "int16",
                             "int32",     "int64",   "string",    "bool",       "float16", "float64",
                             "uint32",    "uint64",  "complex64", "complex128", "bfloat16"};
  const auto number = static_cast<std::uint64_t>(type);
  return number < names.size() ? names[number] : "type " + std::to_string(static_cast<std::int64_t>(type));
}

/// Bytes of an element; 0 for a type that batchnorm lacks.
constexpr std::int64_t size_of(DataType type) noexcept {
  switch (type) {
    case DataType::float16:
    case DataType::bfloat16: return 2;
    case DataType::float32: return 4;
    case DataType::float64: return 8;
  }
  return 0;
}

template <batchnorm::Element T>
constexpr DataType data_type_of() noexcept {
  if constexpr (std::same_as<T, batchnorm::half>) return DataType::float16;
  if constexpr (std::same_as<T, batchnorm::bfloat16>) return DataType::bfloat16;
  if constexpr (std::same_as<T, float>) return DataType::float32;
  if constexpr (std::same_as<T, double>) return DataType::float64;
}

/// Where the values of a tensor stand. `field` is the number of a field of TensorProto (of AttributeProto for value_...).
struct Storage {
  std::uint64_t field;
  std::string_view name;

  friend bool operator==(const Storage&, const Storage&) = default;
};

namespace storages {
inline constexpr Storage none{0, "no data"}, segment{3, "segment"}, float_data{4, "float_data"}, int32_data{5, "int32_data"},
    string_data{6, "string_data"}, int64_data{7, "int64_data"}, raw_data{9, "raw_data"}, double_data{10, "double_data"},
    uint64_data{11, "uint64_data"}, external_data{13, "external_data"}, value_float{2, "value_float"},
    value_floats{7, "value_floats"};
inline constexpr std::array all{segment,  float_data,  int32_data,  string_data,  int64_data,
                                raw_data, double_data, uint64_data, external_data};
}  // namespace storages

/// A tensor whose values have not been looked at. It views the bytes of its file.
struct TensorProto {
  std::string_view name{};
  DataType type{};
  std::vector<std::int64_t> extents{};  ///< the first Shape::max_rank of them
  std::size_t rank = 0;                 ///< how many it has
  Storage storage = storages::none;
  Bytes message{};  ///< the message that has the field of the storage

  void add_extent(std::int64_t extent) {
    if (rank++ < static_cast<std::size_t>(batchnorm::Shape::max_rank)) extents.push_back(extent);
  }
};

[[noreturn]] inline void fail(const TensorProto& tensor, const std::string& what) {
  throw FormatError("tensor " + quoted(tensor.name) + ": " + what);
}

namespace detail {

/// Notes where the values are; only numbers that are not packed may come in several fields.
inline void note_storage(TensorProto& tensor, const Field& field) {
  for (const Storage& storage : storages::all) {
    if (field.number != storage.field) continue;
    const bool is_raw = storage == storages::raw_data;
    if (is_raw ? field.string().empty() : field.type == WireType::bytes && field.bytes.text.empty()) return;
    if (is_raw && tensor.storage == storage) fail_at(field.position, "a TensorProto has raw_data twice");
    if (tensor.storage != storages::none && tensor.storage != storage) {
      fail_at(field.position,
              "a TensorProto has both " + std::string(tensor.storage.name) + " and " + std::string(storage.name));
    }
    tensor.storage = storage;
  }
}

}  // namespace detail

/// The fields of a TensorProto but for its values.
/// @throws FormatError   malformed, or its values stand in two places
inline TensorProto parse_tensor(Bytes bytes) {
  TensorProto tensor{.message = bytes};
  bool external = false;
  for_each_field(bytes, "TensorProto", [&](const Field& field) {
    if (field.number == 1) for_each_integer(field, [&](std::int64_t extent) { tensor.add_extent(extent); });
    if (field.number == 2) tensor.type = static_cast<DataType>(field.integer());
    if (field.number == 8) tensor.name = field.string();
    if (field.number == 14) external = field.integer() != 0;
    detail::note_storage(tensor, field);
  });
  if (external) tensor.storage = storages::external_data;
  return tensor;
}

/// @throws FormatError   more extents than batchnorm::Shape takes, one of them negative, or too many elements for 64 bits
inline batchnorm::Shape shape_of(const TensorProto& tensor) {
  constexpr auto max_rank = static_cast<std::size_t>(batchnorm::Shape::max_rank);
  if (tensor.rank > max_rank) {
    fail(tensor,
         "its rank is " + std::to_string(tensor.rank) + ", the largest that can be read is " + std::to_string(max_rank));
  }
  const batchnorm::Shape shape{std::span(tensor.extents)};
  try {
    batchnorm::element_count(shape, "extents", "the tensor");
  } catch (const batchnorm::ShapeError& error) {
    fail(tensor, error.what());
  }
  return shape;
}

namespace detail {

constexpr bool is_attribute(const Storage& storage) noexcept {
  return storage == storages::value_float || storage == storages::value_floats;
}

/// The values are of a type that batchnorm has, and stand where those of that type belong.
inline void check_storage(const TensorProto& tensor) {
  if (size_of(tensor.type) == 0) {
    fail(tensor, "it is " + to_string(tensor.type) + ", it must be float16, bfloat16, float32 or float64");
  }
  if (tensor.storage == storages::external_data)
    fail(tensor, "its values are in another file (external data), which is not read");
  if (tensor.storage == storages::segment) fail(tensor, "it is a segment of a larger tensor, which cannot be put together");
  if (tensor.storage == storages::none || tensor.storage == storages::raw_data) return;
  const bool is_float32 = tensor.storage == storages::float_data || is_attribute(tensor.storage);
  const std::int64_t size = is_float32                                ? 4
                            : tensor.storage == storages::double_data ? 8
                            : tensor.storage == storages::int32_data  ? 2
                                                                      : 0;
  if (size != size_of(tensor.type)) {
    fail(tensor, "its values are in " + std::string(tensor.storage.name) + ", which is no place for " + to_string(tensor.type));
  }
}

/// Calls visit(bytes) with the values piece by piece, as little-endian elements.
template <class Visit>
void for_each_piece(const TensorProto& tensor, Visit&& visit) {
  const std::string_view message = is_attribute(tensor.storage) ? "AttributeProto" : "TensorProto";
  for_each_field(tensor.message, message, [&](const Field& field) {
    if (field.number != tensor.storage.field) return;
    if (tensor.storage == storages::raw_data) return visit(field.string());
    if (tensor.storage == storages::double_data) return visit(field.fixed_numbers(WireType::fixed64));
    if (tensor.storage != storages::int32_data) return visit(field.fixed_numbers(WireType::fixed32));
    for_each_integer(field, [&](std::int64_t value) {
      if (value < 0 || value > UINT16_MAX) {
        fail(tensor, "int32_data holds " + std::to_string(value) + ", which is not the bits of a " + to_string(tensor.type));
      }
      const auto bits = static_cast<std::uint16_t>(value);
      visit(std::string_view(reinterpret_cast<const char*>(&bits), sizeof(bits)));
    });
  });
}

}  // namespace detail

/// Looks at the values: there are as many as the extents demand, where those of the type belong.
/// @throws FormatError   they are not
inline void check_values(const TensorProto& tensor) {
  const batchnorm::Shape shape = shape_of(tensor);
  detail::check_storage(tensor);
  std::uint64_t bytes = 0;
  detail::for_each_piece(tensor, [&](std::string_view piece) { bytes += piece.size(); });
  const auto size = static_cast<std::uint64_t>(size_of(tensor.type));
  const auto count = static_cast<std::uint64_t>(batchnorm::element_count(shape));
  if (bytes % size == 0 && bytes / size == count) return;
  fail(tensor, "it holds " + std::to_string(bytes) + " bytes of values, shape " + batchnorm::to_string(shape) + " of " +
                   to_string(tensor.type) + " takes " + std::to_string(count) + " times " + std::to_string(size));
}

/// The tensor with its values.
/// @throws FormatError   it is of another type, or check_values() does
/// @throws std::bad_alloc
template <batchnorm::Element T>
batchnorm::Tensor<T> decode(const TensorProto& tensor) {
  if (tensor.type != data_type_of<T>()) {
    fail(tensor, "it is " + to_string(tensor.type) + ", expected is " + to_string(data_type_of<T>()));
  }
  check_values(tensor);
  batchnorm::Tensor<T> result(shape_of(tensor));
  const auto bytes = std::as_writable_bytes(std::span(result.begin(), result.end()));
  std::size_t position = 0;
  detail::for_each_piece(tensor, [&](std::string_view piece) {
    if (!piece.empty()) std::memcpy(bytes.data() + position, piece.data(), piece.size());
    position += piece.size();
  });
  return result;
}

}  // namespace onnx
