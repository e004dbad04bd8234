// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

// The wire format of protocol buffers, read field by field. A file is data from outside: nothing in it is believed unchecked,
// and nothing is allocated for what a length only claims.
namespace onnx {

static_assert(std::endian::native == std::endian::little, "numbers of a file are copied as they are");

/// The bytes of a file are not what its format demands. The message does not know which file they came from.
class FormatError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A part of a file, and where in the file it begins.
struct Bytes {
  std::string_view text{};
  std::size_t position = 0;
};

[[noreturn]] inline void fail_at(std::size_t position, const std::string& what) {
  throw FormatError("at byte " + std::to_string(position) + ", " + what);
}

/// How the value of a field is written. Numbers 3 and 4, groups, are of no use to ONNX.
enum class WireType : unsigned { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

/// One field of a message. It is read as the type that the message's definition gives it.
struct Field {
  std::uint64_t number = 0;
  WireType type = WireType::varint;
  std::uint64_t value = 0;  ///< of a number
  Bytes bytes{};            ///< of a string, a message or packed numbers
  std::size_t position = 0;
  std::string_view message{};  ///< the name of the message that it is a field of

  /// @throws FormatError   the field is of another wire type (so do all below)
  std::int64_t integer() const {
    expect(WireType::varint);
    return static_cast<std::int64_t>(value);
  }
  float float32() const {
    expect(WireType::fixed32);
    return std::bit_cast<float>(static_cast<std::uint32_t>(value));
  }
  Bytes nested() const {
    expect(WireType::bytes);
    return bytes;
  }
  std::string_view string() const { return nested().text; }

  /// The numbers of a repeated field of fixed size, packed or this one alone, as little-endian bytes.
  std::string_view fixed_numbers(WireType fixed) const {
    const std::size_t size = fixed == WireType::fixed32 ? 4 : 8;
    if (type == fixed) return {reinterpret_cast<const char*>(&value), size};
    expect(WireType::bytes);
    if (bytes.text.size() % size == 0) return bytes.text;
    fail_at(position, name() + " packs numbers of " + std::to_string(size) + " bytes into " +
                          std::to_string(bytes.text.size()) + " bytes");
  }

  /// "field 9 of TensorProto"
  std::string name() const { return "field " + std::to_string(number) + " of " + std::string(message); }

 private:
  void expect(WireType expected) const {
    if (type == expected) return;
    fail_at(position, name() + " has wire type " + std::to_string(static_cast<unsigned>(type)) + ", expected is " +
                          std::to_string(static_cast<unsigned>(expected)));
  }
};

/// Walks over the fields of a message.
class Message {
 public:
  /// @param name   that of its definition, for error messages
  Message(Bytes bytes, std::string_view name) : rest_(bytes), name_(name) {}

  bool at_end() const noexcept { return rest_.text.empty(); }
  std::size_t position() const noexcept { return rest_.position; }  ///< where the next field begins

  /// The next field. Call it while not at_end().
  /// @throws FormatError   the message is cut off, a length goes beyond its end, or there is no such field or wire type
  Field next() {
    Field field{.position = rest_.position, .message = name_};
    const std::uint64_t key = varint();
    field.number = key >> 3U;
    constexpr std::uint64_t largest = (std::uint64_t{1} << 29U) - 1;
    if (field.number == 0 || field.number > largest) {
      fail_at(field.position, std::string(name_) + " has a field of number " + std::to_string(field.number) +
                                  ", it must be in [1, " + std::to_string(largest) + "]");
    }
    field.type = static_cast<WireType>(key & 7U);
    switch (field.type) {
      case WireType::varint: field.value = varint(); return field;
      case WireType::fixed64: field.value = fixed(8); return field;
      case WireType::bytes: field.bytes = take(varint()); return field;
      case WireType::fixed32: field.value = fixed(4); return field;
    }
    fail_at(field.position, field.name() + " has wire type " + std::to_string(key & 7U) + ", which ONNX has no use for");
  }

  /// The next number of a message that is nothing but packed integers.
  std::uint64_t varint() {
    const std::size_t begin = rest_.position;
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).text[0]);
      const std::uint64_t digits = byte & 0x7FU;
      if (shift == 63 && digits > 1) break;
      value |= digits << shift;
      if (byte < 0x80U) return value;
    }
    fail_at(begin, std::string(name_) + " has an integer of more than 64 bits");
  }

 private:
  Bytes take(std::uint64_t size) {
    if (size > rest_.text.size()) {
      fail_at(rest_.position, std::string(name_) + " goes on for " + std::to_string(size) + " bytes, where it has " +
                                  std::to_string(rest_.text.size()) + " left");
    }
    const Bytes result{rest_.text.substr(0, static_cast<std::size_t>(size)), rest_.position};
    rest_.text.remove_prefix(result.text.size());
    rest_.position += result.text.size();
    return result;
  }

  std::uint64_t fixed(std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(size).text.data(), size);
    return value;
  }

  Bytes rest_;
  std::string_view name_;
};

/// Calls visit(field) with each field of a message.
template <class Visit>
void for_each_field(Bytes bytes, std::string_view name, Visit&& visit) {
  for (Message message(bytes, name); !message.at_end();) visit(message.next());
}

/// Calls visit(value) with each number of a repeated field of integers, packed or this one alone.
template <class Visit>
void for_each_integer(const Field& field, Visit&& visit) {
  if (field.type == WireType::varint) return visit(field.integer());
  for (Message packed(field.nested(), field.message); !packed.at_end();) visit(static_cast<std::int64_t>(packed.varint()));
}

}  // namespace onnx
