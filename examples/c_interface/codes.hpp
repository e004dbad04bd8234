// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include <batchnorm/element.hpp>
#include <batchnorm/errors.hpp>
#include <batchnorm/format.hpp>

#include "batchnorm_c.h"

// From the codes and structures of a C program to what the library takes.
namespace c_interface {

[[noreturn]] inline void refuse(std::string_view call, const std::string& what) {
  batchnorm::detail::fail<batchnorm::ValueError>(std::string(call) + ": " + what);
}

/// A structure or an array that the call itself reads: there, and aligned.
template <class T>
void check_address(std::string_view call, std::string_view name, const T* given) {
  if (given == nullptr) refuse(call, std::string(name) + " is NULL");
  if (reinterpret_cast<std::uintptr_t>(given) % alignof(T) != 0) {
    refuse(call, std::string(name) + " is misaligned: its address is not a multiple of " + std::to_string(alignof(T)));
  }
}

/// The structure that a program gave, with the fields that it does not have as 0.
template <class Structure>
Structure read(std::string_view call, std::string_view name, const Structure* given, std::size_t first_size) {
  check_address(call, name, given);
  const std::size_t size = given->struct_size;
  const auto refuse_size = [&](const std::string& expected) {
    refuse(call, std::string(name) + " has struct_size " + std::to_string(size) + ", expected " + expected);
  };
  const std::string remedy = ": set it to sizeof(batchnorm_" + std::string(name) + ")";
  if (size < first_size) refuse_size("at least " + std::to_string(first_size) + remedy);
  if (size > BATCHNORM_LARGEST_STRUCT_SIZE) refuse_size("at most " + std::to_string(BATCHNORM_LARGEST_STRUCT_SIZE) + remedy);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(Structure); i < size; ++i) {
    if (bytes[i] == 0) continue;
    refuse(call, std::string(name) + " has struct_size " + std::to_string(size) + " and a field after the " +
                     std::to_string(sizeof(Structure)) + " bytes that this version of the library knows");
  }
  Structure known{};
  std::memcpy(&known, given, (std::min)(size, sizeof(Structure)));
  return known;
}

/// A code and what it stands for.
template <class Value>
struct Code {
  std::int32_t code;
  Value value;
  std::string_view name;
};

template <class Codes>
std::string listed(const Codes& codes) {
  std::string text;
  for (const auto& known : codes) {
    text.append(text.empty() ? "" : ", ").append(std::to_string(known.code)).append(" (").append(known.name).append(")");
  }
  return text;
}

/// What a code stands for.
template <class Value, std::size_t size>
Value value_of(std::string_view call, std::string_view name, std::int32_t code, const Code<Value> (&codes)[size]) {
  for (const auto& known : codes) {
    if (known.code == code) return known.value;
  }
  refuse(call, std::string(name) + " is " + std::to_string(code) + ", known are " + listed(codes));
}

inline constexpr Code<std::string_view> types[] = {{BATCHNORM_FLOAT, "float", "float"},
                                                   {BATCHNORM_DOUBLE, "double", "double"},
                                                   {BATCHNORM_HALF, "half", "half"},
                                                   {BATCHNORM_BFLOAT16, "bfloat16", "bfloat16"}};

/// Types that go together, and their names.
template <batchnorm::Element T, batchnorm::ParameterOf<T> P>
struct Types {
  using Tensor = T;
  using Parameter = P;
  static bool are(std::string_view tensor, std::string_view parameter) {
    return tensor == batchnorm::element_name<T>() && parameter == batchnorm::element_name<P>();
  }
};

/// body(Types<T, P>) for the first of the pairs that has those names, if one has.
template <class... Pairs, class Body>
bool with_one_of(std::string_view tensor, std::string_view parameter, Body&& body) {
  return ((Pairs::are(tensor, parameter) && (body(Pairs{}), true)) || ...);
}

/// body(Types<T, P>) for the element types of those names ("float", "half", ...), if they go together.
template <class Body>
bool with_types_named(std::string_view tensor, std::string_view parameter, Body&& body) {
  using batchnorm::bfloat16, batchnorm::half;
  return with_one_of<Types<float, float>, Types<float, half>, Types<double, double>, Types<half, float>, Types<half, half>,
                     Types<bfloat16, float>, Types<bfloat16, bfloat16>>(tensor, parameter, body);
}

/// body(Types<T, P>) for the element and parameter types of a call.
template <class Body>
void with_types(std::string_view call, std::int32_t type, std::int32_t parameter_type, Body&& body) {
  const std::string_view tensor = value_of(call, "type", type, types);
  const std::int32_t by_default = type == BATCHNORM_DOUBLE ? BATCHNORM_DOUBLE : BATCHNORM_FLOAT;
  const std::string_view parameter =
      value_of(call, "parameter_type", parameter_type == BATCHNORM_DEFAULT_PARAMETERS ? by_default : parameter_type, types);
  if (with_types_named(tensor, parameter, body)) return;
  refuse(call, "parameter_type " + std::string(parameter) + " does not go with type " + std::string(tensor));
}

}  // namespace c_interface
