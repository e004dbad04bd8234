// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <batchnorm/errors.hpp>

/// @file
/// What is wrong with a file, as an exception or as a value.

namespace batchnorm::npy {

/// A file cannot be read or written. The message begins with the file's name and says why.
class FileError : public std::runtime_error {
 public:
  /// Of the file `path`, because of `why`.
  FileError(const std::filesystem::path& path, const std::string& why) : runtime_error(message(path, why)) {}

 private:
  /// By append: GCC 12 takes a literal + std::string for an overlap of the two (-Wrestrict, PR 105651).
  static std::string message(const std::filesystem::path& path, const std::string& why) {
    return std::string("'").append(path.string()).append("': ").append(why);
  }
};

/// Why a header's text cannot be used; it does not know which file the text came from.
class HeaderError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

/// A piece of a file in quotation marks, fit for a message: short, without control characters.
inline std::string quoted(std::string_view text, std::size_t longest = 40) {
  std::string result = "'";
  for (const char letter : text.substr(0, longest)) result += letter >= ' ' && letter <= '~' ? letter : '?';
  return result + (text.size() > longest ? "...'" : "'");
}

/// The file that a call reads or writes, and where its errors go: thrown as a FileError, or stored in the caller's Error. Only
/// the first of several is stored, because the later ones may follow from it.
class FileReporter {
 public:
  /// At the beginning of a call: clears the Error of an earlier one.
  FileReporter(std::filesystem::path path, std::optional<Error>* error) : path_(std::move(path)), error_(error) {
    if (error_ != nullptr) error_->reset();
  }

  /// For text that comes from no file: the message is the reason alone.
  explicit FileReporter(std::optional<Error>& error) : FileReporter({}, &error) { names_file_ = false; }

  /// The same for another file.
  FileReporter of_file(const std::filesystem::path& path) const {
    FileReporter result = *this;
    result.path_ = path;
    return result;
  }

  /// The same for one array of the file.
  FileReporter of_array(std::string_view name) const {
    FileReporter result = *this;
    result.subject_ = "array " + quoted(name, 200) + ": ";
    return result;
  }

  const std::filesystem::path& path() const noexcept { return path_; }
  std::optional<Error>* error() const noexcept { return error_; }  ///< null where errors are thrown

  /// Whether an error has been stored.
  bool failed() const noexcept { return error_ != nullptr && error_->has_value(); }

  /// Returns only if errors are stored.
  void fail(const std::string& why) const {
    if (error_ == nullptr) raise(why);
    if (failed()) return;
    const std::string reason = subject_ + why;
    *error_ = Error{ErrorKind::file, names_file_ ? FileError(path_, reason).what() : reason};
  }

  /// Throws even if errors are stored.
  [[noreturn]] void raise(const std::string& why) const { batchnorm::detail::raise(FileError(path_, subject_ + why)); }

 private:
  std::filesystem::path path_;
  std::string subject_;  // the array, at the beginning of the reason
  std::optional<Error>* error_;
  bool names_file_ = true;
};

}  // namespace detail
}  // namespace batchnorm::npy
