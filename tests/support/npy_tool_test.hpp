// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tool_test.hpp"

namespace support {

/// Runs one command of batchnorm_npy, with options that a test may change.
class NpyToolTest : public ToolTest {
 protected:
  explicit NpyToolTest(std::string command) : ToolTest(BATCHNORM_NPY_TOOL), command_(std::move(command)) {}

  /// --NAME NAME.npy for each.
  void give_files(const std::vector<std::string>& names) {
    for (const std::string& name : names) options_["--" + name] = file(name);
    options_["--out"] = folder_ / "out";
  }

  std::vector<std::string> command_line(const std::vector<std::string>& more) const {
    std::vector<std::string> command{tool_, command_};
    for (const auto& [option, value] : options_) command.insert(command.end(), {option, value});
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }

  ProgramResult run(const std::vector<std::string>& more = {}, const std::vector<std::string>& environment = {}) const {
    return run_program(command_line(more), environment);
  }

  void expect_success(const std::vector<std::string>& more = {}) const {
    const ProgramResult result = run(more);
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.errors, "");
    EXPECT_EQ(result.output, "");
  }

  std::map<std::string, std::string> options_;

 private:
  std::string command_;
};

}  // namespace support
