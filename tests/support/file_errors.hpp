// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include <gtest/gtest.h>

#include <batchnorm/npy/errors.hpp>

#include "support/messages.hpp"

namespace support {

/// Where a call stores its error; null if it is to throw.
using ErrorPointer = std::optional<batchnorm::Error>*;

/// The message of the error that call(error) stores, or throws as a FileError if `error` is null. "<no exception>" without one.
template <class Call>
std::string file_error_of(bool as_value, Call call) {
  if (!as_value) return message_of<batchnorm::npy::FileError>([&] { call(ErrorPointer(nullptr)); });
  std::optional<batchnorm::Error> error{{batchnorm::ErrorKind::shape, "that of an earlier call"}};
  call(&error);
  if (!error) return "<no exception>";
  EXPECT_EQ(error->kind, batchnorm::ErrorKind::file) << error->message;
  return error->message;
}

/// The same of a call that may be made twice: both ways must agree.
template <class Call>
std::string file_error_of(Call call) {
  const std::string stored = file_error_of(true, call), thrown = file_error_of(false, call);
  EXPECT_EQ(stored, thrown);
  return thrown;
}

}  // namespace support
