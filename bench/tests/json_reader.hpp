// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bench_tests {

/// A JSON value that was read. Strings keep their escapes, but for the quotation mark and the backslash.
struct JsonValue {
  enum class Kind { string, number, array, object } kind = Kind::string;
  std::string string;
  double number = 0;
  std::vector<JsonValue> array;
  std::map<std::string, JsonValue> object;

  const JsonValue& operator[](const std::string& key) const { return object.at(key); }
};

/// Reads what the benchmarks write: objects, arrays, strings and numbers. Anything else throws.
class JsonReader {
 public:
  static JsonValue read(std::string_view text) {
    JsonReader reader(text);
    JsonValue value = reader.value();
    reader.skip_space();
    if (!reader.rest_.empty()) throw std::runtime_error("something follows the value");
    return value;
  }

 private:
  explicit JsonReader(std::string_view text) : rest_(text) {}

  void skip_space() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size())); }

  bool accept(char character) {
    skip_space();
    if (!rest_.starts_with(character)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char character) {
    if (!accept(character))
      throw std::runtime_error(std::string("expected ") + character + " before " + std::string(rest_.substr(0, 40)));
  }

  JsonValue value() {
    skip_space();
    if (rest_.starts_with('{')) return object();
    if (rest_.starts_with('[')) return array();
    if (rest_.starts_with('"')) return {JsonValue::Kind::string, string(), 0, {}, {}};
    return number();
  }

  std::string string() {
    expect('"');
    std::string text;
    for (; !rest_.starts_with('"'); rest_.remove_prefix(1)) {
      if (rest_.empty() || static_cast<unsigned char>(rest_.front()) < 0x20) throw std::runtime_error("a string does not end");
      if (rest_.starts_with("\\\"") || rest_.starts_with("\\\\")) rest_.remove_prefix(1);
      text += rest_.front();
    }
    expect('"');
    return text;
  }

  JsonValue number() {
    JsonValue result{JsonValue::Kind::number, {}, 0, {}, {}};
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), result.number);
    if (error != std::errc() || rest_.starts_with('i') || rest_.starts_with('n')) throw std::runtime_error("no number");
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return result;
  }

  JsonValue array() {
    JsonValue result{JsonValue::Kind::array, {}, 0, {}, {}};
    expect('[');
    if (accept(']')) return result;
    do {
      result.array.push_back(value());
    } while (accept(','));
    expect(']');
    return result;
  }

  JsonValue object() {
    JsonValue result{JsonValue::Kind::object, {}, 0, {}, {}};
    expect('{');
    if (accept('}')) return result;
    do {
      skip_space();
      const std::string key = string();
      expect(':');
      if (!result.object.emplace(key, value()).second) throw std::runtime_error("the key '" + key + "' stands twice");
    } while (accept(','));
    expect('}');
    return result;
  }

  std::string_view rest_;
};

}  // namespace bench_tests
