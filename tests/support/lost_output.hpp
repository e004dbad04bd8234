// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "run_program.hpp"

namespace support {

/// The ways to lose what a program prints, as a shell says them. The pipe's reader is gone before the program begins.
struct LostOutput {
  std::string script, why;
};

inline const std::vector<LostOutput> lost_outputs{
    {"exec \"$@\" > /dev/full", "No space left on device"},
    {"exec \"$@\" >&-", "Bad file descriptor"},
    {"{ sleep 0.1; \"$@\"; echo $? > \"$status\"; } | :; exit \"$(cat \"$status\")\"", "Broken pipe"}};

/// A program that prints something and would succeed ends with `status` and a line of standard error where that is lost.
inline void expect_lost_output_is_told(const std::vector<std::string>& command, int status = 2) {
  for (const LostOutput& lost : lost_outputs) {
    SCOPED_TRACE(command[0] + ": " + lost.script);
    const TemporaryFolder folder;
    std::vector<std::string> shell{"/bin/sh", "-c", "status=$0; " + lost.script, folder / "status"};
    shell.insert(shell.end(), command.begin(), command.end());
    const ProgramResult result = run_program(shell);
    EXPECT_EQ(result.status, status);
    EXPECT_NE(result.errors.find(": standard output cannot be written: " + lost.why), std::string::npos) << result.errors;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  }
}

}  // namespace support
