// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>
#include <string_view>

namespace bench {

/// A value as JSON text. Numbers are finite and read back as they were.
class Json {
 public:
  Json(std::string_view text);
  Json(const char* text) : Json(std::string_view(text)) {}
  Json(const std::string& text) : Json(std::string_view(text)) {}
  /// @throws std::domain_error   infinite or no number
  Json(double number);
  template <std::integral I>
  Json(I number) : text_(std::to_string(number)) {}

  template <class Range>
  static Json array(const Range& range) {
    std::string text;
    for (const auto& value : range) text.append(text.empty() ? "" : ", ").append(Json(value).text_);
    return Json("[" + text + "]", Verbatim{});
  }

  const std::string& text() const { return text_; }

 private:
  friend class JsonObject;
  struct Verbatim {};
  Json(std::string text, Verbatim) : text_(std::move(text)) {}

  std::string text_;
};

/// Members in the order in which they are added.
class JsonObject {
 public:
  JsonObject& add(std::string_view key, const Json& value);
  operator Json() const { return Json("{" + members_ + "}", Json::Verbatim{}); }

 private:
  std::string members_;
};

}  // namespace bench
