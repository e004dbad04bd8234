// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "machine.hpp"
#include "measure.hpp"

namespace bench {

/// What the table begins with: the machine and the names of the columns.
std::string header(const Machine& machine);

/// One line of the table, or what is wrong.
std::string line_of(const Result& result);

/// {"machine": {...}, "rows": [...]}, a row to a line.
std::string json_of(const Machine& machine, const std::vector<Result>& results);

}  // namespace bench
