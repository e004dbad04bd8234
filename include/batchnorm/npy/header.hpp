// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <batchnorm/npy/errors.hpp>

/// @file
/// The text at the head of a .npy file. It is a Python dictionary literal such as
///
///   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }

namespace batchnorm::npy {

/// The element types that these headers read and write.
enum class Type {
  float16,  ///< IEEE 754 binary16
  float32,  ///< IEEE 754 binary32
  float64,  ///< IEEE 754 binary64
  int64     ///< two's complement
};

/// Every Type.
inline constexpr std::array all_types{Type::float16, Type::float32, Type::float64, Type::int64};

/// The most extents that an array has here.
inline constexpr std::size_t max_rank = 8;

/// What a header says. The data is dense, the last axis varies fastest (C order).
struct Header {
  Type type = Type::float32;          ///< of the elements
  std::vector<std::int64_t> shape{};  ///< the extents, outermost first; none for a single number

  /// Of the same type and shape.
  friend bool operator==(const Header&, const Header&) = default;
};

/// Bytes of an element.
constexpr std::int64_t size_of(Type type) noexcept { return type == Type::float16 ? 2 : type == Type::float32 ? 4 : 8; }

/// As NumPy names it: "float16", "float32", "float64", "int64".
inline std::string type_name(Type type) { return (type == Type::int64 ? "int" : "float") + std::to_string(8 * size_of(type)); }

/// As a header names it: "<f2", "<f4", "<f8", "<i8".
inline std::string descriptor(Type type) { return (type == Type::int64 ? "<i" : "<f") + std::to_string(size_of(type)); }

/// A shape as Python prints it: "(2, 3)", "(3,)", "()".
inline std::string to_string(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (const std::int64_t extent : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

namespace detail {

/// Bytes of the data that belongs to a header; 0 after an error.
inline std::int64_t byte_count(const Header& header, const FileReporter& report) {
  std::int64_t bytes = size_of(header.type);
  bool empty = false;
  for (const std::int64_t extent : header.shape) {
    empty = empty || extent == 0;
    // An extent of 0 does not excuse the others: who multiplies them in another order would overflow.
    if (__builtin_mul_overflow(bytes, extent == 0 ? 1 : extent, &bytes)) {
      report.fail("its shape " + to_string(header.shape) + " has more than 2^63 - 1 bytes");
      return 0;
    }
  }
  return empty ? 0 : bytes;
}

/// The type that a header's 'descr' names; any after an error.
inline Type parse_descriptor(std::string_view text, const FileReporter& report) {
  for (const Type type : all_types) {
    const std::string known = descriptor(type);
    // '=' and no sign at all mean the byte order of the writer; who shares files between machines writes '<'.
    if (text == known || text == known.substr(1) || (text.starts_with('=') && text.substr(1) == known.substr(1))) return type;
  }
  const bool big_endian = text.starts_with('>') || text.starts_with('!');
  report.fail("its elements are " + quoted(text) + (big_endian ? ", big-endian" : "") +
              "; only '<f2', '<f4', '<f8' and '<i8' can be read");
  return {};
}

/// Reads the dictionary with the freedoms of a Python literal: any white space, both quotation marks, any order of the keys,
/// a comma at the end or none; of Python 2 also 3L and u'descr'. After an error nothing is left to read, so that every loop
/// ends.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const FileReporter& report) : rest_(text), report_(report) {}

  /// What the dictionary says; an empty Header after an error.
  Header parse() {
    expect('{', "at its beginning");
    while (!accept('}')) {
      parse_entry();
      if (accept(',')) continue;
      expect('}', "or ',' after a value");
      break;
    }
    if (skip_space(); !rest_.empty()) fail("its header goes on after the closing brace with " + quoted(rest_));
    require(type_.has_value(), "descr");
    require(fortran_order_.has_value(), "fortran_order");
    require(shape_.has_value(), "shape");
    if (report_.failed()) return {};
    // What no NumPy writes for a vector, Julia and Fortran do: with one extent above 1, or no element, the orders are the same.
    const auto is_above_1 = [](std::int64_t extent) { return extent > 1; };
    const bool has_order = std::ranges::count_if(*shape_, is_above_1) > 1 && std::ranges::count(*shape_, 0) == 0;
    if (*fortran_order_ && has_order) {
      fail("its data is in Fortran order; only C order can be read");
      return {};
    }
    return {*type_, *shape_};
  }

 private:
  void parse_entry() {
    const std::string_view key = parse_string("a key");
    expect(':', "after the key " + quoted(key));
    if (key == "descr") {
      set(type_, parse_type(), key);
    } else if (key == "fortran_order") {
      set(fortran_order_, parse_bool(), key);
    } else if (key == "shape") {
      set(shape_, parse_shape(), key);
    } else {
      fail("its header has the unknown key " + quoted(key));
    }
  }

  template <class Value>
  void set(std::optional<Value>& field, Value value, std::string_view key) {
    if (field.has_value()) fail("its header has the key " + quoted(key) + " twice");
    field = std::move(value);
  }

  void require(bool present, std::string_view key) {
    if (!present) fail("its header lacks the key " + quoted(key));
  }

  Type parse_type() {
    if (skip_space(); rest_.starts_with('[')) {
      fail("its elements are structured; only '<f2', '<f4', '<f8' and '<i8' can be read");
    }
    return parse_descriptor(parse_string("the element type"), report_);
  }

  bool parse_bool() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return value;
    }
    unexpected("True or False as 'fortran_order'");
    return false;
  }

  std::vector<std::int64_t> parse_shape() {
    std::vector<std::int64_t> shape;
    expect('(', "before the extents of 'shape'");
    while (!accept(')')) {
      shape.push_back(parse_extent());
      if (accept(',')) continue;
      if (shape.size() == 1) unexpected("',' (a tuple of one extent ends with a comma)");
      expect(')', "or ',' after an extent");
      break;
    }
    if (shape.size() > max_rank) {
      fail("its rank is " + std::to_string(shape.size()) + ", the largest that can be read is " + std::to_string(max_rank));
    }
    return shape;
  }

  std::int64_t parse_extent() {
    skip_space();
    std::int64_t extent = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), extent);
    if (error == std::errc::invalid_argument) {
      unexpected("a whole number as an extent");
      return 0;
    }
    const std::string_view digits = rest_.substr(0, static_cast<std::size_t>(end - rest_.data()));
    if (error != std::errc()) fail("its extent " + quoted(digits) + " does not fit 64 bits");
    if (digits.size() > 1 && digits.front() == '0') fail("its extent " + quoted(digits) + " begins with 0");
    if (extent < 0) fail("its extent " + std::to_string(extent) + " is negative");
    if (report_.failed()) return 0;
    rest_.remove_prefix(digits.size());
    if (rest_.starts_with('L')) rest_.remove_prefix(1);
    return extent;
  }

  std::string_view parse_string(std::string_view what) {
    skip_space();
    if (rest_.starts_with("u'") || rest_.starts_with("u\"")) rest_.remove_prefix(1);
    if (!rest_.starts_with('\'') && !rest_.starts_with('"')) {
      unexpected(std::string(what) + " in quotation marks");
      return {};
    }
    const std::size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) {
      fail("its header ends within quotation marks");
      return {};
    }
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }

  bool accept(char letter) {
    if (skip_space(); !rest_.starts_with(letter)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char letter, const std::string& where) {
    if (!accept(letter)) unexpected("'" + std::string(1, letter) + "' " + where);
  }

  void unexpected(const std::string& expected) {
    fail("its header is not a dictionary as NumPy writes it: expected " + expected + ", found " +
         (rest_.empty() ? "its end" : quoted(rest_)));
  }

  void fail(const std::string& why) {
    report_.fail(why);
    rest_ = {};
  }

  void skip_space() {
    const std::size_t begin = rest_.find_first_not_of(" \t\n\r\f");
    rest_.remove_prefix(begin == std::string_view::npos ? rest_.size() : begin);
  }

  std::string_view rest_;
  const FileReporter& report_;
  std::optional<Type> type_;
  std::optional<bool> fortran_order_;
  std::optional<std::vector<std::int64_t>> shape_;
};

/// What read(reporter) returns, for text that comes from no file: errors are HeaderErrors, or stored in `error`.
template <class Read>
auto read_without_file(std::optional<Error>* error, Read read) {
  std::optional<Error> found;
  auto result = read(FileReporter(found));
  if (error == nullptr && found) batchnorm::detail::fail<HeaderError>(found->message);
  if (error != nullptr) *error = std::move(found);
  return result;
}

}  // namespace detail

/// Bytes of the data that belongs to a header.
///
///   error   if given, takes the error instead of a throw; the result is then 0
/// @throws HeaderError   more than 2^63 - 1
inline std::int64_t byte_count(const Header& header, std::optional<Error>* error = nullptr) {
  return detail::read_without_file(error, [&](const auto& report) { return detail::byte_count(header, report); });
}

/// What the dictionary at the head of a file says.
///
///   error   if given, takes the error instead of a throw; the result is then empty
/// @throws HeaderError   no such dictionary; a key missing, unknown or twice; a type, an order or a shape that cannot be read
inline Header parse_header(std::string_view text, std::optional<Error>* error = nullptr) {
  return detail::read_without_file(error, [&](const auto& report) { return detail::HeaderParser(text, report).parse(); });
}

/// Everything that stands before the data in a file of version 1.0, byte for byte as np.save writes it.
inline std::string format_header(const Header& header) {
  std::string text =
      "{'descr': '" + descriptor(header.type) + "', 'fortran_order': False, 'shape': " + to_string(header.shape) + ", }";
  // The data begins at a multiple of 64 bytes. (NumPy also leaves room for the first extent to grow in place; up to rank 8 the
  // padding holds that room anyway.)
  constexpr std::size_t before_text = 10;
  constexpr std::size_t alignment = 64;
  text.append(alignment - (before_text + text.size() + 1) % alignment, ' ');
  text += '\n';
  const std::string length{static_cast<char>(text.size() % 256), static_cast<char>(text.size() / 256)};
  return std::string("\x93NUMPY\x01\x00", 8) + length + text;
}

}  // namespace batchnorm::npy
