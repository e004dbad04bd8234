// SPDX-License-Identifier: MIT
#include "parse.hpp"

#include <algorithm>
#include <charconv>
#include <system_error>

namespace bench {

std::int64_t parse_whole_number(std::string_view text, const std::string& what) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1) {
    throw std::invalid_argument(what + ": '" + std::string(text) + "' is not a whole number above 0");
  }
  return number;
}

Extents parse_shape(const std::string& text) {
  Extents extents;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t comma = std::min(text.find(',', begin), text.size());
    extents.push_back(parse_whole_number(std::string_view(text).substr(begin, comma - begin), "--shape " + text));
    begin = comma + 1;
  }
  if (extents.size() < 2 || extents.size() > 5) {
    throw std::invalid_argument("--shape " + text + ": its rank is " + std::to_string(extents.size()) +
                                ", it must be 2 to 5: N, C and up to three spatial extents");
  }
  std::int64_t elements = 1;
  for (const std::int64_t extent : extents) {
    if (__builtin_mul_overflow(elements, extent, &elements)) {
      throw std::invalid_argument("--shape " + text + ": too many elements");
    }
  }
  return extents;
}

}  // namespace bench
