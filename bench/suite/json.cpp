// SPDX-License-Identifier: MIT
#include "json.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace bench {
namespace {

std::string quoted(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result = "\"";
  for (const char character : text) {
    const auto code = static_cast<unsigned char>(character);
    if (character == '"' || character == '\\') result.push_back('\\');
    if (code < 0x20) {
      result.append("\\u00").append({digits[code >> 4U], digits[code & 15U]});
    } else {
      result.push_back(character);
    }
  }
  return result + "\"";
}

std::string shortest(double number) {
  if (!std::isfinite(number)) throw std::domain_error("JSON has no infinite numbers and no NaN");
  std::array<char, 32> text{};
  const std::to_chars_result result = std::to_chars(text.begin(), text.end(), number);
  return {text.begin(), result.ptr};
}

}  // namespace

Json::Json(std::string_view text) : text_(quoted(text)) {}

Json::Json(double number) : text_(shortest(number)) {}

JsonObject& JsonObject::add(std::string_view key, const Json& value) {
  members_.append(members_.empty() ? "" : ", ").append(quoted(key)).append(": ").append(value.text());
  return *this;
}

}  // namespace bench
