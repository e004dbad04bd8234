// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include <batchnorm/batchnorm.hpp>

#include "../npy/npy.hpp"
#include "command_line.hpp"

// Tensors from .npy files, and to them.
namespace npy_tool {

using batchnorm::Element;
using batchnorm::ParameterOf;
using batchnorm::Shape;
using batchnorm::Tensor;

/// Calls body<T>() with the C++ type T of a file's elements.
template <class Body>
void with_type(npy::Type type, Body body) {
  switch (type) {
    case npy::Type::float16: return body.template operator()<batchnorm::half>();
    case npy::Type::float32: return body.template operator()<float>();
    case npy::Type::float64: return body.template operator()<double>();
  }
}

/// Calls body<T, P>() with the types of x and of the parameters.
/// @throws UsageError   they do not go together
template <class Body>
void with_types(npy::Type x, npy::Type parameters, Body body) {
  with_type(x, [&]<class T>() {
    with_type(parameters, [&]<class P>() {
      if constexpr (ParameterOf<P, T>) {
        body.template operator()<T, P>();
      } else {
        throw UsageError("x is " + npy::type_name(x) + " and scale is " + npy::type_name(parameters) +
                         "; x of float16 or float32 takes parameters of float16 or float32, x of float64 takes float64");
      }
    });
  });
}

inline void require_same_type(const std::string& name, const npy::Reader& file, const std::string& other_name,
                              const npy::Reader& other) {
  if (file.header().type == other.header().type) return;
  throw UsageError(name + " ('" + file.path().string() + "') is " + npy::type_name(file.header().type) +
                   ", it must have the type of " + other_name + ", " + npy::type_name(other.header().type));
}

template <Element T>
constexpr npy::Type npy_type() {
  return std::is_same_v<T, batchnorm::half> ? npy::Type::float16
         : std::is_same_v<T, float>         ? npy::Type::float32
                                            : npy::Type::float64;
}

template <Element T>
Tensor<T> load(npy::Reader& file) {
  Tensor<T> tensor{Shape(std::span(file.header().shape))};
  file.read(std::as_writable_bytes(std::span(tensor.begin(), tensor.end())));
  return tensor;
}

/// The results of a command: they are written when all are there, and appear together.
class OutputFolder {
 public:
  explicit OutputFolder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code error;
    create_directories(path_, error);
    if (error) throw UsageError("--out '" + path_.string() + "' cannot be created: " + error.message());
  }

  template <Element T>
  void add(const std::string& name, const Tensor<T>& tensor) {
    const auto extents = tensor.shape().extents();
    files_.add(path_ / (name + ".npy"), {npy_type<T>(), {extents.begin(), extents.end()}},
               std::as_bytes(std::span(tensor.begin(), tensor.end())));
  }

  void publish() { files_.publish(); }

 private:
  std::filesystem::path path_;
  npy::StagedFiles files_;
};

}  // namespace npy_tool
