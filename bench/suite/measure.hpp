// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include <batchnorm/isa.hpp>

#include "row.hpp"

namespace bench {

/// What is asked for: a problem on an instruction set.
struct Row {
  Problem problem;
  batchnorm::Isa isa;
};

/// The 10th and the 90th percentile of a time, as multiples of the median of the copy.
struct Range {
  double low = 0, high = 0;
};

struct RivalResult {
  std::string name, implementation;
  double ratio_to_copy = 0;
  Range range{};
  bool differs = false;  // from the library's result, by more than rounding explains
};

/// What came out. Times are of one call.
struct Result {
  Row row{};
  std::string error{};  // of a value that is wrong; nothing was timed then
  double median_us = 0, copy_us = 0;
  double spread = 0;
  Range range{};
  std::vector<RivalResult> rivals{};

  double ratio_to_copy() const { return median_us / copy_us; }
  /// Relative to a copy of as many bytes as the operation moves at least: a copy moves two tensors.
  double ratio_per_byte() const;
  double GB_per_s() const;
};

/// "training/NCHW/float/32,64,56,56/x86-64-v3/threads:2"
std::string name_of(const Row& row);

/// How the library goes through memory in that row; of a fused operation, what the plain one does.
std::string explanation_of(const Row& row);

/// The instruction set that the library takes for that problem, unless one was forced.
batchnorm::Isa isa_of_library(const Problem& problem);

/// Checks and times a row, with its rivals if wanted.
Result measure(const Row& row, bool with_rivals);

}  // namespace bench
