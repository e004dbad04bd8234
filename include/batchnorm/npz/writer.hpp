// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zlib.h>

#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npz/zip.hpp>

// Writes .npz files, ZIP archives of .npy files, as np.load reads them. Needs zlib.
namespace batchnorm::npz {

/// Whether an archive's arrays are compressed: as np.savez writes them, or as np.savez_compressed.
enum class Compression { stored, deflated };

namespace detail {

struct EndDeflate {
  void operator()(z_stream* stream) const noexcept {
    deflateEnd(stream);
    delete stream;
  }
};
using DeflateStream = std::unique_ptr<z_stream, EndDeflate>;

/// Null after an error.
inline DeflateStream begin_deflate(const FileReporter& report) {
  auto stream = std::make_unique<z_stream>();
  constexpr int raw = -MAX_WBITS;  // without a header of zlib's own
  constexpr int memory_level = 8;  // zlib's default
  const int status = deflateInit2(stream.get(), Z_DEFAULT_COMPRESSION, Z_DEFLATED, raw, memory_level, Z_DEFAULT_STRATEGY);
  if (status == Z_MEM_ERROR) batchnorm::detail::raise(std::bad_alloc());
  if (status != Z_OK) {
    report.fail("zlib refuses to work: " + std::string(zError(status)));
    return {};
  }
  return DeflateStream(stream.release());
}

/// What an entry holds: the header of an array, and its data.
using Content = std::array<std::span<const std::byte>, 2>;

/// Appends what comes out for `bytes`, less than 4 GiB. `flush` is Z_FINISH with the last bytes, otherwise Z_NO_FLUSH.
inline void deflate_some(z_stream& stream, std::span<const std::byte> bytes, int flush, std::vector<std::byte>& to) {
  std::array<std::byte, 16384> buffer;
  // zlib only reads its input, but was written before const.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  do {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    deflate(&stream, flush);
    to.insert(to.end(), buffer.begin(), buffer.end() - static_cast<std::ptrdiff_t>(stream.avail_out));
  } while (stream.avail_out == 0);
}

inline std::vector<std::byte> compressed(const Content& content, const FileReporter& report) {
  std::vector<std::byte> bytes;
  const DeflateStream stream = begin_deflate(report);
  if (stream == nullptr) return bytes;
  deflate_some(*stream, content[0], Z_NO_FLUSH, bytes);
  deflate_some(*stream, content[1], Z_FINISH, bytes);
  return bytes;
}

inline std::uint32_t checksum(const Content& content) {
  uLong crc = 0;
  for (const auto bytes : content) {
    // A null pointer, as that of no bytes may be, makes zlib begin anew.
    if (!bytes.empty()) crc = crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  }
  return static_cast<std::uint32_t>(crc);
}

}  // namespace detail

/// An array that is to be written, as Writer::add takes it; the data belongs to the caller.
struct NewArray {
  std::string name;                 ///< not empty, printable characters of ASCII, given to no other array of the archive
  npy::Header header{};             ///< type and shape
  std::span<const std::byte> data;  ///< byte_count(header) bytes
};

/// A .npz file in the making: it appears whole when it is published, or not at all. The same arrays in the same order give the
/// same bytes (compressed: with the same zlib); every entry carries the date 1980-01-01. Each function takes an `error`, which
/// takes the error instead of a throw.
class Writer {
 public:
  /// @throws npy::FileError   the file cannot be written
  explicit Writer(std::filesystem::path path, Compression compression = Compression::stored,
                  std::optional<Error>* error = nullptr)
      : Writer(compression, detail::FileReporter(std::move(path), error)) {}

  Writer(Compression compression, const detail::FileReporter& report) : file_(report), compression_(compression) {}

  /// Adds arrays, all or none; np.load finds each under its name. After an error the archive is as it was and they may be
  /// added again, with one exception: where the file cannot be written, publish() will refuse as well.
  /// An archive has at most 65,535 arrays and 4 GiB (larger ones would need zip64, which only the reader knows).
  /// @throws npy::FileError   an array cannot be added, or the file cannot be written
  /// @throws std::bad_alloc
  void add(std::span<const NewArray> arrays, std::optional<Error>* error = nullptr) {
    add(arrays, detail::FileReporter(file_.target(), error));
  }

  void add(std::span<const NewArray> arrays, const detail::FileReporter& report) {
    std::set<std::string, std::less<>> names;
    std::vector<Prepared> all;
    std::string directory;
    std::uint64_t position = position_;
    for (const NewArray& array : arrays) {
      check(array, report);
      if (report.failed()) return;
      if (names_.contains(array.name) || !names.insert(array.name).second) {
        return fail(report, array.name, "there is one of that name");
      }
      if (entries_ + all.size() == most_entries) {
        return fail(report, array.name, "there are " + std::to_string(most_entries) + " already");
      }
      const Prepared& added = all.emplace_back(prepare(array, position, report));
      if (report.failed()) return;
      position += added.before.size() + added.compressed.size() + added.data.size();
      directory += added.directory_entry;
      if (position + directory_.size() + directory.size() > largest) {
        return fail(report, array.name, "the archive would be larger than 4 GiB");
      }
    }
    directory_ += directory;  // the last that may lack memory
    names_.merge(names);
    entries_ += all.size();
    position_ = position;
    for (const Prepared& added : all) {
      for (const auto part :
           {std::as_bytes(std::span(added.before)), std::span<const std::byte>(added.compressed), added.data}) {
        file_.write(part, report);
        if (report.failed()) return;
      }
    }
  }

  /// Adds an array, as the other does.
  ///   name, header, data   those of a NewArray
  void add(std::string_view name, const npy::Header& header, std::span<const std::byte> data,
           std::optional<Error>* error = nullptr) {
    const NewArray array{std::string(name), header, data};
    add(std::span(&array, 1), error);
  }

  /// Ends the archive and makes it appear, replacing an older file of its name. Nothing can be added afterwards.
  /// @throws npy::FileError   the file cannot be written; where only the renaming failed, it may be called again
  void publish(std::optional<Error>* error = nullptr) { publish(detail::FileReporter(file_.target(), error)); }

  void publish(const detail::FileReporter& report) {
    if (!ended_) {
      const std::string end = detail::format_end(
          {.entries = entries_, .directory_size = directory_.size(), .directory_position = position_, .position = 0});
      file_.write(std::as_bytes(std::span(directory_)), report);
      file_.write(std::as_bytes(std::span(end)), report);
      if (report.failed()) return;
      file_.close(report);
      if (report.failed()) return;
      ended_ = true;
    }
    file_.publish(report);
  }

 private:
  static constexpr std::string_view ending = ".npy";
  static constexpr std::uint64_t largest = 0xFFFFFFFE;  // one more would mean "see the zip64 field"
  static constexpr std::uint64_t most_entries = 0xFFFF;

  static void fail(const detail::FileReporter& report, std::string_view name, const std::string& why) {
    report.fail("array " + detail::quoted(name) + " cannot be added: " + why);
  }

  static void check(const NewArray& array, const detail::FileReporter& report) {
    const auto is_printable = [](char letter) { return letter >= ' ' && letter <= '~'; };
    const auto& [name, header, data] = array;
    if (name.empty() || name.size() + ending.size() > 0xFFFF || !std::ranges::all_of(name, is_printable)) {
      return fail(report, name, "its name must have 1 to 65531 printable characters of ASCII");
    }
    const std::int64_t bytes = npy::detail::byte_count(header, report.of_array(name));
    if (bytes != std::ssize(data)) {
      fail(report, name,
           "shape " + npy::to_string(header.shape) + " of " + npy::type_name(header.type) + " takes " + std::to_string(bytes) +
               " bytes, given are " + std::to_string(data.size()));
    }
  }

  /// An array as it will lie in the file.
  struct Prepared {
    std::string before;                 // the local header and, where the data is stored, the array's own
    std::vector<std::byte> compressed;  // the array's header and its data
    std::span<const std::byte> data;    // where it is stored
    std::string directory_entry;
  };

  /// Incomplete after an error.
  Prepared prepare(const NewArray& array, std::uint64_t position, const detail::FileReporter& report) const {
    const std::string header = npy::format_header(array.header);
    const detail::Content content{std::as_bytes(std::span(header)), array.data};
    detail::Entry entry{.name = array.name + std::string(ending), .position = position};
    entry.size = entry.compressed_size = header.size() + array.data.size();
    if (entry.size > largest) {
      fail(report, array.name, "it is larger than 4 GiB");
      return {};
    }
    entry.crc = detail::checksum(content);
    Prepared result;
    if (compression_ == Compression::deflated) {
      result.compressed = detail::compressed(content, report);
      entry.method = detail::deflated;
      entry.compressed_size = result.compressed.size();
      result.before = detail::format_local_header(entry);
    } else {
      result.before = detail::format_local_header(entry) + header;
      result.data = array.data;
    }
    result.directory_entry = detail::format_directory_entry(entry);
    return result;
  }

  npy::StagedFile file_;
  Compression compression_;
  std::set<std::string, std::less<>> names_;
  std::string directory_;
  std::uint64_t entries_ = 0;
  std::uint64_t position_ = 0;  // where the next entry begins
  bool ended_ = false;          // the file is complete and closed
};

}  // namespace batchnorm::npz
