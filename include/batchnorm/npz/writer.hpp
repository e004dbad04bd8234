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
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zlib.h>

#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npz/zip.hpp>

// Writes .npz files, ZIP archives of .npy files, as np.load reads them. Needs zlib and exceptions.
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

inline DeflateStream begin_deflate() {
  auto stream = std::make_unique<z_stream>();
  constexpr int raw = -MAX_WBITS;  // without a header of zlib's own
  constexpr int memory_level = 8;  // zlib's default
  const int status = deflateInit2(stream.get(), Z_DEFAULT_COMPRESSION, Z_DEFLATED, raw, memory_level, Z_DEFAULT_STRATEGY);
  if (status == Z_MEM_ERROR) throw std::bad_alloc();
  if (status != Z_OK) throw ArchiveError("zlib refuses to work: " + std::string(zError(status)));
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

inline std::vector<std::byte> compressed(const Content& content) {
  std::vector<std::byte> bytes;
  const DeflateStream stream = begin_deflate();
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

/// A .npz file in the making: it appears whole when it is published, or not at all. The same arrays in the same order give the
/// same bytes (compressed: with the same zlib); every entry carries the date 1980-01-01.
class Writer {
 public:
  /// @throws npy::FileError   the file cannot be written
  explicit Writer(std::filesystem::path path, Compression compression = Compression::stored)
      : file_(std::move(path)), compression_(compression) {}

  /// Adds an array; np.load finds it under `name`.
  ///   name   not empty, printable characters of ASCII, given to no other array
  ///   data   byte_count(header) bytes
  /// An archive has at most 65,535 arrays and 4 GiB (larger ones would need zip64, which only the reader knows).
  /// @throws npy::FileError   one of these does not hold: the archive is as it was; or the file cannot be written: publish()
  ///                          will refuse, too
  void add(std::string_view name, const npy::Header& header, std::span<const std::byte> data) {
    check(name, header, data);
    const std::string before = npy::format_header(header);
    const detail::Content content{std::as_bytes(std::span(before)), data};
    detail::Entry entry{.name = std::string(name) + std::string(ending), .position = position_};
    entry.size = entry.compressed_size = before.size() + data.size();
    if (entry.size > largest) fail(name, "it is larger than 4 GiB");
    entry.crc = detail::checksum(content);
    if (compression_ == Compression::stored) return write(entry, content);
    const std::vector<std::byte> bytes = detail::compressed(content);
    entry.method = detail::deflated;
    entry.compressed_size = bytes.size();
    write(entry, {bytes, {}});
  }

  /// Ends the archive and makes it appear, in the place of an older file of its name. Nothing may be called after it.
  /// @throws npy::FileError   the file cannot be written
  void publish() {
    const detail::End end{.entries = entries_, .directory_size = directory_.size(), .directory_position = position_};
    directory_ += detail::format_end(end);
    file_.write(std::as_bytes(std::span(directory_)));
    file_.close();
    file_.publish();
  }

 private:
  static constexpr std::string_view ending = ".npy";
  static constexpr std::uint64_t largest = 0xFFFFFFFE;  // one more would mean "see the zip64 field"
  static constexpr std::uint64_t most_entries = 0xFFFF;

  [[noreturn]] void fail(std::string_view name, const std::string& why) const {
    throw npy::FileError(file_.target(), "array " + detail::quoted(name) + " cannot be added: " + why);
  }

  void check(std::string_view name, const npy::Header& header, std::span<const std::byte> data) const {
    const auto is_printable = [](char letter) { return letter >= ' ' && letter <= '~'; };
    if (name.empty() || name.size() + ending.size() > 0xFFFF || !std::ranges::all_of(name, is_printable)) {
      fail(name, "its name must have 1 to 65531 printable characters of ASCII");
    }
    if (names_.contains(name)) fail(name, "there is one of that name");
    if (entries_ == most_entries) fail(name, "there are " + std::to_string(entries_) + " already");
    if (npy::byte_count(header) != std::ssize(data)) {
      fail(name, "shape " + npy::to_string(header.shape) + " of " + npy::type_name(header.type) + " takes " +
                     std::to_string(npy::byte_count(header)) + " bytes, given are " + std::to_string(data.size()));
    }
  }

  void write(const detail::Entry& entry, const detail::Content& content) {
    const std::string local_header = detail::format_local_header(entry);
    const std::string directory_entry = detail::format_directory_entry(entry);
    const std::string_view name = std::string_view(entry.name).substr(0, entry.name.size() - ending.size());
    const std::uint64_t next = position_ + local_header.size() + entry.compressed_size;
    if (next + directory_.size() + directory_entry.size() > largest) fail(name, "the archive would be larger than 4 GiB");
    names_.emplace(name);
    directory_ += directory_entry;
    ++entries_;
    position_ = next;
    file_.write(std::as_bytes(std::span(local_header)));
    for (const auto bytes : content) file_.write(bytes);
  }

  npy::StagedFile file_;
  Compression compression_;
  std::set<std::string, std::less<>> names_;
  std::string directory_;
  std::uint64_t entries_ = 0;
  std::uint64_t position_ = 0;  // where the next entry begins
};

}  // namespace batchnorm::npz
