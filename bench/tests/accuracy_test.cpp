// SPDX-License-Identifier: MIT
//
// The program bench_accuracy from outside: that what it measures of the library keeps the promise, and that it sees when
// something else does not.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <batchnorm/isa.hpp>

#include "support/run_program.hpp"
#include "support/ulp.hpp"

namespace {

using support::ProgramResult;

ProgramResult run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), BATCHNORM_ACCURACY_PROGRAM);
  return support::run_program(arguments);
}

/// A line of the table by its titles.
using Line = std::map<std::string, std::string>;

std::vector<std::string> cells_of(const std::string& row) {
  std::vector<std::string> cells;
  std::istringstream text(row.substr(1));
  for (std::string cell; std::getline(text, cell, '|');) {
    const std::size_t begin = cell.find_first_not_of(' ');
    cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, cell.find_last_not_of(' ') - begin + 1));
  }
  return cells;
}

std::vector<Line> lines_of(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--markdown", "--shape", "4,5,6,7"});
  const ProgramResult result = run(arguments);
  EXPECT_EQ(result.status, 0) << result.errors;
  std::istringstream text(result.output);
  std::vector<std::string> titles;
  std::vector<Line> lines;
  for (std::string row; std::getline(text, row) && row.starts_with("|");) {
    if (row.starts_with("|-")) continue;
    const std::vector<std::string> cells = cells_of(row);
    if (titles.empty()) {
      titles = cells;
      continue;
    }
    EXPECT_EQ(cells.size(), titles.size()) << row;
    Line& line = lines.emplace_back();
    for (std::size_t i = 0; i < std::min(cells.size(), titles.size()); ++i) line[titles[i]] = cells[i];
  }
  return lines;
}

/// The largest of the formats.
double error(const Line& line, const std::string& title) {
  std::istringstream cell(line.at(title));
  double largest = 0;
  for (std::string number; cell >> number;) {
    if (number != "/") largest = std::max(largest, std::stod(number));
  }
  return largest;
}

/// In ulp, by the titles.
template <class T>
std::map<std::string, support::Real> promised(batchnorm::Isa isa) {
  using namespace support;
  std::map<std::string, Real> ulps{
      {"mean", mean_ulps}, {"variance", variance_ulps},      {"y", y_ulps<T>(isa)},        {"dscale", 1},
      {"dbias", 1},        {"y, inference", y_ulps<T>(isa)}, {"dx", dx_ulps<T>(isa, true)}};
  if (sizeof(T) == 8) {  // v * 2^-53 is at most an ulp at v
    constexpr Real variance = double_variance_error * 0x1p53L, sum = double_sum_error * 0x1p53L + 1;
    ulps["mean"] = double_mean_ulps, ulps["variance"] = variance, ulps["dscale"] = ulps["dbias"] = sum;
    ulps["y"] += variance / 2;
    ulps.erase("dx");  // where its terms are small beside those of the sums, the promise is no number of ulp
  }
  return ulps;
}

template <class T>
void expect_promise_kept(const std::string& type, batchnorm::Isa isa) {
  const std::map<std::string, support::Real> promise = promised<T>(isa);
  int own = 0;
  for (const Line& line : lines_of({"--type", type, "--isa", std::string(to_string(isa))})) {
    EXPECT_EQ(line.at("type"), type);
    if (line.at("implementation") != "batchnorm") continue;
    ++own;
    for (const auto& [title, ulps] : promise) {
      EXPECT_LE(error(line, title), ulps) << title << ", " << line.at("data") << ", " << type << ", " << to_string(isa);
    }
  }
  EXPECT_EQ(own, type == "half" ? 4 : 6);  // half ends at 65504
}

TEST(Accuracy, WhatIsMeasuredKeepsThePromise) {
  for (const batchnorm::Isa isa : batchnorm::available_isas()) {
    expect_promise_kept<float>("float", isa);
    expect_promise_kept<double>("double", isa);
    expect_promise_kept<batchnorm::half>("half", isa);
    expect_promise_kept<batchnorm::bfloat16>("bfloat16", isa);
  }
}

// With the mean rounded to float an offset costs y all but a few digits: the measure is not blind.
TEST(Accuracy, WhatDoesNotKeepItIsSeen) {
  int naive = 0;
  for (const Line& line : lines_of({"--type", "float", "--data", "offset-1e6"})) {
    if (line.at("implementation") != "naive loop") continue;
    ++naive;
    EXPECT_GT(error(line, "y"), 1000 * support::y_ulps_without_fma);
    EXPECT_LE(error(line, "mean"), support::mean_ulps);
  }
  EXPECT_EQ(naive, 1);
}

TEST(Accuracy, ACellHasANumberForEachFormat) {
  const auto y_of = [](std::vector<std::string> formats) {
    formats.insert(formats.end(), {"--data", "normal", "--isa", "baseline"});
    return lines_of(formats).front().at("y");
  };
  EXPECT_EQ(y_of({}), y_of({"--format", "NCHW"}) + " / " + y_of({"--format", "NHWC"}));
}

TEST(Accuracy, PrintsAnAlignedTable) {
  const ProgramResult result = run({"--shape", "2,3,4", "--type", "bfloat16", "--data", "normal"});
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_TRUE(result.output.starts_with("type ")) << result.output;
  EXPECT_NE(result.output.find("\nbfloat16  2,3,4  normal  batchnorm "), std::string::npos) << result.output;
}

TEST(Accuracy, WhatMakesNoSenseIsRefusedWithAReason) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--shape", "5"}, "rank is 1"},
      {{"--data", "hard"}, "unknown 'hard', known are normal, offset-1e3"},
      {{"--type", "float16"}, "unknown 'float16', known are float"},
      {{"--format", "nhwc"}, "unknown 'nhwc', known are NCHW"},
      {{"--isa", "avx9"}, "'avx9'"},
      {{"--frobnicate"}, "--frobnicate"}};
  for (const auto& [arguments, message] : cases) {
    const ProgramResult result = run(arguments);
    EXPECT_EQ(result.status, 2) << message;
    EXPECT_TRUE(result.errors.starts_with("bench_accuracy: ")) << result.errors;
    EXPECT_NE(result.errors.find(message), std::string::npos) << result.errors;
    EXPECT_TRUE(result.output.empty()) << result.output;
  }
}

}  // namespace
