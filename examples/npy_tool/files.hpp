// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npy/tensor.hpp>

#include "command_line.hpp"

// Tensors from .npy files, and to them.
namespace npy_tool {

namespace npy = batchnorm::npy;

using batchnorm::Element;
using batchnorm::ParameterOf;
using batchnorm::Tensor;

/// Calls body<T>() with the C++ type T of the elements of the file given as `name`.
/// @throws UsageError   they are not floating-point numbers
template <class Body>
void with_type(const std::string& name, npy::Type type, Body body) {
  switch (type) {
    case npy::Type::float16: return body.template operator()<batchnorm::half>();
    case npy::Type::float32: return body.template operator()<float>();
    case npy::Type::float64: return body.template operator()<double>();
    case npy::Type::int64: throw UsageError(name + " is int64, it must be float16, float32 or float64");
  }
}

/// Calls body<T, P>() with the types of x and of the parameters.
/// @throws UsageError   they do not go together
template <class Body>
void with_types(npy::Type x, npy::Type parameters, Body body) {
  with_type("x", x, [&]<class T>() {
    with_type("scale", parameters, [&]<class P>() {
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

/// The results of a command: they are written when all are there, and appear together. A folder that was made for them goes
/// with them when they do not appear.
class OutputFolder {
 public:
  explicit OutputFolder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code error;
    for (auto missing = path_; !missing.empty() && !exists(missing, error); missing = missing.parent_path()) {
      if (missing.has_filename()) made_.push_back(missing);
    }
    create_directories(path_, error);
    if (error) {
      remove_folders();
      throw UsageError("--out '" + path_.string() + "' cannot be created: " + error.message());
    }
  }
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  ~OutputFolder() { remove_folders(); }

  template <Element T>
  void add(const std::string& name, const Tensor<T>& tensor) {
    npy::write_tensor(tensor, [&](const npy::Header& header, std::span<const std::byte> data) {
      files_->add(path_ / (name + ".npy"), header, data);
    });
  }

  void publish() {
    files_->publish();
    made_.clear();
  }

 private:
  void remove_folders() noexcept {
    files_.reset();  // its unfinished files are in there
    std::error_code ignored;
    for (const auto& folder : made_) remove(folder, ignored);  // not where somebody has put something there
  }

  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  // innermost first; none once the results are there
  std::optional<npy::StagedFiles> files_{std::in_place};
};

}  // namespace npy_tool
