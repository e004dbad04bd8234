// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <batchnorm/npy/file.hpp>
#include <batchnorm/npy/header.hpp>

/// @file
/// Reads and writes arrays as NumPy's np.load and np.save do: .npy files of versions 1.0, 2.0 and 3.0 that hold little-endian
/// float16, float32, float64 or int64 in C order, up to rank 8; where at most one extent is above 1 a file may call that
/// Fortran order. A file is data from outside: nothing in it is believed unchecked. Not part of batchnorm.hpp; it needs
/// exceptions.

/// Arrays in .npy files.
namespace batchnorm::npy {

static_assert(std::endian::native == std::endian::little, "the data of a file is copied as it is");

namespace detail {

/// Reads up to `size` bytes as text.
template <class Source>
std::string read_text(Source& source, std::size_t size) {
  std::string text(size, '\0');
  text.resize(source.read(text.data(), size));
  return text;
}

template <class Source>
std::size_t read_header_length(Source& source) {
  const std::string version = read_text(source, 2);
  if (version.size() < 2) throw HeaderError("it ends within its header");
  const int first = static_cast<unsigned char>(version[0]);
  const int second = static_cast<unsigned char>(version[1]);
  if (first < 1 || first > 3 || second != 0) {
    throw HeaderError("it has version " + std::to_string(first) + "." + std::to_string(second) +
                      " of the .npy format; only 1.0, 2.0 and 3.0 can be read");
  }
  const std::size_t digits = first == 1 ? 2 : 4;
  const std::string bytes = read_text(source, digits);
  if (bytes.size() < digits) throw HeaderError("it ends within its header");
  std::size_t length = 0;
  for (std::size_t i = digits; i-- > 0;) length = length * 256 + static_cast<unsigned char>(bytes[i]);
  return length;
}

template <class Source>
std::string read_header_text(Source& source) {
  constexpr std::string_view magic = "\x93NUMPY";
  if (read_text(source, magic.size()) != magic) {
    throw HeaderError("it is not a .npy file: its first bytes are not those of NumPy");
  }
  const std::size_t length = read_header_length(source);
  if (length > source.remaining()) {
    throw HeaderError("its header claims a length of " + std::to_string(length) + " bytes, the file has " +
                      std::to_string(source.remaining()) + " more");
  }
  constexpr std::size_t longest = 65536;  // NumPy stops at 10000
  if (length > longest) {
    throw HeaderError("its header is " + std::to_string(length) + " bytes long, more than the " + std::to_string(longest) +
                      " allowed");
  }
  return read_text(source, length);
}

}  // namespace detail

/// Reads everything that stands before the data of an array, and compares the size of the data with what is left.
///
///   source   read(void* data, std::size_t size) reads up to `size` bytes, fewer only at the end, and returns how many;
///            remaining() says how many bytes are left
/// @throws HeaderError   it is not a .npy file, or not one of this header's kind, or its size is not what its header demands
template <class Source>
Header read_header(Source& source) {
  Header header = parse_header(detail::read_header_text(source));
  const auto wanted = static_cast<std::uint64_t>(byte_count(header));
  const std::uint64_t remaining = source.remaining();
  if (remaining == wanted) return header;
  throw HeaderError((remaining < wanted ? "its data is truncated: shape " : "it goes on after its data: shape ") +
                    to_string(header.shape) + " of " + type_name(header.type) + " takes " + std::to_string(wanted) +
                    " bytes, the file has " + std::to_string(remaining) + " after its header");
}

/// An open .npy file whose header is checked and whose size is exactly what the header demands.
class Reader {
 public:
  /// Opens the file and reads what stands before its data.
  /// @throws FileError   there is no such file, it cannot be read, it is not a .npy file, or not one of this header's kind
  explicit Reader(std::filesystem::path path) : source_(std::move(path)) {
    try {
      header_ = read_header(source_);
      byte_count_ = npy::byte_count(header_);
    } catch (const HeaderError& error) {
      fail(error.what());
    }
  }

  const std::filesystem::path& path() const noexcept { return source_.file.path(); }  ///< as it was given
  const Header& header() const noexcept { return header_; }                           ///< type and shape of the array
  std::int64_t byte_count() const noexcept { return byte_count_; }                    ///< bytes of its data

  /// Reads the data. Call it once.
  ///
  ///   data   byte_count() bytes
  /// @throws FileError   the file cannot be read, or became shorter
  void read(std::span<std::byte> data) {
    if (source_.read(data.data(), data.size()) < data.size()) fail("it became shorter while it was read");
  }

  /// Refuses the array.
  /// @throws FileError   always: this array cannot be used because of `why`
  [[noreturn]] void fail(const std::string& why) const { source_.file.fail(why); }

 private:
  /// A file, read from its beginning to its end.
  struct Source {
    explicit Source(std::filesystem::path path) : file(std::move(path)) {}

    std::size_t read(void* data, std::size_t size) {
      const std::size_t got = file.read(position, data, size);
      position += got;
      return got;
    }
    std::uint64_t remaining() const noexcept { return file.size() - (std::min)(position, file.size()); }

    InputFile file;
    std::uint64_t position = 0;
  };

  Source source_;
  Header header_;
  std::int64_t byte_count_ = 0;
};

/// .npy files that appear together or not at all: what is not published when the object dies is removed.
class StagedFiles {
 public:
  /// Writes the content of a future file `target`, as np.save writes it.
  ///
  ///   data   byte_count(header) bytes
  /// @throws FileError   the file cannot be written
  void add(const std::filesystem::path& target, const Header& header, std::span<const std::byte> data) {
    const std::string before = format_header(header);
    StagedFile file(target);
    file.write(std::as_bytes(std::span(before)));
    file.write(data);
    file.close();
    files_.push_back(std::move(file));
  }

  /// Makes every added file appear, replacing an older one of its name; whatever happens, nothing stays added. Until all
  /// have appeared an older file is beside its successor as NAME.0.older. A program that is killed meanwhile leaves it there.
  /// @throws FileError   one cannot be renamed; then the folder is as it was before the first was added
  void publish() {
    std::vector<StagedFile> files;
    files.swap(files_);
    try {
      // A single file needs no more than a renaming, which keeps the older one when it fails.
      if (files.size() > 1) std::ranges::for_each(files, &StagedFile::keep_older);
      std::ranges::for_each(files, &StagedFile::publish);
    } catch (...) {
      // The last first: of two files of one name the first knows what was there.
      std::for_each(files.rbegin(), files.rend(), [](StagedFile& file) { file.restore(); });
      throw;
    }
    std::ranges::for_each(files, &StagedFile::forget_older);
  }

 private:
  std::vector<StagedFile> files_;
};

/// Writes one file, whole or not at all.
/// @throws FileError   the file cannot be written
inline void write(const std::filesystem::path& path, const Header& header, std::span<const std::byte> data) {
  StagedFiles files;
  files.add(path, header, data);
  files.publish();
}

}  // namespace batchnorm::npy
