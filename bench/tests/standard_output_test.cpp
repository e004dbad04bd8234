// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/lost_output.hpp"

// A measurement whose rows nobody sees has failed.
namespace {

using support::expect_lost_output_is_told;

TEST(StandardOutput, RowsThatAreLostFailTheBenchmark) {
  expect_lost_output_is_told({BATCHNORM_BENCH_PROGRAM, "--list"}, 1);
  expect_lost_output_is_told({BATCHNORM_BENCH_PROGRAM, "--shape", "2,3", "--operation", "inference", "--threads", "1"}, 1);
  expect_lost_output_is_told({BATCHNORM_BENCH_PROGRAM, "--help"});
}

TEST(StandardOutput, HelpThatIsLostFailsTheOtherPrograms) {
  expect_lost_output_is_told({BATCHNORM_ACCURACY_PROGRAM, "--help"});
  expect_lost_output_is_told({BATCHNORM_TUNE_PROGRAM, "--help"});
}

}  // namespace
