// SPDX-License-Identifier: MIT
#pragma once

// What calls check of numbers, before they look at tensors.

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include <batchnorm/call/reporter.hpp>
#include <batchnorm/detail/numbers.hpp>
#include <batchnorm/format.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/plan/default_mode.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// The shortest text that reads back as that number: "1.5", "nan", "inf".
inline std::string to_string(double value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

/// "[12, 4, 1]"
inline std::string to_string(const Strides& strides, int rank) {
  return batchnorm::to_string(Shape(std::span(strides).first(static_cast<std::size_t>(rank))));
}

inline void check_epsilon(const Reporter& call, double epsilon) {
  if (batchnorm::detail::is_from_0_to_1(epsilon) && batchnorm::detail::is_above_0(epsilon)) return;
  call.fail<ValueError>("epsilon is " + to_string(epsilon) + ", it must be in (0, 1]");
}

inline void check_options(const Reporter& call, const Options& options) {
  check_epsilon(call, options.epsilon);
  if (batchnorm::detail::is_from_0_to_1(options.momentum)) return;
  call.fail<ValueError>("momentum is " + to_string(options.momentum) + ", it must be in [0, 1]");
}

/// A statistic that may have been made by hand: its vectors must be of one length.
inline void check_statistic(const Reporter& call, std::string_view name, std::initializer_list<std::size_t> lengths,
                            std::int64_t count) {
  for (const std::size_t length : lengths) {
    if (length == *lengths.begin()) continue;
    call.fail<ShapeError>(std::string(name) + " have vectors of " + std::to_string(*lengths.begin()) + " and of " +
                          std::to_string(length) + " channels, expected one length");
  }
  if (count >= 0 && count <= batchnorm::detail::most_elements) return;
  call.fail<ValueError>(std::string(name) + " have a count of " + std::to_string(count) + ", it must be in [0, 2^53]");
}

/// The momentum of one call.
inline double momentum_of(const Reporter& call, const Options& options, const CallOptions& call_options) {
  const std::int64_t number = call_options.batch_number;
  if (number < 0) {
    call.fail<ValueError>("batch_number is " + std::to_string(number) + ", it must be 0 (use momentum) or count from 1");
  }
  double momentum = options.momentum;
  if (number > 0) cpu::in_default_mode([&] { momentum = 1.0 / static_cast<double>(number); });
  return momentum;
}

/// The number of elements of a shape; 0 where it cannot have as many, which is reported.
inline std::int64_t counted(const Reporter& call, const Shape& shape, std::string_view name) {
  const batchnorm::detail::ElementCount count = batchnorm::detail::count_elements(shape);
  if (count.before_name != nullptr) call.fail<ShapeError>(batchnorm::detail::problem_of(count, shape, name));
  return count.elements;
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
