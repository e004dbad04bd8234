// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>

#include <batchnorm/npy/tensor.hpp>
#include <batchnorm/tensor.hpp>

#include "onnx/file.hpp"
#include "onnx/tensor.hpp"

// Tensors whose type is known at run time.
namespace onnx_tool {

using batchnorm::Element;
using batchnorm::Tensor;

using AnyTensor = std::variant<Tensor<float>, Tensor<double>, Tensor<batchnorm::half>, Tensor<batchnorm::bfloat16>>;

inline onnx::DataType type_of(const AnyTensor& tensor) {
  return std::visit([]<class T>(const Tensor<T>&) { return onnx::data_type_of<T>(); }, tensor);
}

inline const batchnorm::Shape& shape_of(const AnyTensor& tensor) {
  return std::visit([](const auto& typed) -> const batchnorm::Shape& { return typed.shape(); }, tensor);
}

/// The values as another type: to a narrower one each is rounded, double to float and then on to the two narrow types.
template <Element To>
Tensor<To> converted(const AnyTensor& tensor) {
  const auto convert = []<class From>(const Tensor<From>& from) {
    Tensor<To> to(from.shape());
    for (std::int64_t i = 0; i < from.size(); ++i) to[i] = static_cast<To>(static_cast<batchnorm::compute_t<From>>(from[i]));
    return to;
  };
  return std::visit(convert, tensor);
}

/// The same elements with other extents.
template <Element T>
Tensor<T> reshaped(const Tensor<T>& tensor, const batchnorm::Shape& shape) {
  Tensor<T> result(shape);
  std::copy(tensor.begin(), tensor.end(), result.begin());
  return result;
}

inline AnyTensor reshaped(const AnyTensor& tensor, const batchnorm::Shape& shape) {
  return std::visit([&](const auto& typed) -> AnyTensor { return reshaped(typed, shape); }, tensor);
}

/// @throws onnx::FormatError   the values are not there, or of a type that batchnorm lacks
inline AnyTensor decode(const onnx::TensorProto& tensor) {
  switch (tensor.type) {
    case onnx::DataType::float32: return onnx::decode<float>(tensor);
    case onnx::DataType::float64: return onnx::decode<double>(tensor);
    case onnx::DataType::float16: return onnx::decode<batchnorm::half>(tensor);
    case onnx::DataType::bfloat16: return onnx::decode<batchnorm::bfloat16>(tensor);
  }
  onnx::check_values(tensor);
  return {};
}

namespace detail {

/// NumPy has no bfloat16: a file holds them as float32, and only the model can tell.
inline AnyTensor read_npy(const std::filesystem::path& path, onnx::DataType declared) {
  namespace npy = batchnorm::npy;
  npy::Reader reader(path);
  switch (reader.header().type) {
    case npy::Type::float16: return npy::read_tensor<batchnorm::half>(reader);
    case npy::Type::float32:
      if (declared == onnx::DataType::bfloat16) return npy::read_tensor<batchnorm::bfloat16>(reader);
      return npy::read_tensor<float>(reader);
    case npy::Type::float64: return npy::read_tensor<double>(reader);
    case npy::Type::int64: break;
  }
  reader.fail("it is int64, it must be float16, float32 or float64");
}

}  // namespace detail

/// Reads a .npy file, or a .pb file that holds a TensorProto.
///   declared   the type that the tensor has in the model, if that is known
/// @throws onnx::FileError   it cannot be read, is malformed, of another type than declared, or has another ending
inline AnyTensor read_tensor(const std::filesystem::path& path, onnx::DataType declared) {
  AnyTensor tensor;
  if (path.extension() == ".npy") {
    tensor = detail::read_npy(path, declared);
  } else if (path.extension() == ".pb") {
    const onnx::File file(path);
    tensor = onnx::named(path, [&] { return decode(onnx::parse_tensor(file.bytes())); });
  } else {
    throw onnx::FileError(path, "its name must end in .npy, or in .pb for a TensorProto");
  }
  if (declared != onnx::DataType{} && declared != type_of(tensor)) {
    throw onnx::FileError(path, "it is " + to_string(type_of(tensor)) + ", in the model it is " + to_string(declared));
  }
  return tensor;
}

}  // namespace onnx_tool
