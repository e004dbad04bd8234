// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <zlib.h>

namespace fashion_mnist {

/// A file of the data set is missing or malformed. The message begins with the file's name.
class DataError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Grey images as an IDX file stores them: [count][rows][columns], 0 is black.
struct Images {
  std::int64_t count = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<std::uint8_t> pixels;

  std::int64_t pixels_per_image() const noexcept { return rows * columns; }
};

namespace detail {

/// Reads a file through zlib, which passes files that are not compressed through as they are.
class GzipFile {
 public:
  explicit GzipFile(const std::filesystem::path& path) : path_(path.string()), file_(gzopen(path_.c_str(), "rb")) {
    if (!file_) fail(std::string("cannot be opened: ") + std::strerror(errno));
    gzbuffer(file_.get(), 1U << 17U);
  }

  [[noreturn]] void fail(const std::string& what) const { throw DataError("'" + path_ + "': " + what); }

  /// Reads up to `size` bytes; fewer only at the end of the contents.
  std::size_t read(std::uint8_t* bytes, std::size_t size) {
    const int got = gzread(file_.get(), bytes, static_cast<unsigned>(size));
    if (got < 0 || static_cast<std::size_t>(got) < size) fail_if_damaged();
    return static_cast<std::size_t>(got);
  }

 private:
  struct Close {
    void operator()(gzFile_s* file) const noexcept { gzclose_r(file); }
  };

  void fail_if_damaged() const {
    int code = Z_OK;
    std::string_view text = gzerror(file_.get(), &code);
    if (code == Z_OK || code == Z_STREAM_END) return;
    if (code == Z_BUF_ERROR) fail("the file is cut off within its gzip stream");
    // zlib puts the file's name before its own words; ours has it already.
    if (text.starts_with(path_ + ": ")) text.remove_prefix(path_.size() + 2);
    fail((code == Z_ERRNO ? "cannot be read: " : "the gzip stream is damaged: ") + std::string(text));
  }

  std::string path_;
  std::unique_ptr<gzFile_s, Close> file_;
};

inline std::string hexadecimal(std::uint32_t value) {
  std::string text = "0x";
  for (unsigned shift = 32; shift > 0; shift -= 4) text += "0123456789abcdef"[(value >> (shift - 4)) & 0xFU];
  return text;
}

/// The next number of the header: four bytes, the highest first.
inline std::uint32_t read_number(GzipFile& file) {
  std::array<std::uint8_t, 4> bytes{};
  if (file.read(bytes.data(), bytes.size()) < bytes.size()) file.fail("ends within its header");
  std::uint32_t number = 0;
  for (const std::uint8_t byte : bytes) number = number << 8U | byte;
  return number;
}

inline void check_magic(GzipFile& file, std::uint32_t expected, std::string_view contents) {
  const std::uint32_t magic = read_number(file);
  if (magic == expected) return;
  file.fail("the magic number is " + hexadecimal(magic) + ", that of " + std::string(contents) + " is " +
            hexadecimal(expected));
}

/// The number of bytes that the header's counts announce.
inline std::uint64_t announced_size(const GzipFile& file, std::initializer_list<std::uint32_t> extents) {
  std::uint64_t size = 1;
  for (const std::uint32_t extent : extents) {
    if (__builtin_mul_overflow(size, extent, &size) || size > INT64_MAX) file.fail("the header announces more than 2^63 bytes");
  }
  return size;
}

/// Reads exactly `size` bytes, up to the end of the file. Memory grows with what is really there: a header that announces
/// terabytes ends in a message, not in std::bad_alloc.
inline std::vector<std::uint8_t> read_contents(GzipFile& file, std::uint64_t size) {
  constexpr std::uint64_t chunk = std::uint64_t{1} << 22U;
  std::vector<std::uint8_t> bytes;
  while (bytes.size() < size) {
    const std::size_t before = bytes.size();
    const auto wanted = static_cast<std::size_t>(std::min(chunk, size - before));
    bytes.resize(before + wanted);
    const std::size_t got = file.read(bytes.data() + before, wanted);
    if (got < wanted) {
      file.fail("holds " + std::to_string(before + got) + " of the " + std::to_string(size) +
                " bytes that its header announces");
    }
  }
  // Reading on past the last byte also makes zlib compare the checksum.
  std::uint8_t surplus = 0;
  if (file.read(&surplus, 1) > 0) file.fail("holds more than the " + std::to_string(size) + " bytes that its header announces");
  return bytes;
}

}  // namespace detail

/// Reads an IDX file of images (magic 0x00000803), compressed by gzip or not.
/// @throws DataError   missing, unreadable, damaged or cut off; another kind of file; fewer or more bytes than announced
inline Images read_images(const std::filesystem::path& path) {
  detail::GzipFile file(path);
  detail::check_magic(file, 0x00000803, "images");
  const std::uint32_t count = detail::read_number(file);
  const std::uint32_t rows = detail::read_number(file);
  const std::uint32_t columns = detail::read_number(file);
  return {count, rows, columns, detail::read_contents(file, detail::announced_size(file, {count, rows, columns}))};
}

/// Reads an IDX file of labels (magic 0x00000801), one byte each, compressed by gzip or not.
/// @throws DataError   as read_images
inline std::vector<std::uint8_t> read_labels(const std::filesystem::path& path) {
  detail::GzipFile file(path);
  detail::check_magic(file, 0x00000801, "labels");
  const std::uint32_t count = detail::read_number(file);
  return detail::read_contents(file, count);
}

}  // namespace fashion_mnist
