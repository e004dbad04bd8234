// SPDX-License-Identifier: MIT
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <batchnorm/npy/errors.hpp>

/// @file
/// Files as the readers and writers of arrays need them: read at any place, and written so that they appear whole or not at
/// all.

namespace batchnorm::npy {

namespace detail {

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

inline std::string reason(int error_number) { return std::generic_category().message(error_number); }

}  // namespace detail

/// A regular file, open for reading.
class InputFile {
 public:
  /// Opens the file.
  ///
  ///   error   if given, takes the error instead of a throw; the file is then empty
  /// @throws FileError   there is no such file, it is not a regular one, or it cannot be read
  explicit InputFile(std::filesystem::path path, std::optional<Error>* error = nullptr)
      : InputFile(detail::FileReporter(std::move(path), error)) {}

  /// The same with errors to `report`.
  explicit InputFile(const detail::FileReporter& report) : path_(report.path()) { open(report); }

  const std::filesystem::path& path() const noexcept { return path_; }  ///< as it was given

  /// Bytes of the file when it was opened.
  std::uint64_t size() const noexcept { return size_; }

  /// Reads up to `size` bytes from `position` <= size() on; fewer only where the file ends. Returns how many.
  ///
  ///   error   if given, takes the error instead of a throw; the result is then 0
  /// @throws FileError   the file cannot be read
  std::size_t read(std::uint64_t position, void* data, std::size_t size, std::optional<Error>* error = nullptr) {
    return read(position, data, size, detail::FileReporter(path_, error));
  }

  /// The same with errors to `report`.
  std::size_t read(std::uint64_t position, void* data, std::size_t size, const detail::FileReporter& report) {
    if (size == 0 || !file_) return 0;
    if (fseeko(file_.get(), static_cast<off_t>(position), SEEK_SET) == 0) {
      const std::size_t got = std::fread(data, 1, size, file_.get());
      if (got == size || std::ferror(file_.get()) == 0) return got;
    }
    report.fail("it cannot be read: " + detail::reason(errno));
    return 0;
  }

  /// @throws FileError   always: this file cannot be used because of `why`
  [[noreturn]] void fail(const std::string& why) const { batchnorm::detail::raise(FileError(path_, why)); }

 private:
  void open(const detail::FileReporter& report) {
    std::error_code error;
    const auto status = std::filesystem::status(path_, error);
    if (status.type() == std::filesystem::file_type::not_found) return report.fail("there is no such file");
    if (error) return report.fail("it cannot be read: " + error.message());
    if (is_directory(status)) return report.fail("it is a directory");
    // The size of a pipe or a device is unknown, and opening one may wait for ever.
    if (!is_regular_file(status)) return report.fail("it is not a regular file");
    detail::File file(std::fopen(path_.c_str(), "rb"));
    if (!file) return report.fail("it cannot be read: " + detail::reason(errno));
    const std::uint64_t size = std::filesystem::file_size(path_, error);
    if (error) return report.fail("it cannot be read: " + error.message());
    file_ = std::move(file);
    size_ = size;
  }

  std::filesystem::path path_;
  detail::File file_;
  std::uint64_t size_ = 0;
};

/// A file that appears whole or not at all. It is written under a name of its own beside its target; publish() renames it.
/// Removed when the object dies unpublished. What a power failure leaves is up to the file system: nothing is synced.
class StagedFile {
 public:
  /// Creates the file under its other name.
  ///
  ///   error   if given, takes the error instead of a throw; of this function as of the others
  /// @throws FileError   the file cannot be written
  explicit StagedFile(std::filesystem::path target, std::optional<Error>* error = nullptr)
      : StagedFile(detail::FileReporter(std::move(target), error)) {}

  /// The same with errors to `report`.
  explicit StagedFile(const detail::FileReporter& report) : target_(report.path()) {
    if (!refuse_directory(report)) create_partial(report);
  }

  /// Takes the file of the other, which may only be destroyed.
  StagedFile(StagedFile&& other) noexcept
      : target_(std::move(other.target_)),
        partial_(std::exchange(other.partial_, {})),
        older_(std::exchange(other.older_, {})),
        file_(std::move(other.file_)),
        published_(std::exchange(other.published_, false)) {}
  StagedFile& operator=(StagedFile&&) = delete;  ///< moved only into new ones

  /// Removes what was not published.
  ~StagedFile() {
    if (!partial_.empty()) ::unlink(partial_.c_str());
  }

  const std::filesystem::path& target() const noexcept { return target_; }  ///< the name that publish() gives

  /// Appends to the content.
  /// @throws FileError   the file cannot be written, and close() will also say so; or it is closed
  void write(std::span<const std::byte> data, std::optional<Error>* error = nullptr) { write(data, reporter(error)); }

  /// The same with errors to `report`.
  void write(std::span<const std::byte> data, const detail::FileReporter& report) {
    if (!file_) return fail(report, "it is closed already");
    if (data.empty() || std::fwrite(data.data(), 1, data.size(), file_.get()) == data.size()) return;
    fail(report, detail::reason(errno));
  }

  /// Ends the content.
  /// @throws FileError   the file cannot be written, or could not before
  void close(std::optional<Error>* error = nullptr) { close(reporter(error)); }

  /// The same with errors to `report`.
  void close(const detail::FileReporter& report) {
    if (!file_) return fail(report, "it is closed already");
    if (std::ferror(file_.get()) != 0) return fail(report, "an earlier part of it could not be written");
    // What stayed in the buffer is written on closing: a full disk may show only then.
    if (std::fflush(file_.get()) != 0 || std::fclose(file_.release()) != 0) fail(report, detail::reason(errno));
  }

  /// Makes the closed file appear, in place of an older one of its name.
  /// @throws FileError   it cannot be renamed: the older one is as it was
  void publish(std::optional<Error>* error = nullptr) { publish(reporter(error)); }

  /// The same with errors to `report`.
  void publish(const detail::FileReporter& report) {
    if (std::rename(partial_.c_str(), target_.c_str()) != 0) return fail(report, detail::reason(errno));
    partial_.clear();
    published_ = true;
  }

  /// Gives an older file of the target's name a second name, NAME.0.older, so that restore() can undo publish().
  /// @throws FileError   that cannot be done: the older one is as it was
  void keep_older(std::optional<Error>* error = nullptr) { keep_older(reporter(error)); }

  /// The same with errors to `report`.
  void keep_older(const detail::FileReporter& report) {
    if (refuse_directory(report)) return;
    struct stat status {};
    if (::lstat(target_.c_str(), &status) != 0 && errno == ENOENT) return;
    for (int attempt = 0;; ++attempt) {
      std::filesystem::path older = beside(attempt, ".older");
      if (::link(target_.c_str(), older.c_str()) != 0) {
        if (errno == EEXIST) continue;
        // Not every file system has two names for one file, nor may everybody give a file of another user a second one.
        if (!move_older(older, report)) {
          if (report.failed()) return;
          continue;
        }
      }
      older_ = std::move(older);
      return;
    }
  }

  /// Undoes publish() and keep_older(), as far as they came. An older file that cannot be renamed stays as NAME.0.older.
  void restore() noexcept {
    if (older_.empty()) {
      if (published_) ::unlink(target_.c_str());
    } else if (is_older(target_)) {
      ::unlink(older_.c_str());  // renaming does nothing where both are one file
    } else {
      std::rename(older_.c_str(), target_.c_str());
    }
    older_.clear();
    published_ = false;
  }

  /// Removes the older file that keep_older() kept.
  void forget_older() noexcept {
    if (!older_.empty()) ::unlink(older_.c_str());
    older_.clear();
  }

 private:
  detail::FileReporter reporter(std::optional<Error>* error) const { return {target_, error}; }

  void fail(const detail::FileReporter& report, const std::string& why) const {
    report.of_file(target_).fail("it cannot be written: " + why);
  }

  bool refuse_directory(const detail::FileReporter& report) const {
    std::error_code ignored;
    if (!is_directory(target_, ignored)) return false;
    fail(report, "it is a directory");
    return true;
  }

  /// A name in the target's folder.
  std::filesystem::path beside(int attempt, const char* ending) const {
    std::filesystem::path path = target_;
    path += '.';
    path += std::to_string(attempt);
    path += ending;
    return path;
  }

  /// Opens a file that did not exist: others may be writing the same target at this moment.
  void create_partial(const detail::FileReporter& report) {
    for (int attempt = 0; !file_; ++attempt) {
      std::filesystem::path partial = beside(attempt, ".partial");
      file_.reset(std::fopen(partial.c_str(), "wbx"));
      if (file_) {
        partial_ = std::move(partial);
      } else if (errno != EEXIST) {
        return fail(report, detail::reason(errno));
      }
    }
  }

  /// Renames the target to `older`; false where that name is taken, and after an error.
  bool move_older(const std::filesystem::path& older, const detail::FileReporter& report) const {
    // Renaming would replace a file of that name: ours is made first.
    if (!detail::File(std::fopen(older.c_str(), "wbx"))) {
      if (errno != EEXIST) fail(report, detail::reason(errno));
      return false;
    }
    if (std::rename(target_.c_str(), older.c_str()) == 0) return true;
    const int error = errno;
    ::unlink(older.c_str());
    fail(report, detail::reason(error));
    return false;
  }

  bool is_older(const std::filesystem::path& path) const noexcept {
    struct stat one {
    }, other{};
    return ::lstat(path.c_str(), &one) == 0 && ::lstat(older_.c_str(), &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
  }

  std::filesystem::path target_;
  std::filesystem::path partial_;  // empty once published
  std::filesystem::path older_;    // the second name of what was there; empty where nothing was
  detail::File file_;              // null once closed
  bool published_ = false;
};

}  // namespace batchnorm::npy
