// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zlib.h>

#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npz/zip.hpp>

// Reads .npz files, ZIP archives of .npy files, as np.savez and np.savez_compressed write them: stored or deflated, with zip64
// fields or without, from a seekable or an unseekable stream. Needs zlib.
namespace batchnorm::npz {

namespace detail {

struct EndInflate {
  void operator()(z_stream* stream) const noexcept {
    inflateEnd(stream);
    delete stream;
  }
};
using InflateStream = std::unique_ptr<z_stream, EndInflate>;

/// Null after an error.
inline InflateStream begin_inflate(const FileReporter& report) {
  auto stream = std::make_unique<z_stream>();
  constexpr int raw = -MAX_WBITS;  // deflate's data without a header of zlib's own
  const int status = inflateInit2(stream.get(), raw);
  if (status == Z_MEM_ERROR) batchnorm::detail::raise(std::bad_alloc());
  if (status != Z_OK) {
    report.fail("zlib refuses to work: " + std::string(zError(status)));
    return {};
  }
  return InflateStream(stream.release());
}

/// The content of an entry, read from its beginning to its end.
class EntryStream {
 public:
  /// Empty after an error: the entry or the file cannot be read.
  EntryStream(std::shared_ptr<npy::InputFile> file, const Entry& entry, const FileReporter& report)
      : file_(std::move(file)), entry_(entry) {
    check_readable(report);
    if (report.failed()) return;
    position_ = data_position(report);
    if (report.failed()) return;
    if (entry_.method == deflated) inflate_ = begin_inflate(report);
    if (report.failed()) return;
    compressed_left_ = entry_.compressed_size;
    remaining_ = entry_.size;
  }

  /// Bytes of the content that have not been read.
  std::uint64_t remaining() const noexcept { return remaining_; }

  /// Reads up to `size` bytes; fewer only at the end, and none after an error: the content is damaged, or the file cannot be
  /// read.
  std::size_t read(void* data, std::size_t size, const FileReporter& report) {
    size = static_cast<std::size_t>((std::min<std::uint64_t>)(size, remaining_));
    if (size == 0) return 0;
    auto* bytes = static_cast<unsigned char*>(data);
    if (inflate_ == nullptr) {
      if (read_compressed(bytes, size, report) < size) report.fail("its data ends early");
    } else {
      if (inflate_some(bytes, size, report) < size) report.fail("its compressed data ends early");
    }
    if (report.failed()) return 0;
    crc_ = crc32_z(crc_, bytes, size);
    remaining_ -= size;
    return size;
  }

  /// To be called when all has been read: is it what was written?
  void finish(const FileReporter& report) {
    unsigned char beyond = 0;
    if (inflate_ != nullptr &&
        (inflate_some(&beyond, 1, report) != 0 || !ended_ || compressed_left_ + inflate_->avail_in != 0)) {
      report.fail("its compressed data does not end with the " + std::to_string(entry_.size) + " bytes that it claims");
    }
    if (crc_ != entry_.crc) report.fail("its checksum (CRC-32) does not fit: the data is damaged");
  }

 private:
  void check_readable(const FileReporter& report) const {
    if ((entry_.flags & encrypted_flag) != 0) return report.fail("it is encrypted");
    if ((entry_.flags & ~harmless_flags) != 0) {
      return report.fail("it has the flags " + std::to_string(entry_.flags) + ", of which some are unknown here");
    }
    const std::string claim = "it claims " + std::to_string(entry_.size) + " bytes, ";
    const std::string has = "it has " + std::to_string(entry_.compressed_size);
    if (entry_.method == stored) {
      if (entry_.size != entry_.compressed_size) report.fail(claim + has);
    } else if (entry_.method == deflated) {
      // Deflate's shortest code for a repetition of 258 bytes has 2 bits. What lies beyond cannot be true; nobody allocates it.
      constexpr std::uint64_t largest_ratio = 1032;
      if (entry_.size / largest_ratio > entry_.compressed_size) report.fail(claim + has + " compressed ones");
    } else {
      report.fail("it is compressed by method " + std::to_string(entry_.method) +
                  "; only 0 (stored) and 8 (deflated) can be read");
    }
  }

  /// Where the data begins: after the local header, whose name and extra field have lengths of their own. 0 after an error.
  std::uint64_t data_position(const FileReporter& report) {
    const std::uint64_t file_size = file_->size();
    const auto refuse = [&] {
      report.fail("its data is not where the directory says");
      return 0;
    };
    if (file_size < local_size || entry_.position > file_size - local_size) return refuse();
    const std::string header = read_exactly(*file_, entry_.position, local_size, report);
    if (!header.starts_with(local_signature)) return refuse();
    Fields lengths(std::string_view(header).substr(local_size - 4), report);
    const std::uint64_t name_size = lengths.u16(), extra_size = lengths.u16();
    const std::uint64_t left = file_size - entry_.position - local_size;
    if (name_size + extra_size > left || entry_.compressed_size > left - name_size - extra_size) return refuse();
    if (read_exactly(*file_, entry_.position + local_size, name_size, report) != entry_.name) return refuse();
    const std::uint64_t position = entry_.position + local_size + name_size + extra_size;
    // Entries that share their data would make much of a small file: each alone is within deflate's ratio, their sum is not.
    if (entry_.limit < position || entry_.compressed_size > entry_.limit - position) {
      report.fail("its data overlaps what follows it in the archive");
      return 0;
    }
    check_local_header(header, read_exactly(*file_, position - extra_size, extra_size, report), report);
    return position;
  }

  /// The local header repeats what the directory says. Writers that cannot seek leave checksum and sizes out and put them after
  /// the data.
  void check_local_header(std::string_view header, std::string_view extra, const FileReporter& report) const {
    Fields fields(header.substr(6), report);
    Entry local{.flags = fields.u16(), .method = fields.u16()};
    fields.text(4);  // time and date
    local.crc = fields.u32();
    local.compressed_size = fields.u32();
    local.size = fields.u32();
    if ((local.flags & sizes_after_data_flag) != 0) {
      local.crc = entry_.crc;
      local.compressed_size = entry_.compressed_size;
      local.size = entry_.size;
    }
    read_wide_fields(local, extra, report);
    // Left "elsewhere" without a zip64 field: only the directory knows.
    const auto differ = [](std::uint64_t here, std::uint64_t there) { return here != there && here != elsewhere; };
    if (local.method != entry_.method || (local.flags & encrypted_flag) != (entry_.flags & encrypted_flag) ||
        local.crc != entry_.crc || differ(local.compressed_size, entry_.compressed_size) || differ(local.size, entry_.size)) {
      report.fail("its local header and the directory disagree");
    }
  }

  std::size_t read_compressed(unsigned char* to, std::size_t size, const FileReporter& report) {
    size = static_cast<std::size_t>((std::min<std::uint64_t>)(size, compressed_left_));
    const std::size_t got = file_->read(position_, to, size, report);
    position_ += got;
    compressed_left_ -= got;
    return got;
  }

  /// Decompresses up to `size` bytes; fewer where the compressed data ends.
  std::size_t inflate_some(unsigned char* to, std::size_t size, const FileReporter& report) {
    std::size_t done = 0;
    while (done < size && !ended_) {
      if (inflate_->avail_in == 0) {
        inflate_->next_in = buffer_.data();
        inflate_->avail_in = static_cast<uInt>(read_compressed(buffer_.data(), buffer_.size(), report));
      }
      const uInt step = static_cast<uInt>((std::min<std::size_t>)(size - done, 1U << 30));
      inflate_->next_out = to + done;
      inflate_->avail_out = step;
      const int status = inflate(inflate_.get(), Z_NO_FLUSH);
      done += step - inflate_->avail_out;
      if (status == Z_MEM_ERROR) batchnorm::detail::raise(std::bad_alloc());
      if (status == Z_BUF_ERROR) break;  // it needs more than there is
      if (status != Z_OK && status != Z_STREAM_END) {
        report.fail("its compressed data is damaged");
        break;
      }
      ended_ = status == Z_STREAM_END;
    }
    return done;
  }

  std::shared_ptr<npy::InputFile> file_;
  Entry entry_;
  std::uint64_t position_ = 0;         // in the file, of what has not been read
  std::uint64_t compressed_left_ = 0;  // bytes that follow there
  std::uint64_t remaining_ = 0;
  uLong crc_ = 0;
  InflateStream inflate_;  // null where the entry is stored
  bool ended_ = false;     // the compressed data says that it ends here
  std::array<unsigned char, 16384> buffer_{};
};

}  // namespace detail

/// An array of an archive, open: its header is checked, and its size is exactly what the header demands. As npy::Reader.
class Array {
 public:
  bool is_open() const noexcept { return stream_ != nullptr; }
  const npy::Header& header() const noexcept { return array_.header; }
  std::int64_t byte_count() const noexcept { return array_.byte_count; }

  /// Reads the data and compares its checksum. Call it once.
  ///   data    byte_count() bytes; undefined after an error
  ///   error   if given, takes the error instead of a throw
  /// @throws npy::FileError   the archive cannot be read, or the data is damaged
  void read(std::span<std::byte> data, std::optional<Error>* error = nullptr) { read(data, reporter(error)); }

  void read(std::span<std::byte> data, const detail::FileReporter& report) {
    if (!is_open()) return report.fail("it is not open");
    stream_->read(data.data(), data.size(), report);
    if (!report.failed()) stream_->finish(report);
  }

  /// @throws npy::FileError   always: this array cannot be used because of `why`
  [[noreturn]] void fail(const std::string& why) const { reporter(nullptr).raise(why); }

  detail::FileReporter reporter(std::optional<Error>* error) const {
    return detail::FileReporter(file_->path(), error).of_array(name_);
  }

 private:
  friend class Reader;
  Array(std::shared_ptr<npy::InputFile> file, std::string_view name) : file_(std::move(file)), name_(name) {}

  void open(const detail::Entry& entry, const detail::FileReporter& report) {
    auto stream = std::make_unique<detail::EntryStream>(file_, entry, report);
    if (report.failed()) return;
    Source source{*stream, report};
    array_ = npy::detail::read_header(source, report);
    if (!report.failed()) stream_ = std::move(stream);
  }

  struct Source {
    detail::EntryStream& stream;
    const detail::FileReporter& report;

    std::size_t read(void* data, std::size_t size) { return stream.read(data, size, report); }
    std::uint64_t remaining() const noexcept { return stream.remaining(); }
  };

  std::shared_ptr<npy::InputFile> file_;
  std::string name_;
  std::unique_ptr<detail::EntryStream> stream_;  // null after an error when it was opened
  npy::detail::CheckedHeader array_;
};

/// An open .npz file. Its arrays have the names that np.load gives them: those of the entries that end in ".npy", without that
/// ending. Names are keys and nothing else; no file has them. Other entries are passed over.
class Reader {
 public:
  ///   error   if given, takes the error instead of a throw; there are no arrays then
  /// @throws npy::FileError   there is no such file, it cannot be read, it is not a whole ZIP archive, or it has two entries of
  ///                          one name
  explicit Reader(std::filesystem::path path, std::optional<Error>* error = nullptr)
      : Reader(detail::FileReporter(std::move(path), error)) {}

  explicit Reader(const detail::FileReporter& report) : file_(std::make_shared<npy::InputFile>(report)) {
    if (!report.failed()) read_names(report);
    if (!report.failed()) return;
    arrays_.clear();
    names_.clear();
  }

  const std::filesystem::path& path() const noexcept { return file_->path(); }

  /// The names of all arrays, in the archive's order.
  const std::vector<std::string>& names() const noexcept { return names_; }

  bool contains(std::string_view name) const { return arrays_.contains(name); }

  /// Opens an array. Several may be open at once, by one thread; they may outlive the reader.
  ///   error   if given, takes the error instead of a throw
  /// @throws npy::FileError   there is no such array, or it cannot be read: damaged, encrypted, compressed by another method
  ///                          than deflate, of a size that cannot be true, of data that overlaps another entry, or not an array
  ///                          of npy.hpp's kind
  Array open(std::string_view name, std::optional<Error>* error = nullptr) const {
    return open(name, detail::FileReporter(path(), error));
  }

  Array open(std::string_view name, const detail::FileReporter& report) const {
    Array array(file_, name);
    if (const auto found = arrays_.find(name); found != arrays_.end()) {
      array.open(found->second, report.of_array(name));
    } else {
      report.fail("it has no array " + detail::quoted(name));
    }
    return array;
  }

 private:
  void read_names(const detail::FileReporter& report) {
    constexpr std::string_view ending = ".npy";
    for (detail::Entry& entry : detail::read_directory(*file_, report)) {
      if (!entry.name.ends_with(ending)) continue;
      std::string name = entry.name.substr(0, entry.name.size() - ending.size());
      if (arrays_.contains(name)) return report.fail("it has two arrays " + detail::quoted(name));
      names_.push_back(name);
      arrays_.emplace(std::move(name), std::move(entry));
    }
  }

  std::shared_ptr<npy::InputFile> file_;
  std::map<std::string, detail::Entry, std::less<>> arrays_;
  std::vector<std::string> names_;
};

}  // namespace batchnorm::npz
