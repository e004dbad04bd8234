// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "npy_files.hpp"
#include "run_program.hpp"
#include "temporary_folder.hpp"

namespace support {

/// Runs a tool that turns files into .npy files, in a folder of its own.
class ToolTest : public testing::Test {
 protected:
  explicit ToolTest(std::filesystem::path tool) : tool_(std::move(tool)) {}

  std::string file(const std::string& name) const { return folder_ / (name + ".npy"); }

  /// The tool ends with status 2, says on one line of standard error why, and has made no output folder.
  void expect_refusal(const ProgramResult& result, const std::string& why) const {
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.output, "");
    EXPECT_TRUE(result.errors.starts_with(tool_.filename().string() + ": ")) << result.errors;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1);
    EXPECT_NE(result.errors.find(why), std::string::npos) << result.errors;
    EXPECT_FALSE(std::filesystem::exists(out()));
  }

  std::filesystem::path out() const { return folder_ / "out"; }
  Array output(const std::string& name) const { return load_npy(out() / (name + ".npy")); }
  std::vector<long double> values(const std::string& name) const { return output(name).values; }

  std::filesystem::path tool_;
  TemporaryFolder folder_;
};

}  // namespace support
