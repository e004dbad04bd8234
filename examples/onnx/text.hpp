// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace onnx {

/// A name from a file, fit for a line of a terminal: control characters as '?', at most 100 bytes.
inline std::string printable(std::string_view name) {
  constexpr std::size_t longest = 100;
  std::string text;
  for (const char letter : name.substr(0, longest)) {
    const auto code = static_cast<unsigned char>(letter);
    text += code < 0x20U || code == 0x7FU ? '?' : letter;
  }
  return text + (name.size() > longest ? "..." : "");
}

inline std::string quoted(std::string_view name) { return "'" + printable(name) + "'"; }

}  // namespace onnx
