// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <batchnorm/npy/npy.hpp>

#include "npy_files.hpp"
#include "run_program.hpp"
#include "temporary_folder.hpp"

namespace support {

/// Runs one command of batchnorm_npy in a folder of its own, with options that a test may change.
class NpyToolTest : public testing::Test {
 protected:
  explicit NpyToolTest(std::string command) : command_(std::move(command)) {}

  /// --NAME NAME.npy for each.
  void give_files(const std::vector<std::string>& names) {
    for (const std::string& name : names) options_["--" + name] = file(name);
    options_["--out"] = folder_ / "out";
  }

  std::string file(const std::string& name) const { return folder_ / (name + ".npy"); }

  std::vector<std::string> command_line(const std::vector<std::string>& more) const {
    std::vector<std::string> command{BATCHNORM_NPY_TOOL, command_};
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

  /// The tool ends with status 2, says on one line of standard error why, and has made no output folder.
  void expect_refusal(const ProgramResult& result, const std::string& why) const {
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.output, "");
    EXPECT_EQ(result.errors.substr(0, 15), "batchnorm_npy: ");
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1);
    EXPECT_NE(result.errors.find(why), std::string::npos) << result.errors;
    EXPECT_FALSE(std::filesystem::exists(out()));
  }

  std::filesystem::path out() const { return folder_ / "out"; }
  Array output(const std::string& name) const { return load_npy(out() / (name + ".npy")); }
  std::vector<long double> values(const std::string& name) const { return output(name).values; }

  TemporaryFolder folder_;
  std::map<std::string, std::string> options_;

 private:
  std::string command_;
};

}  // namespace support
