// SPDX-License-Identifier: MIT
//
// The program batchnorm_bench from outside: the rows that it writes, and what it says when it cannot work.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <batchnorm/isa.hpp>

#include "json_reader.hpp"
#include "support/run_program.hpp"
#include "support/temporary_folder.hpp"

namespace {

using bench_tests::JsonReader;
using bench_tests::JsonValue;
using support::ProgramResult;

const std::vector<std::string> operations = {"training",       "inference",         "backward",      "training_relu",
                                             "inference_relu", "training_add_relu", "backward_relu", "backward_add_relu",
                                             "moments",        "inference_prepared"};
const std::vector<std::string> types = {"float", "double", "half", "bfloat16"};

ProgramResult run(std::vector<std::string> arguments, const std::vector<std::string>& environment = {}) {
  arguments.insert(arguments.begin(), BATCHNORM_BENCH_PROGRAM);
  return support::run_program(arguments, environment);
}

std::vector<std::string> repeated(const std::string& option, const std::vector<std::string>& values) {
  std::vector<std::string> arguments;
  for (const std::string& value : values) arguments.insert(arguments.end(), {option, value});
  return arguments;
}

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// What the program writes to the file that it is told.
JsonValue json_of(const std::vector<std::string>& arguments) {
  const support::TemporaryFolder folder;
  const ProgramResult result = run(arguments + std::vector<std::string>{"--json", folder / "rows.json"});
  EXPECT_EQ(result.status, 0) << result.errors << result.output;
  return JsonReader::read(support::read_bytes(folder / "rows.json"));
}

std::set<std::string> keys(const JsonValue& value) {
  std::set<std::string> result;
  for (const auto& [key, member] : value.object) result.insert(key);
  return result;
}

/// A row has every key, and its ratio is that of its times to the last bit.
void expect_row(const JsonValue& row) {
  EXPECT_EQ(keys(row), (std::set<std::string>{"shape", "operation", "format", "type", "isa", "threads", "ratio_to_copy",
                                              "ratio_per_byte", "median_us", "copy_us", "spread", "range", "GB_per_s", "rivals",
                                              "rival_ranges", "rival_implementations", "rivals_that_differ"}));
  EXPECT_GT(row["median_us"].number, 0);
  EXPECT_GT(row["copy_us"].number, 0);
  EXPECT_GT(row["GB_per_s"].number, 0);
  EXPECT_GE(row["spread"].number, 0);
  ASSERT_EQ(row["range"].array.size(), 2U);
  EXPECT_LE(row["range"].array[0].number, row["ratio_to_copy"].number);
  EXPECT_GE(row["range"].array[1].number, row["ratio_to_copy"].number);
  EXPECT_EQ(keys(row["rival_ranges"]), keys(row["rivals"]));
  EXPECT_EQ(row["ratio_to_copy"].number, row["median_us"].number / row["copy_us"].number);
  const double mask = row["type"].string == "double" ? 1.0 / 64 : row["type"].string == "float" ? 1.0 / 32 : 1.0 / 16;
  const std::map<std::string, double> tensors = {{"training", 2},
                                                 {"inference", 2},
                                                 {"training_relu", 2 + mask},
                                                 {"inference_relu", 2},
                                                 {"inference_prepared", 2},
                                                 {"training_add_relu", 3 + mask},
                                                 {"backward", 3},
                                                 {"backward_relu", 3 + mask},
                                                 {"backward_add_relu", 4 + mask},
                                                 {"moments", 1}};
  EXPECT_DOUBLE_EQ(row["ratio_per_byte"].number, row["ratio_to_copy"].number * 2 / tensors.at(row["operation"].string));
}

TEST(BatchnormBench, EveryCombinationIsRightAndGivesARow) {
  const JsonValue json =
      json_of(std::vector<std::string>{"--shape", "2,3,5,7", "--threads", "1"} + repeated("--operation", operations) +
              repeated("--type", types) + repeated("--format", {"NCHW", "NHWC"}));
  EXPECT_EQ(keys(json), (std::set<std::string>{"machine", "rows"}));
  std::set<std::string> combinations;
  for (const JsonValue& row : json["rows"].array) {
    expect_row(row);
    combinations.insert(row["operation"].string + " " + row["format"].string + " " + row["type"].string);
    ASSERT_EQ(row["shape"].array.size(), 4U);
    for (const int i : {0, 1, 2, 3})
      EXPECT_EQ(row["shape"].array[static_cast<std::size_t>(i)].number, (std::array{2, 3, 5, 7}[static_cast<std::size_t>(i)]));
    EXPECT_EQ(row["threads"].number, 1);
    EXPECT_TRUE(row["rivals"].object.empty());
  }
  EXPECT_EQ(combinations.size(), operations.size() * types.size() * 2);
  EXPECT_EQ(json["rows"].array.size(), combinations.size());
}

TEST(BatchnormBench, OptionsAreRepeatedAndNameTheirRows) {
  std::vector<std::string> isas;
  for (const batchnorm::Isa isa : batchnorm::available_isas()) isas.emplace_back(to_string(isa));
  const JsonValue json = json_of(std::vector<std::string>{"--operation", "training_relu", "--format", "NHWC"} +
                                 repeated("--shape", {"9,2", "3,70,5", "2,16,3,3,4"}) + repeated("--threads", {"1", "2"}) +
                                 repeated("--isa", isas));
  std::set<std::string> rows;
  for (const JsonValue& row : json["rows"].array) {
    expect_row(row);
    rows.insert(std::to_string(row["shape"].array.size()) + " " + row["isa"].string + " " +
                std::to_string(row["threads"].number));
  }
  EXPECT_EQ(rows.size(), 3 * 2 * isas.size());
}

// It took the last of the instruction sets, whatever the environment said.
TEST(BatchnormBench, TakesTheInstructionSetOfTheEnvironment) {
  const ProgramResult named = run({"--shape", "4,4", "--list"}, {"BATCHNORM_ISA=baseline"});
  const ProgramResult unknown = run({"--shape", "4,4", "--list"}, {"BATCHNORM_ISA=6502"});
  EXPECT_EQ(named.status, 0);
  EXPECT_NE(named.output.find("/baseline/"), std::string::npos) << named.output;
  EXPECT_EQ(unknown.status, 2);
  EXPECT_NE(unknown.errors.find("BATCHNORM_ISA"), std::string::npos) << unknown.errors;
  const ProgramResult preferred = run({"--shape", "4,4", "--list"});
  EXPECT_NE(preferred.output.find("/" + std::string(to_string(batchnorm::preferred_isa())) + "/"), std::string::npos)
      << preferred.output;
}

TEST(BatchnormBench, SaysOnWhichMachine) {
  const JsonValue machine = json_of({"--shape", "4,4", "--operation", "moments", "--threads", "1"})["machine"];
  EXPECT_EQ(keys(machine), (std::set<std::string>{"cpu", "cores", "caches", "memory_bytes", "compiler", "flags", "library",
                                                  "revision", "isas", "rivals", "date"}));
  EXPECT_GE(machine["cores"].number, 1);
  EXPECT_FALSE(machine["compiler"].string.empty());
  EXPECT_EQ(machine["library"].string.rfind("batchnorm ", 0), 0U);
  EXPECT_FALSE(machine["revision"].string.empty());
  EXPECT_EQ(machine["isas"].array.size(), batchnorm::available_isas().size());
}

TEST(BatchnormBench, RivalsStandBesideTheRow) {
  const JsonValue json = json_of({"--shape", "4,8,6,6", "--operation", "training", "--threads", "1", "--rivals"});
  ASSERT_EQ(json["rows"].array.size(), 2U);
  for (const JsonValue& row : json["rows"].array) {
    expect_row(row);
    ASSERT_FALSE(row["rivals"].object.empty());
    for (const auto& [name, ratio] : row["rivals"].object) EXPECT_GT(ratio.number, 0) << name;
    EXPECT_TRUE(row["rivals_that_differ"].array.empty());
  }
}

TEST(BatchnormBench, PrintsALineForEachRow) {
  const ProgramResult result = run({"--shape", "2,3,4", "--operation", "inference", "--format", "NCHW", "--threads", "1"});
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_NE(result.output.find("\n2,3,4 "), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("ratio"), std::string::npos) << result.output;
}

std::ptrdiff_t listed(std::vector<std::string> arguments) {
  arguments.emplace_back("--list");
  const ProgramResult result = run(arguments);
  EXPECT_EQ(result.status, 0) << result.errors;
  return std::count(result.output.begin(), result.output.end(), '\n');
}

TEST(BatchnormBench, ListsPanels) {
  const std::vector<std::string> two_threads = {"--threads", "1", "--threads", "2"};
  EXPECT_EQ(listed({"--panel", "resnet-50", "--operation", "training", "--threads", "1"}), 18 * 2);
  EXPECT_EQ(listed({"--panel", "matrix", "--operation", "training", "--threads", "1"}), 3);
  const std::ptrdiff_t full = listed(std::vector<std::string>{"--panel", "full", "--operation", "training"} + two_threads);
  EXPECT_GE(full, 140);
  EXPECT_LE(full, 170);
  EXPECT_EQ(listed(two_threads), listed(std::vector<std::string>{"--panel", "quick"} + two_threads));
}

struct Refused {
  std::vector<std::string> arguments;
  std::string message;
};

TEST(BatchnormBench, WhatMakesNoSenseIsRefusedWithAReason) {
  const Refused cases[] = {
      {{"--shape", "5"}, "rank is 1"},
      {{"--shape", "1,2,3,4,5,6"}, "rank is 6"},
      {{"--shape", "2,x"}, "'x' is not a whole number"},
      {{"--shape", "2,,3"}, "'' is not a whole number"},
      {{"--shape", "2,3,"}, "'' is not a whole number"},
      {{"--shape", "2 3"}, "'2 3' is not a whole number"},
      {{"--shape", "0,3"}, "'0' is not a whole number"},
      {{"--shape", "-2,3"}, "'-2' is not a whole number"},
      {{"--shape", "3000000000,3000000000,3"}, "too many elements"},
      {{"--shape", "300000000,300000"}, "the machine has"},
      {{"--operation", "trainig"}, "unknown 'trainig', known are training, inference"},
      {{"--format", "nhwc"}, "unknown 'nhwc', known are NCHW, NHWC"},
      {{"--type", "float16"}, "unknown 'float16', known are float, double, half, bfloat16"},
      {{"--isa", "avx9"}, "'avx9', available here are"},
      {{"--threads", "0"}, "'0' is not a whole number"},
      {{"--threads", "two"}, "'two' is not a whole number"},
      {{"--threads", "100000"}, "100000"},
      {{"--panel", "lenet"}, "unknown panel 'lenet', known are quick, full"},
      {{"--frobnicate"}, "--frobnicate"},
      {{"file.json"}, "file.json"},
      {{"--json"}, "--json"},
  };
  for (const Refused& refused : cases) {
    const ProgramResult result = run(refused.arguments);
    EXPECT_EQ(result.status, 2) << refused.message;
    EXPECT_NE(result.errors.find(refused.message), std::string::npos) << result.errors;
    EXPECT_EQ(result.errors.rfind("batchnorm_bench: ", 0), 0U) << result.errors;
    EXPECT_TRUE(result.output.empty()) << result.output;
  }
}

TEST(BatchnormBench, ExplainsHowEachRowGoesThroughMemory) {
  const ProgramResult result = run({"--shape", "32,2048,7,7", "--threads", "1", "--format", "NCHW", "--list", "--explain"});
  EXPECT_EQ(result.status, 0) << result.errors;
  std::size_t plans = 0, at = 0;
  while ((at = result.output.find("\n    32 images of 2048 channels of 49 values: ", at) + 1) != 0) ++plans;
  EXPECT_EQ(plans, 3U) << result.output;
}

TEST(BatchnormBench, AFileThatCannotBeWrittenIsAnError) {
  const support::TemporaryFolder folder;
  for (const std::string& file :
       {(folder / "missing" / "rows.json").string(), folder.path().string(), std::string("/dev/full")}) {
    const ProgramResult result = run({"--shape", "2,3", "--operation", "moments", "--threads", "1", "--json", file});
    EXPECT_EQ(result.status, 1) << file;
    EXPECT_NE(result.errors.find("'" + file + "' cannot be written"), std::string::npos) << result.errors;
  }
}

TEST(BatchnormBench, HelpNamesEveryOption) {
  const ProgramResult result = run({"--help"});
  EXPECT_EQ(result.status, 0);
  for (const std::string option : {"--shape", "--operation", "--format", "--type", "--threads", "--isa", "--json", "--rivals",
                                   "--panel", "--list", "--explain"}) {
    EXPECT_NE(result.output.find(option), std::string::npos) << option;
  }
}

}  // namespace
