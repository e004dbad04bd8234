// SPDX-License-Identifier: MIT
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <batchnorm/call/machine_tuning.hpp>

#include "../suite/choice.hpp"

// What bench_tune recommends, of times that are made up.
namespace {

using bench::choose;

TEST(Choice, ValueBelowTodaysIsRecommended) {
  // Today's is the third; the first is the fastest, in every problem.
  const auto choice = choose({{0.80, 0.95, 1.0, 1.1, 1.2}, {1.6, 1.9, 2.0, 2.2, 2.4}}, 5, 2);
  EXPECT_EQ(choice.best, 0U);
  EXPECT_DOUBLE_EQ(choice.relative[0], 0.80);
  EXPECT_DOUBLE_EQ(choice.relative[2], 1.0);
  EXPECT_DOUBLE_EQ(choice.relative[4], 1.2);
}

TEST(Choice, ValueNextBelowOrAboveTodaysIsRecommended) {
  EXPECT_EQ(choose({{1.1, 0.80, 1.0, 0.85, 1.2}}, 5, 2).best, 1U);
  EXPECT_EQ(choose({{0.9, 0.85, 1.0, 0.80, 1.2}}, 5, 2).best, 3U);
  EXPECT_EQ(choose({{0.9, 0.85, 1.0, 0.82, 0.80}}, 5, 2).best, 4U);
}

TEST(Choice, TodaysStaysWhereNoneIsFaster) {
  EXPECT_EQ(choose({{1.1, 1.0, 1.0, 1.0, 1.2}}, 5, 2).best, 2U);
  EXPECT_EQ(choose({}, 5, 2).best, 2U);
}

TEST(Choice, ProblemsCountByTheirRatiosNotTheirLengths) {
  // Twice as fast in a short problem and 1.5 times as slow in a long one: faster on the whole.
  const auto choice = choose({{0.5e-6, 1e-6}, {1.5, 1}}, 2, 1);
  EXPECT_EQ(choice.best, 0U);
  EXPECT_DOUBLE_EQ(choice.relative[0] * choice.relative[0], 0.75);
}

TEST(Choice, WhatGainsEnoughIsRecommendedAsTheLibraryTakesIt) {
  std::string line;
  bench::recommend(line, "serial_bytes", "65536", choose({{0.98, 1.0}}, 2, 1));
  EXPECT_EQ(line, "") << "2 % is noise";
  bench::recommend(line, "plane_group_bytes", "524288", choose({{0.80, 1.0}}, 2, 1));
  bench::recommend(line, "inference_stream_share", "0.03125", choose({{1.0, 0.9}}, 2, 0));
  EXPECT_EQ(line, "BATCHNORM_TUNING=plane_group_bytes=524288,inference_stream_share=0.03125");
  batchnorm::Tuning tuning;
  EXPECT_EQ(batchnorm::detail::apply_tuning(std::string_view(line).substr(line.find('=') + 1), tuning), "");
  EXPECT_EQ(tuning.plane_group_bytes, 524288);
  EXPECT_EQ(tuning.inference_stream_share, 0.03125);
}

}  // namespace
