// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "machine.hpp"

namespace selftest {

/// The checksum that a case has on a device that is cut up as an H100: 132 multiprocessors, blocks of up to 227 KB, clusters of
/// 8, compute capability 9.0. The emulator made the table (expected.inc).
std::optional<std::uint64_t> expected_checksum(std::string_view name);
std::size_t expected_count();

/// What is found when all cases are run.
struct Report {
  int cases = 0, left_out = 0, failed = 0;
  std::string table;  ///< the text of expected.inc
};

/// Runs the cases whose name contains `filter` in all ways of the machine and prints a line for each:
///
///   ok, FAILED or "-" (left out), name, largest error in ulp, checksum, what is wrong
///
/// It fails where a bound of docs/numerics.md is broken, memory beside an output is written, an input is changed, two ways
/// differ in a bit, or, if `compares_checksums`, the bits are not those of the table.
Report run_cases(Machine& machine, std::string_view filter, bool compares_checksums);

}  // namespace selftest
