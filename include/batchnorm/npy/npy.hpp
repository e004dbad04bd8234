// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
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
/// Fortran order. A file is data from outside: nothing in it is believed unchecked. Not part of batchnorm.hpp.
///
/// Functions that may fail take a pointer to an std::optional<Error>. If it is given, the error that would be thrown is stored
/// there instead (ErrorKind::file, with the text of the exception), and the optional is empty after a call that succeeds. After
/// an error a reader is not open, a tensor is empty, and what was to be written may be given up or tried again. Memory that
/// cannot be had is std::bad_alloc in any case. Compiled with -fno-exceptions, an error that is not stored calls the handler of
/// set_error_handler.

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

/// The length of the text that follows; 0 after an error.
template <class Source>
std::size_t read_header_length(Source& source, const FileReporter& report) {
  const std::string version = read_text(source, 2);
  if (version.size() < 2) {
    report.fail("it ends within its header");
    return 0;
  }
  const int first = static_cast<unsigned char>(version[0]);
  const int second = static_cast<unsigned char>(version[1]);
  if (first < 1 || first > 3 || second != 0) {
    report.fail("it has version " + std::to_string(first) + "." + std::to_string(second) +
                " of the .npy format; only 1.0, 2.0 and 3.0 can be read");
    return 0;
  }
  const std::size_t digits = first == 1 ? 2 : 4;
  const std::string bytes = read_text(source, digits);
  if (bytes.size() < digits) {
    report.fail("it ends within its header");
    return 0;
  }
  std::size_t length = 0;
  for (std::size_t i = digits; i-- > 0;) length = length * 256 + static_cast<unsigned char>(bytes[i]);
  return length;
}

/// Everything between the first bytes and the data; "" after an error.
template <class Source>
std::string read_header_text(Source& source, const FileReporter& report) {
  constexpr std::string_view magic = "\x93NUMPY";
  if (read_text(source, magic.size()) != magic) {
    report.fail("it is not a .npy file: its first bytes are not those of NumPy");
    return {};
  }
  const std::size_t length = read_header_length(source, report);
  if (length > source.remaining()) {
    report.fail("its header claims a length of " + std::to_string(length) + " bytes, the file has " +
                std::to_string(source.remaining()) + " more");
    return {};
  }
  constexpr std::size_t longest = 65536;  // NumPy stops at 10000
  if (length > longest) {
    report.fail("its header is " + std::to_string(length) + " bytes long, more than the " + std::to_string(longest) +
                " allowed");
    return {};
  }
  return read_text(source, length);
}

/// The header of an array, and how many bytes of data follow.
struct CheckedHeader {
  Header header;
  std::int64_t byte_count = 0;
};

/// Reads everything that stands before the data of an array, and compares the size of the data with what is left. Nothing
/// after an error: it is not a .npy file, or not one of this header's kind, or its size is not what its header demands.
///
///   source   read(void* data, std::size_t size) reads up to `size` bytes and returns how many, fewer only at the end and after
///            an error; remaining() says how many bytes are left
template <class Source>
CheckedHeader read_header(Source& source, const FileReporter& report) {
  const std::string text = read_header_text(source, report);
  if (report.failed()) return {};
  CheckedHeader result;
  result.header = HeaderParser(text, report).parse();
  if (report.failed()) return {};
  result.byte_count = byte_count(result.header, report);
  if (report.failed()) return {};
  const auto wanted = static_cast<std::uint64_t>(result.byte_count);
  const std::uint64_t remaining = source.remaining();
  if (remaining == wanted) return result;
  report.fail((remaining < wanted ? "its data is truncated: shape " : "it goes on after its data: shape ") +
              to_string(result.header.shape) + " of " + type_name(result.header.type) + " takes " + std::to_string(wanted) +
              " bytes, the file has " + std::to_string(remaining) + " after its header");
  return {};
}

}  // namespace detail

/// An open .npy file whose header is checked and whose size is exactly what the header demands.
class Reader {
 public:
  /// Opens the file and reads what stands before its data.
  /// @throws FileError   there is no such file, it cannot be read, it is not a .npy file, or not one of this header's kind
  explicit Reader(std::filesystem::path path, std::optional<Error>* error = nullptr)
      : Reader(detail::FileReporter(std::move(path), error)) {}

  /// The same with errors to `report`.
  explicit Reader(const detail::FileReporter& report) : file_(report) {
    if (report.failed()) return;
    Source source{file_, report};
    array_ = detail::read_header(source, report);
    position_ = source.position;
    is_open_ = !report.failed();
  }

  bool is_open() const noexcept { return is_open_; }                           ///< false after an error when it was opened
  const std::filesystem::path& path() const noexcept { return file_.path(); }  ///< as it was given
  const Header& header() const noexcept { return array_.header; }              ///< type and shape of the array
  std::int64_t byte_count() const noexcept { return array_.byte_count; }       ///< bytes of its data

  /// Reads the data. Call it once.
  ///
  ///   data   byte_count() bytes
  /// @throws FileError   the file cannot be read, or became shorter
  void read(std::span<std::byte> data, std::optional<Error>* error = nullptr) { read(data, reporter(error)); }

  /// The same with errors to `report`.
  void read(std::span<std::byte> data, const detail::FileReporter& report) {
    if (!is_open_) return report.fail("it is not open");
    Source source{file_, report, position_};
    if (source.read(data.data(), data.size()) < data.size()) report.fail("it became shorter while it was read");
    position_ = source.position;
  }

  /// Refuses the array.
  /// @throws FileError   always: this array cannot be used because of `why`
  [[noreturn]] void fail(const std::string& why) const { file_.fail(why); }

  /// Reports the errors of one call on this array.
  detail::FileReporter reporter(std::optional<Error>* error) const { return {path(), error}; }

 private:
  /// A file, read from its beginning to its end.
  struct Source {
    InputFile& file;
    const detail::FileReporter& report;
    std::uint64_t position = 0;

    std::size_t read(void* data, std::size_t size) {
      const std::size_t got = file.read(position, data, size, report);
      position += got;
      return got;
    }
    std::uint64_t remaining() const noexcept { return file.size() - (std::min)(position, file.size()); }
  };

  InputFile file_;
  std::uint64_t position_ = 0;  // of what has not been read
  detail::CheckedHeader array_;
  bool is_open_ = false;
};

/// .npy files that appear together or not at all: what is not published when the object dies is removed.
class StagedFiles {
 public:
  /// Writes the content of a future file `target`, as np.save writes it.
  ///
  ///   data   byte_count(header) bytes
  /// @throws FileError   the file cannot be written
  void add(const std::filesystem::path& target, const Header& header, std::span<const std::byte> data,
           std::optional<Error>* error = nullptr) {
    add(header, data, detail::FileReporter(target, error));
  }

  /// The same with errors to `report`, which names the target.
  void add(const Header& header, std::span<const std::byte> data, const detail::FileReporter& report) {
    const std::string before = format_header(header);
    StagedFile file(report);
    if (!report.failed()) file.write(std::as_bytes(std::span(before)), report);
    if (!report.failed()) file.write(data, report);
    if (!report.failed()) file.close(report);
    if (!report.failed()) files_.push_back(std::move(file));
  }

  /// Makes every added file appear, replacing an older one of its name; whatever happens, nothing stays added. Until all
  /// have appeared an older file is beside its successor as NAME.0.older. A program that is killed meanwhile leaves it there.
  /// @throws FileError   one cannot be renamed; then the folder is as it was before the first was added
  void publish(std::optional<Error>* error = nullptr) { publish(detail::FileReporter({}, error)); }

  /// The same with errors to `report`.
  void publish(const detail::FileReporter& report) {
    Publication publication;
    publication.files.swap(files_);
    // A single file needs no more than a renaming, which keeps the older one when it fails.
    if (publication.files.size() > 1) {
      for (StagedFile& file : publication.files) {
        file.keep_older(report);
        if (report.failed()) return;
      }
    }
    for (StagedFile& file : publication.files) {
      file.publish(report);
      if (report.failed()) return;
    }
    publication.succeeded = true;
  }

 private:
  /// Files that are being published. Unless that succeeds, the folder is left as it was.
  struct Publication {
    Publication() = default;
    Publication(const Publication&) = delete;
    Publication& operator=(const Publication&) = delete;
    ~Publication() {
      if (succeeded) {
        for (StagedFile& file : files) file.forget_older();
      } else {
        // The last first: of two files of one name the first knows what was there.
        std::for_each(files.rbegin(), files.rend(), [](StagedFile& file) { file.restore(); });
      }
    }

    std::vector<StagedFile> files;
    bool succeeded = false;
  };

  std::vector<StagedFile> files_;
};

/// Writes one file, whole or not at all.
/// @throws FileError   the file cannot be written
inline void write(const std::filesystem::path& path, const Header& header, std::span<const std::byte> data,
                  std::optional<Error>* error = nullptr) {
  StagedFiles files;
  const detail::FileReporter report(path, error);
  files.add(header, data, report);
  if (!report.failed()) files.publish(report);
}

}  // namespace batchnorm::npy
