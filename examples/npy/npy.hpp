// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "header.hpp"

// Reads and writes arrays as NumPy's np.load and np.save do: .npy files of versions 1.0, 2.0 and 3.0 that hold little-endian
// float16, float32 or float64 in C order, up to rank 8. A file is data from outside: nothing in it is believed unchecked.
namespace npy {

static_assert(std::endian::native == std::endian::little, "the data of a file is copied as it is");

/// A file cannot be read or written. The message begins with the file's name and says why.
class FileError : public std::runtime_error {
 public:
  FileError(const std::filesystem::path& path, const std::string& why) : runtime_error("'" + path.string() + "': " + why) {}
};

namespace detail {

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

inline std::string reason(int error_number) { return std::generic_category().message(error_number); }

}  // namespace detail

/// An open .npy file whose header is checked and whose size is exactly what the header demands.
class Reader {
 public:
  /// @throws FileError   there is no such file, it cannot be read, it is not a .npy file, or not one of this header's kind
  explicit Reader(std::filesystem::path path) : path_(std::move(path)) {
    open();
    try {
      header_ = parse_header(read_header_text());
      byte_count_ = npy::byte_count(header_);
    } catch (const HeaderError& error) {
      fail(error.what());
    }
    check_size();
  }

  const std::filesystem::path& path() const noexcept { return path_; }
  const Header& header() const noexcept { return header_; }
  std::int64_t byte_count() const noexcept { return byte_count_; }

  /// Reads the data. Call it once.
  ///   data   byte_count() bytes
  /// @throws FileError   the file cannot be read, or became shorter
  void read(std::span<std::byte> data) {
    if (read_some(data.data(), data.size()) < data.size()) fail("it became shorter while it was read");
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw FileError(path_, why); }

  void open() {
    std::error_code error;
    const auto status = std::filesystem::status(path_, error);
    if (status.type() == std::filesystem::file_type::not_found) fail("there is no such file");
    if (error) fail("it cannot be read: " + error.message());
    if (is_directory(status)) fail("it is a directory");
    // The size of a pipe or a device is unknown, and opening one may wait for ever.
    if (!is_regular_file(status)) fail("it is not a regular file");
    file_.reset(std::fopen(path_.c_str(), "rb"));
    if (!file_) fail("it cannot be read: " + detail::reason(errno));
    remaining_ = std::filesystem::file_size(path_, error);
    if (error) fail("it cannot be read: " + error.message());
  }

  /// Reads up to `size` bytes; fewer only at the end of the file.
  std::size_t read_some(void* data, std::size_t size) {
    const std::size_t got = size == 0 ? 0 : std::fread(data, 1, size, file_.get());
    if (got < size && std::ferror(file_.get()) != 0) fail("it cannot be read: " + detail::reason(errno));
    remaining_ -= std::min<std::uintmax_t>(got, remaining_);
    return got;
  }

  std::string read_text(std::size_t size) {
    std::string text(size, '\0');
    text.resize(read_some(text.data(), size));
    return text;
  }

  std::string read_header_text() {
    constexpr std::string_view magic = "\x93NUMPY";
    if (read_text(magic.size()) != magic) fail("it is not a .npy file: its first bytes are not those of NumPy");
    const std::size_t length = read_header_length();
    if (length > remaining_) {
      fail("its header claims a length of " + std::to_string(length) + " bytes, the file has " + std::to_string(remaining_) +
           " more");
    }
    constexpr std::size_t longest = 65536;  // NumPy stops at 10000
    if (length > longest) {
      fail("its header is " + std::to_string(length) + " bytes long, more than the " + std::to_string(longest) + " allowed");
    }
    return read_text(length);
  }

  std::size_t read_header_length() {
    const std::string version = read_text(2);
    if (version.size() < 2) fail("it ends within its header");
    const int major = static_cast<unsigned char>(version[0]);
    const int minor = static_cast<unsigned char>(version[1]);
    if (major < 1 || major > 3 || minor != 0) {
      fail("it has version " + std::to_string(major) + "." + std::to_string(minor) +
           " of the .npy format; only 1.0, 2.0 and 3.0 can be read");
    }
    const std::size_t digits = major == 1 ? 2 : 4;
    const std::string bytes = read_text(digits);
    if (bytes.size() < digits) fail("it ends within its header");
    std::size_t length = 0;
    for (std::size_t i = digits; i-- > 0;) length = length * 256 + static_cast<unsigned char>(bytes[i]);
    return length;
  }

  void check_size() const {
    const auto wanted = static_cast<std::uintmax_t>(byte_count_);
    if (remaining_ == wanted) return;
    fail((remaining_ < wanted ? "its data is truncated: shape " : "it goes on after its data: shape ") +
         to_string(header_.shape) + " of " + type_name(header_.type) + " takes " + std::to_string(wanted) +
         " bytes, the file has " + std::to_string(remaining_) + " after its header");
  }

  std::filesystem::path path_;
  detail::File file_;
  std::uintmax_t remaining_ = 0;  // bytes of the file that have not been read
  Header header_;
  std::int64_t byte_count_ = 0;
};

/// Files that appear together or not at all. Each is written under a name of its own beside its target; publish() renames them
/// all. Whatever is not published when the object dies is removed.
class StagedFiles {
 public:
  StagedFiles() = default;
  StagedFiles(const StagedFiles&) = delete;
  StagedFiles& operator=(const StagedFiles&) = delete;
  ~StagedFiles() {
    std::error_code ignored;
    for (const Staged& staged : files_) std::filesystem::remove(staged.partial, ignored);
  }

  /// Writes the content of a future file `target`, as np.save writes it.
  ///   data   byte_count(header) bytes
  /// @throws FileError   the file cannot be written
  void add(const std::filesystem::path& target, const Header& header, std::span<const std::byte> data) {
    if (std::error_code ignored; is_directory(target, ignored))
      throw FileError(target, "it cannot be written: it is a directory");
    files_.push_back({target, {}});
    detail::File file = create_partial(files_.back());
    const std::string text = format_header(header);
    const bool written = std::fwrite(text.data(), 1, text.size(), file.get()) == text.size() &&
                         std::fwrite(data.data(), 1, data.size(), file.get()) == data.size();
    // What stayed in the buffer is written on closing: a full disk may show only then.
    if (!written || std::fflush(file.get()) != 0 || std::fclose(file.release()) != 0) fail(target, errno);
  }

  /// Makes every added file appear, in the place of an older one of its name.
  /// @throws FileError   one cannot be renamed; none of those added remains then
  void publish() {
    for (std::size_t i = 0; i < files_.size(); ++i) {
      std::error_code error;
      std::filesystem::rename(files_[i].partial, files_[i].target, error);
      if (!error) continue;
      std::error_code ignored;
      for (std::size_t j = 0; j < i; ++j) std::filesystem::remove(files_[j].target, ignored);
      fail(files_[i].target, error.value());
    }
    files_.clear();
  }

 private:
  struct Staged {
    std::filesystem::path target;
    std::filesystem::path partial;
  };

  [[noreturn]] static void fail(const std::filesystem::path& target, int error_number) {
    throw FileError(target, "it cannot be written: " + detail::reason(error_number));
  }

  /// Opens a file that did not exist: others may be writing the same target at this moment.
  static detail::File create_partial(Staged& staged) {
    for (int attempt = 0;; ++attempt) {
      std::filesystem::path partial = staged.target;
      partial += "." + std::to_string(attempt) + ".partial";
      detail::File file(std::fopen(partial.c_str(), "wbx"));
      if (file) {
        staged.partial = std::move(partial);
        return file;
      }
      if (errno != EEXIST) fail(staged.target, errno);
    }
  }

  std::vector<Staged> files_;
};

/// Writes one file, whole or not at all.
/// @throws FileError   the file cannot be written
inline void write(const std::filesystem::path& path, const Header& header, std::span<const std::byte> data) {
  StagedFiles files;
  files.add(path, header, data);
  files.publish();
}

}  // namespace npy
