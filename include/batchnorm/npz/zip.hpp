// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <batchnorm/npy/file.hpp>
#include <batchnorm/npy/header.hpp>

// The records of a ZIP archive (PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5), as far as NumPy's .npz files use them.
namespace batchnorm::npz::detail {

inline constexpr std::string_view local_signature = "PK\x03\x04";
inline constexpr std::string_view directory_signature = "PK\x01\x02";
inline constexpr std::string_view end_signature = "PK\x05\x06";
inline constexpr std::string_view zip64_end_signature = "PK\x06\x06";
inline constexpr std::string_view zip64_locator_signature = "PK\x06\x07";

inline constexpr std::size_t local_size = 30;      // without name and extra field
inline constexpr std::size_t directory_size = 46;  // without name, extra field and comment
inline constexpr std::size_t end_size = 22;        // without comment
inline constexpr std::size_t zip64_end_size = 56;
inline constexpr std::size_t zip64_locator_size = 20;

/// A field of 4 bytes that holds this says: what I mean stands in a field of 8 bytes elsewhere.
inline constexpr std::uint64_t elsewhere = 0xFFFFFFFF;

enum Method : std::uint16_t { stored = 0, deflated = 8 };

inline constexpr std::uint16_t encrypted_flag = 1U << 0;
inline constexpr std::uint16_t sizes_after_data_flag = 1U << 3;  ///< checksum and sizes stand there, not in the local header
/// How hard deflate tried, sizes repeated after the data, a name in UTF-8: none changes how an entry is read here.
inline constexpr std::uint16_t harmless_flags = 1U << 1 | 1U << 2 | 1U << 3 | 1U << 11;

using npy::detail::FileReporter;

/// An array's name in a message.
inline std::string quoted(std::string_view name) { return npy::detail::quoted(name, 200); }

/// The numbers and texts of a record, one after the other. After an error nothing is left: numbers are 0, texts empty.
class Fields {
 public:
  Fields(std::string_view bytes, const FileReporter& report) : rest_(bytes), report_(report) {}

  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }

  std::string_view text(std::size_t size) {
    if (size > rest_.size()) {
      report_.fail("a record of its directory is cut short");
      rest_ = {};
      return {};
    }
    const std::string_view text = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return text;
  }

  bool at_end() const noexcept { return rest_.empty(); }

 private:
  std::uint64_t number(std::size_t size) {
    const std::string_view bytes = text(size);
    std::uint64_t value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
  }

  std::string_view rest_;
  const FileReporter& report_;
};

/// What the directory says of an entry.
struct Entry {
  std::string name{};
  std::uint16_t flags = 0;
  std::uint16_t method = stored;
  std::uint32_t crc = 0;
  std::uint64_t compressed_size = 0;
  std::uint64_t size = 0;
  std::uint64_t position = 0;  ///< of its local header
  std::uint64_t limit = 0;     ///< what follows it in the file begins here, another entry or the directory
};

/// Where the directory is, and how much of it.
struct End {
  std::uint64_t entries = 0;
  std::uint64_t directory_size = 0;
  std::uint64_t directory_position = 0;
  std::uint64_t position = 0;  ///< where the directory must end
};

/// `size` bytes of the file; zeros after an error.
inline std::string read_exactly(npy::InputFile& file, std::uint64_t position, std::uint64_t size, const FileReporter& report) {
  std::string bytes(static_cast<std::size_t>(size), '\0');
  if (file.read(position, bytes.data(), bytes.size(), report) < bytes.size()) {
    report.fail("it became shorter while it was read");
  }
  return bytes;
}

/// The fields of the archive's last record, which lies at `position` and whose first bytes are `record`.
inline End parse_end(std::string_view record, std::uint64_t position, const FileReporter& report) {
  Fields fields(record.substr(end_signature.size()), report);
  const std::uint16_t disk = fields.u16(), directory_disk = fields.u16();
  const std::uint16_t entries_here = fields.u16(), entries = fields.u16();
  if (disk != directory_disk || entries_here != entries) report.fail("it is one part of a divided archive");
  End end{.entries = entries, .position = position};
  end.directory_size = fields.u32();
  end.directory_position = fields.u32();
  return end;
}

/// Reads the record that stands for the last one where that one's fields are too narrow.
///   locator   the record between the two, which lies at `locator_position`
inline End read_zip64_end(npy::InputFile& file, std::string_view locator, std::uint64_t locator_position,
                          const FileReporter& report) {
  Fields location(locator.substr(zip64_locator_signature.size()), report);
  location.u32();
  const std::uint64_t position = location.u64();
  if (locator_position < zip64_end_size || position > locator_position - zip64_end_size) {
    report.fail("its zip64 end record is not where its locator says");
    return {};
  }
  const std::string record = read_exactly(file, position, zip64_end_size, report);
  Fields fields(record, report);
  if (fields.text(4) != zip64_end_signature || fields.u64() != locator_position - position - 12) {
    report.fail("its zip64 end record is not where its locator says");
  }
  fields.text(4);  // versions
  const std::uint32_t disk = fields.u32(), directory_disk = fields.u32();
  const std::uint64_t entries_here = fields.u64(), entries = fields.u64();
  if (disk != directory_disk || entries_here != entries) report.fail("it is one part of a divided archive");
  End end{.entries = entries, .position = position};
  end.directory_size = fields.u64();
  end.directory_position = fields.u64();
  return end;
}

/// Bytes that follow the first place in the file that can be the end of an archive; none where there is no such place. Asked
/// only of files that do not end as an archive does.
inline std::optional<std::uint64_t> bytes_after_end(npy::InputFile& file, const FileReporter& report) {
  constexpr std::size_t step = 65536;
  for (std::uint64_t begin = 0; begin + end_size <= file.size(); begin += step) {
    const std::string part =
        read_exactly(file, begin, (std::min<std::uint64_t>)(file.size() - begin, step + end_size - 1), report);
    if (report.failed()) return {};
    for (std::size_t at = part.find(end_signature); at < step && at + end_size <= part.size();
         at = part.find(end_signature, at + 1)) {
      const std::string_view record = std::string_view(part).substr(at, end_size);
      const std::uint64_t position = begin + at,
                          after = position + end_size + Fields(record.substr(end_size - 2), report).u16();
      Fields fields(record.substr(12), report);
      const std::uint64_t size = fields.u32(), directory_position = fields.u32();
      const bool is_end = size + directory_position == position || directory_position == elsewhere;
      if (is_end && after < file.size()) return file.size() - after;
    }
  }
  return {};
}

/// Finds the directory from the end of the file, as the format wants it: the archive's last record is the one whose comment
/// reaches exactly to the end.
inline End read_end(npy::InputFile& file, const FileReporter& report) {
  const std::uint64_t tail_size = (std::min<std::uint64_t>)(file.size(), zip64_locator_size + end_size + 0xFFFF);
  const std::uint64_t tail_position = file.size() - tail_size;
  const std::string tail = read_exactly(file, tail_position, tail_size, report);
  const std::string_view view = tail;
  for (std::size_t comment = 0; comment <= 0xFFFF && comment + end_size <= view.size(); ++comment) {
    const std::size_t at = view.size() - comment - end_size;
    const std::string_view record = view.substr(at, end_size);
    if (!record.starts_with(end_signature) || Fields(record.substr(end_size - 2), report).u16() != comment) continue;
    const End end = parse_end(record, tail_position + at, report);
    if (at < zip64_locator_size) return end;
    const std::string_view locator = view.substr(at - zip64_locator_size, zip64_locator_size);
    if (!locator.starts_with(zip64_locator_signature)) return end;
    return read_zip64_end(file, locator, tail_position + at - zip64_locator_size, report);
  }
  if (const auto more = bytes_after_end(file, report)) {
    report.fail("it has " + std::to_string(*more) + " bytes after the end of the ZIP archive");
  } else {
    report.fail("it is not a .npz file or was cut short: no end of a ZIP archive is there");
  }
  return {};
}

/// Replaces the sizes and the position that are too large for their fields by those of the zip64 extra field.
inline void read_wide_fields(Entry& entry, std::string_view extra, const FileReporter& report) {
  const auto is_elsewhere = [](std::uint64_t value) { return value == elsewhere; };
  if (!is_elsewhere(entry.size) && !is_elsewhere(entry.compressed_size) && !is_elsewhere(entry.position)) return;
  constexpr std::uint16_t zip64 = 1;
  for (Fields fields(extra, report); !fields.at_end();) {
    const std::uint16_t kind = fields.u16();
    Fields wide(fields.text(fields.u16()), report);
    if (kind != zip64) continue;
    for (std::uint64_t* value : {&entry.size, &entry.compressed_size, &entry.position}) {
      if (is_elsewhere(*value)) *value = wide.u64();
    }
    return;
  }
}

/// Gives each entry its limit. Of entries at one position none has room.
inline void set_limits(std::vector<Entry>& entries, std::uint64_t directory_position) {
  std::vector<std::uint64_t> positions;
  for (const Entry& entry : entries) positions.push_back(entry.position);
  std::ranges::sort(positions);
  for (Entry& entry : entries) {
    const auto [first, last] = std::equal_range(positions.begin(), positions.end(), entry.position);
    entry.limit = last - first > 1 ? entry.position : last == positions.end() ? directory_position : *last;
    entry.limit = (std::min)(entry.limit, directory_position);
  }
}

inline Entry parse_entry(Fields& fields, const FileReporter& report) {
  if (fields.text(4) != directory_signature) report.fail("its directory is not one of a ZIP archive");
  Entry entry;
  fields.text(4);  // versions
  entry.flags = fields.u16();
  entry.method = fields.u16();
  fields.text(4);  // time and date
  entry.crc = fields.u32();
  entry.compressed_size = fields.u32();
  entry.size = fields.u32();
  const std::uint16_t name_size = fields.u16(), extra_size = fields.u16(), comment_size = fields.u16();
  fields.text(8);  // disk and attributes
  entry.position = fields.u32();
  entry.name = fields.text(name_size);
  read_wide_fields(entry, fields.text(extra_size), report);
  fields.text(comment_size);
  return entry;
}

/// Reads the directory. What it says of an entry is checked when the entry is opened. Nothing after an error: it is not a ZIP
/// archive, or not a whole one, or the file cannot be read.
inline std::vector<Entry> read_directory(npy::InputFile& file, const FileReporter& report) {
  const End end = read_end(file, report);
  if (report.failed()) return {};
  if (end.directory_size > end.position || end.directory_position != end.position - end.directory_size) {
    report.fail("its directory is not where its end record says");
    return {};
  }
  if (end.entries > end.directory_size / directory_size) {
    report.fail("its directory claims " + std::to_string(end.entries) + " entries, it has only " +
                std::to_string(end.directory_size) + " bytes");
    return {};
  }
  const std::string directory = read_exactly(file, end.directory_position, end.directory_size, report);
  std::vector<Entry> entries(static_cast<std::size_t>(end.entries));
  Fields fields(directory, report);
  for (Entry& entry : entries) {
    entry = parse_entry(fields, report);
    if (report.failed()) return {};
  }
  if (!fields.at_end()) report.fail("its directory goes on after its " + std::to_string(end.entries) + " entries");
  if (report.failed()) return {};
  set_limits(entries, end.directory_position);
  return entries;
}

/// A record as it is written.
class Record {
 public:
  explicit Record(std::string_view signature) : bytes_(signature) {}

  Record& u16(std::uint64_t value) { return number(value, 2); }
  Record& u32(std::uint64_t value) { return number(value, 4); }
  Record& text(std::string_view text) {
    bytes_ += text;
    return *this;
  }

  const std::string& bytes() const noexcept { return bytes_; }

 private:
  Record& number(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) bytes_ += static_cast<char>(value >> 8 * i & 0xFF);
    return *this;
  }

  std::string bytes_;
};

/// What stands before an entry's data, and once more in the directory: the fields from the version to the sizes.
inline void append_description(Record& record, const Entry& entry) {
  constexpr std::uint16_t version = 20;            // of the format: 2.0, which knows deflate
  constexpr std::uint16_t first_of_1980 = 0x0021;  // the oldest date there is: the same arrays give the same bytes
  record.u16(version).u16(entry.flags).u16(entry.method).u16(0).u16(first_of_1980);
  record.u32(entry.crc).u32(entry.compressed_size).u32(entry.size);
  record.u16(entry.name.size()).u16(0);
}

inline std::string format_local_header(const Entry& entry) {
  Record record(local_signature);
  append_description(record, entry);
  return record.text(entry.name).bytes();
}

inline std::string format_directory_entry(const Entry& entry) {
  constexpr std::uint16_t made_by = 20;  // MS-DOS: no permissions, who unpacks gives his own
  Record record(directory_signature);
  record.u16(made_by);
  append_description(record, entry);
  record.u16(0).u16(0).u16(0).u32(0).u32(entry.position);
  return record.text(entry.name).bytes();
}

inline std::string format_end(const End& end) {
  Record record(end_signature);
  record.u16(0).u16(0).u16(end.entries).u16(end.entries).u32(end.directory_size).u32(end.directory_position).u16(0);
  return record.bytes();
}

}  // namespace batchnorm::npz::detail
