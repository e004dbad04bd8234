// SPDX-License-Identifier: MIT
#pragma once

// Where an error in the arguments of a public call goes.

#include <concepts>
#include <optional>
#include <string>
#include <string_view>

#include <batchnorm/errors.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// The name of a public call, which begins its messages, and where its errors go. Of several the first is reported: what is
/// checked after an error may be wrong because of it.
class Reporter {
 public:
  /// Errors are thrown.
  Reporter(std::string_view call) noexcept : call_(call) {}
  Reporter(const char* call) noexcept : call_(call) {}

  /// As the options say.
  Reporter(std::string_view call, const CallOptions& options) noexcept
      : call_(call), error_(options.error), only_checks_(options.only_checks) {
    if (error_ != nullptr) error_->reset();
  }

  /// The same under another name.
  Reporter as(std::string_view call) const noexcept {
    Reporter result = *this;
    result.call_ = call;
    return result;
  }

  /// Whether an error has been reported.
  bool failed() const noexcept { return error_ != nullptr && error_->has_value(); }
  /// Whether the call ends when its arguments are checked: for an error, or because the check was all that is wanted.
  bool stops() const noexcept { return only_checks_ || failed(); }
  /// Whether errors are reported rather than thrown.
  bool reports() const noexcept { return error_ != nullptr; }

  /// Returns only where errors are reported.
  template <class Exception>
  void fail(const std::string& what) const {
    report<Exception>(std::string(call_).append(": ") + what);
  }

  /// The same with a message that names no call.
  template <class Exception>
  void report(const std::string& message) const {
    if (error_ == nullptr) batchnorm::detail::fail<Exception>(message);
    if (error_->has_value()) return;
    *error_ = Error{std::same_as<Exception, ShapeError> ? ErrorKind::shape : ErrorKind::value, message};
  }

 private:
  std::string_view call_;
  std::optional<Error>* error_ = nullptr;
  bool only_checks_ = false;
};

/// Options of a call that is only to be checked, and that says in `error` what is wrong.
inline CallOptions checking(const CallOptions& options, std::optional<Error>& error) noexcept {
  CallOptions result = options;
  result.error = &error;
  result.only_checks = true;
  return result;
}

/// Whether a call with these options has done nothing: what it returns is empty then.
inline bool has_stopped(const CallOptions& options) noexcept {
  return options.only_checks || (options.error != nullptr && options.error->has_value());
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
