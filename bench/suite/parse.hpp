// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "names.hpp"

// Values of options. What makes no sense is a std::invalid_argument that names the option and what it was given.
namespace bench {

/// A whole number above 0; `what` is it of.
std::int64_t parse_whole_number(std::string_view text, const std::string& what);

/// "32,64,56,56" as given to --shape.
Extents parse_shape(const std::string& text);

/// "training, inference, ..."
template <class All>
std::string names_of(const All& all) {
  std::string text;
  for (const auto& one : all) text.append(text.empty() ? "" : ", ").append(name_of(one));
  return text;
}

/// Those of `all` that have these names.
template <class All>
std::vector<typename All::value_type> parse_names(const All& all, const std::vector<std::string>& texts,
                                                  const std::string& option) {
  std::vector<typename All::value_type> values;
  for (const std::string& text : texts) {
    const auto value = named(all, text);
    if (!value) throw std::invalid_argument(option + ": unknown '" + text + "', known are " + names_of(all));
    values.push_back(*value);
  }
  return values;
}

}  // namespace bench
