// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protobuf.hpp"
#include "write.hpp"

// Changes of a protocol buffer that leave every other byte as it is, but for the lengths of the messages around a change.
namespace onnx {

/// Fields of a message, and of those nested in it, that are replaced.
class Edits {
 public:
  /// The field at [begin, end) of the file becomes `text`: any number of fields of the same message. No two edits are of one
  /// field or of fields that are in each other.
  void replace(std::size_t begin, std::size_t end, std::string text) { edits_.push_back({begin, end, std::move(text)}); }

  /// The message with the edits, in pieces that view it and this object.
  ///   whole   the message that is the file
  std::vector<std::string_view> apply(Bytes whole) {
    std::sort(edits_.begin(), edits_.end(), [](const Edit& a, const Edit& b) { return a.begin < b.begin; });
    pieces_.clear();
    append(whole, edits_);
    return std::move(pieces_);
  }

 private:
  struct Edit {
    std::size_t begin, end;
    std::string text;
  };

  std::uint64_t add(std::string_view piece) {
    if (!piece.empty()) pieces_.push_back(piece);
    return piece.size();
  }

  /// Appends a message; returns its new size.
  std::uint64_t append(Bytes message, std::span<const Edit> edits) {
    const auto between = [&](std::size_t begin, std::size_t end) {
      return message.text.substr(begin - message.position, end - begin);
    };
    std::uint64_t size = 0;
    std::size_t done = message.position;
    Message rest(message, "a message");
    while (!edits.empty()) {
      Field field = rest.next();
      while (rest.position() <= edits[0].begin) field = rest.next();
      std::size_t count = 1;
      if (field.position == edits[0].begin) {
        size += add(between(done, field.position)) + add(edits[0].text);
      } else {
        while (count < edits.size() && edits[count].begin < rest.position()) ++count;
        size += add(between(done, tag_end(message, field.position))) + append_nested(field.bytes, edits.first(count));
      }
      done = rest.position();
      edits = edits.subspan(count);
    }
    return size + add(between(done, message.position + message.text.size()));
  }

  /// Appends the length of a message and the message.
  std::uint64_t append_nested(Bytes message, std::span<const Edit> edits) {
    std::string& length = lengths_.emplace_back();
    const std::size_t place = pieces_.size();
    pieces_.emplace_back();
    const std::uint64_t size = append(message, edits);
    append_varint(length, size);
    pieces_[place] = length;
    return length.size() + size;
  }

  static std::size_t tag_end(Bytes message, std::size_t position) {
    while (static_cast<unsigned char>(message.text[position - message.position]) >= 0x80U) ++position;
    return position + 1;
  }

  std::vector<Edit> edits_;
  std::vector<std::string_view> pieces_;
  std::deque<std::string> lengths_;
};

}  // namespace onnx
