// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <concepts>
#include <string>
#include <system_error>

#include <batchnorm/format.hpp>

namespace onnx_tool {

using batchnorm::to_string;

/// The shortest digits that mean this number.
template <std::floating_point T>
std::string to_string(T value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof(text), value);
  return {text, error == std::errc() ? end : text};
}

}  // namespace onnx_tool
