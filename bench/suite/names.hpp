// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "row.hpp"

namespace bench {

inline constexpr std::array all_operations = {
    Operation::training,       Operation::inference,         Operation::backward,      Operation::training_relu,
    Operation::inference_relu, Operation::training_add_relu, Operation::backward_relu, Operation::backward_add_relu,
    Operation::moments,        Operation::inference_prepared};
inline constexpr std::array all_layouts = {Layout::nchw, Layout::nhwc};
inline constexpr std::array all_types = {ElementType::float32, ElementType::float64, ElementType::half, ElementType::bfloat16};

std::string_view name_of(Operation operation);
std::string_view name_of(Layout layout);
std::string_view name_of(ElementType type);

/// "32,64,56,56"
std::string name_of(const Extents& extents);

/// The one of `all` that has that name.
template <class All>
std::optional<typename All::value_type> named(const All& all, std::string_view name) {
  for (const auto one : all) {
    if (name_of(one) == name) return one;
  }
  return std::nullopt;
}

std::int64_t bytes_of(ElementType type);

bool is_backward(Operation operation);
bool is_training(Operation operation);
bool adds_residual(Operation operation);

/// How many tensors of the size of x the operation reads and writes at least; a mask is a bit per element.
double tensors_moved(Operation operation, ElementType type);

}  // namespace bench
