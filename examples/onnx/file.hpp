// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <batchnorm/npy/file.hpp>

#include "protobuf.hpp"

namespace onnx {

using FileError = batchnorm::npy::FileError;

/// A file of protocol buffers in memory. What is parsed from it views its bytes: the object must outlive that.
class File {
 public:
  /// @throws FileError   there is no such file, it cannot be read, or it is larger than a message can be
  /// @throws std::bad_alloc
  explicit File(const std::filesystem::path& path) : path_(path) {
    batchnorm::npy::InputFile file(path);
    constexpr std::uint64_t largest = INT32_MAX;
    if (file.size() > largest) {
      file.fail("it has " + std::to_string(file.size()) + " bytes, a protocol buffer has at most " + std::to_string(largest));
    }
    const auto size = static_cast<std::size_t>(file.size());
    data_ = std::make_unique_for_overwrite<char[]>(size);
    if (file.read(0, data_.get(), size) < size) file.fail("it became shorter while it was read");
    size_ = size;
  }

  const std::filesystem::path& path() const noexcept { return path_; }
  Bytes bytes() const noexcept { return {{data_.get(), size_}, 0}; }

 private:
  std::filesystem::path path_;
  std::unique_ptr<char[]> data_;
  std::size_t size_ = 0;
};

/// What call() returns; a FormatError in it becomes an error that names the file.
/// @throws FileError
template <class Call>
auto named(const std::filesystem::path& path, Call&& call) {
  try {
    return call();
  } catch (const FormatError& error) {
    throw FileError(path, error.what());
  }
}

}  // namespace onnx
