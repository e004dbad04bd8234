// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "measure.hpp"

namespace bench {

/// What the command line asks for.
struct Request {
  std::vector<Row> rows;
  std::string json;  // a file to write, or nothing
  bool with_rivals = false;
  bool lists_only = false;
  bool explains = false;
};

/// Reads the command line. Ends the program where it asks for help (status 0) or makes no sense (a message, status 2).
Request read_command_line(int argc, char** argv);

}  // namespace bench
