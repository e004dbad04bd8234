// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What calls throw, and the same as a value.

#include <stdexcept>
#include <string>

#if !defined(__cpp_exceptions)
#include <atomic>
#include <cstdlib>
#endif

namespace batchnorm {

/// A tensor's rank or an extent does not fit the call. The message names the argument, what was expected and what was got.
class ShapeError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// A number, a pointer, a name or an overlap that the call cannot accept. The message names the argument and the rule.
class ValueError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// Which exception an Error would be.
enum class ErrorKind {
  shape,  ///< ShapeError
  value,  ///< ValueError
  file    ///< npy::FileError
};

/// What is wrong with a call, as a value: check(), CallOptions::error and the functions that read and write files give it.
struct Error {
  ErrorKind kind = ErrorKind::value;  ///< the exception that would be thrown
  std::string message;                ///< its text: names the call, the argument, what was expected and what was got

  /// Of the same kind and text.
  friend bool operator==(const Error&, const Error&) = default;
};

#if !defined(__cpp_exceptions)
/// Compiled without exceptions, an error calls this handler with its message; it must not return. Null means std::abort.
using ErrorHandler = void (*)(const char* message);

namespace detail {
inline std::atomic<ErrorHandler> error_handler{nullptr};
}

/// Replaces the handler of the whole program (only without exceptions); null restores std::abort.
inline void set_error_handler(ErrorHandler handler) noexcept { detail::error_handler.store(handler); }
#endif

namespace detail {

/// Every error of the library leaves through here, but for those that a caller wants as values.
template <class Exception>
[[noreturn]] void raise(const Exception& exception) {
#if defined(__cpp_exceptions)
  throw exception;
#else
  if (const ErrorHandler handler = error_handler.load()) handler(exception.what());
  std::abort();
#endif
}

template <class Exception>
[[noreturn]] void fail(const std::string& message) {
  raise(Exception(message));
}

}  // namespace detail
}  // namespace batchnorm
