// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <zlib.h>

// ZIP archives, right or wrong, built field by field and independently of the library.
namespace support {

inline std::string little_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i, value >>= 8) text += static_cast<char>(value & 0xFF);
  return text;
}

/// Raw deflate data of a text.
inline std::string deflated(std::string_view text) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  std::string input(text), output(deflateBound(&stream, static_cast<uLong>(text.size())), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
  const int status = deflate(&stream, Z_FINISH);
  output.resize(stream.total_out);
  deflateEnd(&stream);
  if (status != Z_STREAM_END) throw std::runtime_error("deflate");
  return output;
}

/// An entry of an archive; every field may be made to lie.
struct ZipEntry {
  std::string name;
  std::string data;  ///< as it lies in the archive, compressed or not
  std::uint64_t size = 0, compressed_size = 0;
  std::uint32_t crc = 0;
  int method = 0, flags = 0;
  std::string extra{};                           ///< of the directory
  std::string local_name = name, local_extra{};  ///< of the local header
  std::string local_signature = "PK\x03\x04";
  std::string after_data{};                 ///< such as a data descriptor
  std::optional<std::uint64_t> position{};  ///< that the directory gives instead of the true one

  /// A stored entry with everything right.
  ZipEntry(std::string name_, const std::string& content)
      : name(std::move(name_)), data(content), size(content.size()), compressed_size(size) {
    crc = static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(size)));
  }
  /// A deflated one.
  static ZipEntry compressed(const std::string& name, const std::string& content) {
    ZipEntry entry(name, content);
    entry.data = deflated(content);
    entry.compressed_size = entry.data.size();
    entry.method = 8;
    return entry;
  }
};

/// What stands at the end of an archive; what has no value is right.
struct ZipEnd {
  std::optional<std::uint64_t> entries{}, entries_here{}, directory_size{}, directory_position{};
  std::string between{};  ///< directory and end record
  std::string comment{};
  std::optional<std::size_t> comment_size{};
};

inline std::string zip_bytes(const std::vector<ZipEntry>& entries, const ZipEnd& end = {}) {
  std::string bytes, directory;
  for (const ZipEntry& entry : entries) {
    const std::string description = little_endian(static_cast<unsigned>(entry.flags), 2) +
                                    little_endian(static_cast<unsigned>(entry.method), 2) + little_endian(0x210000, 4) +
                                    little_endian(entry.crc, 4) + little_endian(entry.compressed_size, 4) +
                                    little_endian(entry.size, 4);
    directory += "PK\x01\x02" + little_endian(20, 2) + little_endian(20, 2) + description +
                 little_endian(entry.name.size(), 2) + little_endian(entry.extra.size(), 2) + std::string(10, '\0') +
                 little_endian(entry.position.value_or(bytes.size()), 4) + entry.name + entry.extra;
    bytes += entry.local_signature + little_endian(20, 2) + description + little_endian(entry.local_name.size(), 2) +
             little_endian(entry.local_extra.size(), 2) + entry.local_name + entry.local_extra + entry.data + entry.after_data;
  }
  const std::uint64_t position = bytes.size(), count = entries.size();
  bytes += directory + end.between + "PK\x05\x06" + std::string(4, '\0');
  bytes += little_endian(end.entries_here.value_or(end.entries.value_or(count)), 2);
  bytes += little_endian(end.entries.value_or(count), 2);
  bytes += little_endian(end.directory_size.value_or(directory.size()), 4);
  bytes += little_endian(end.directory_position.value_or(position), 4);
  return bytes + little_endian(end.comment_size.value_or(end.comment.size()), 2) + end.comment;
}

/// The bytes of a zip64 extra field.
inline std::string zip64_extra(const std::vector<std::uint64_t>& values) {
  std::string text = little_endian(1, 2) + little_endian(8 * values.size(), 2);
  for (const std::uint64_t value : values) text += little_endian(value, 8);
  return text;
}

}  // namespace support
