// SPDX-License-Identifier: MIT

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/npy_tool_test.hpp"

// The commands backward and double-backward of the tool.
namespace {

namespace npy = batchnorm::npy;

using npy::Type;
using support::ProgramResult;
using Values = std::vector<long double>;

/// What the tests of the two commands share: files that are good unless a test replaces them. Channel 0 of x holds +-1/4,
/// channel 1 holds 3 +- 1/4; with epsilon 0.1875 the inverse deviation is 2, and every result is exact in every type.
class GradientCommandTest : public support::NpyToolTest {
 protected:
  explicit GradientCommandTest(const std::string& command) : NpyToolTest(command) {
    save_all(Type::float32, Type::float32);
    options_["--epsilon"] = "0.1875";
  }

  void save_all(Type x_type, Type parameter_type) {
    const std::vector<std::int64_t> shape{2, 2, 2}, channels{2};
    support::save_npy(file("x"), x_type, shape, {-0.25, 0.25, 2.75, 3.25, 0.25, -0.25, 3.25, 2.75});
    support::save_npy(file("dy"), x_type, shape, {1, 2, 3, 4, 6, 5, 7, 0});
    support::save_npy(file("ddx"), x_type, shape, {2, 0, 1, -1, 0, 4, 3, 1});
    support::save_npy(file("scale"), parameter_type, channels, {2, 4});
    support::save_npy(file("mean"), parameter_type, channels, {0, 3});
    support::save_npy(file("variance"), parameter_type, channels, {0.0625, 0.0625});
    support::save_npy(file("ddscale"), parameter_type, channels, {1, 2});
    support::save_npy(file("ddbias"), parameter_type, channels, {3, -1});
  }

  /// Tests of one command's options, given the names of its input files that have the type and shape of x, and of scale.
  void expect_that_every_option_is_required() {
    const auto complete = options_;
    for (const auto& [option, value] : complete) {
      if (option == "--epsilon") continue;
      SCOPED_TRACE(option);
      options_ = complete;
      options_.erase(option);
      expect_refusal(run(), option + " is required");
    }
    options_ = complete;
  }

  void expect_that_a_missing_or_unreadable_file_is_named(const std::vector<std::string>& names) {
    const auto complete = options_;
    for (const std::string& name : names) {
      SCOPED_TRACE(name);
      options_ = complete;
      options_["--" + name] = file("missing_" + name);
      expect_refusal(run(), "'" + file("missing_" + name) + "': there is no such file");
      support::write_bytes(file("broken"), "not an array");
      options_["--" + name] = file("broken");
      expect_refusal(run(), "'" + file("broken") + "': it is not a .npy file");
    }
    options_ = complete;
  }

  void expect_that_types_go_together(const std::vector<std::string>& like_x, const std::vector<std::string>& like_scale) {
    for (const auto& [x_type, parameter_type] : {std::pair{Type::float32, Type::float64}, {Type::float64, Type::float32}}) {
      save_all(x_type, parameter_type);
      expect_refusal(run(), "x is " + npy::type_name(x_type) + " and scale is " + npy::type_name(parameter_type));
    }
    save_all(Type::float32, Type::float32);
    const auto complete = options_;
    support::save_npy(file("half tensor"), Type::float16, {2, 2, 2}, std::vector<double>(8));
    support::save_npy(file("half vector"), Type::float16, {2}, {1, 1});
    for (const std::string& name : like_x) {
      options_ = complete;
      options_["--" + name] = file("half tensor");
      expect_refusal(run(), name + " ('" + file("half tensor") + "') is float16, it must have the type of x, float32");
    }
    for (const std::string& name : like_scale) {
      options_ = complete;
      options_["--" + name] = file("half vector");
      expect_refusal(run(), name + " ('" + file("half vector") + "') is float16, it must have the type of scale, float32");
    }
    options_ = complete;
  }

  void expect_that_shapes_go_together(const std::vector<std::string>& like_x, const std::vector<std::string>& like_scale) {
    const auto complete = options_;
    support::save_npy(file("other tensor"), Type::float32, {2, 4}, std::vector<double>(8));
    support::save_npy(file("long vector"), Type::float32, {3}, {1, 1, 1});
    support::save_npy(file("matrix"), Type::float32, {2, 1}, {1, 1});
    for (const std::string& name : like_x) {
      options_ = complete;
      options_["--" + name] = file("other tensor");
      expect_refusal(run(), name + " has shape [2, 4], expected the shape of x (x is [2, 2, 2], NCHW)");
    }
    for (const std::string& name : like_scale) {
      options_ = complete;
      options_["--" + name] = file("long vector");
      expect_refusal(run(), name + " has 3 elements, expected C = 2 (x is [2, 2, 2], NCHW)");
      options_["--" + name] = file("matrix");
      expect_refusal(run(), name + " has shape [2, 1], expected [C] = [2] (x is [2, 2, 2], NCHW)");
    }
    options_ = complete;
    support::save_npy(file("x"), Type::float32, {8}, std::vector<double>(8));
    expect_refusal(run(), "x has rank 1, expected 2 to 5");
  }

  void expect_that_options_are_checked() {
    expect_refusal(run({"--sideways"}), "--sideways");
    expect_refusal(run({"--momentum", "0.1"}), "--momentum");  // an option of forward alone
    expect_refusal(run({"--format", "nchw"}), "unknown format 'nchw', known are NCHW and NHWC");
    for (const std::string text : {"0", "-1", "1.5", "nan", "x", ""}) {
      options_["--epsilon"] = text;
      expect_refusal(run(), "epsilon");
    }
    options_["--epsilon"] = "0.1875";
    expect_refusal(run({}, {"BATCHNORM_ISA=abacus"}), "BATCHNORM_ISA is 'abacus', available here are ");
    expect_refusal(run({}, {"BATCHNORM_NUM_THREADS=0"}), "BATCHNORM_NUM_THREADS is '0'");
    support::write_bytes(folder_ / "file", "");
    options_["--out"] = folder_ / "file";
    expect_refusal(run(), "--out");
  }

  void expect_that_an_error_leaves_the_output_folder(const std::vector<std::string>& results) {
    expect_success();
    const std::string before = support::read_bytes(out() / results.front());
    std::filesystem::remove(out() / results.back());
    std::filesystem::create_directory(out() / results.back());  // the last result cannot be written
    EXPECT_EQ(run({"--training"}).status, 2);
    EXPECT_EQ(support::names_in(out()), results);
    EXPECT_EQ(support::read_bytes(out() / results.front()), before);
  }

  /// body() with the files in every pair of types; expects the outputs in that of x, or of scale.
  template <class Body>
  void for_each_pair_of_types(const std::vector<std::string>& like_x, const std::string& like_scale, Body&& body) {
    for (const auto& [x_type, parameter_type] : {std::pair{Type::float16, Type::float16},
                                                 {Type::float16, Type::float32},
                                                 {Type::float32, Type::float16},
                                                 {Type::float32, Type::float32},
                                                 {Type::float64, Type::float64}}) {
      SCOPED_TRACE(npy::type_name(x_type) + " " + npy::type_name(parameter_type));
      save_all(x_type, parameter_type);
      body();
      for (const std::string& name : like_x) EXPECT_EQ(output(name).header, (npy::Header{x_type, {2, 2, 2}})) << name;
      EXPECT_EQ(output(like_scale).header, (npy::Header{parameter_type, {2}}));
    }
  }
};

class BackwardCommandTest : public GradientCommandTest {
 protected:
  BackwardCommandTest() : GradientCommandTest("backward") { give_files(names); }

  const std::vector<std::string> names{"dy", "x", "scale", "mean", "variance"};
  const std::vector<std::string> results{"dbias.npy", "dscale.npy", "dx.npy"};
};

class DoubleBackwardCommandTest : public GradientCommandTest {
 protected:
  DoubleBackwardCommandTest() : GradientCommandTest("double-backward") { give_files(names); }

  const std::vector<std::string> names{"x", "dy", "scale", "mean", "variance", "ddx", "ddscale", "ddbias"};
  const std::vector<std::string> results{"ddy.npy", "dscale.npy", "dx.npy"};
};

TEST_F(BackwardCommandTest, TrainingDifferentiatesTheStatisticsToo) {
  for_each_pair_of_types({"dx"}, "dscale", [&] {
    expect_success({"--training"});
    EXPECT_EQ(support::names_in(out()), results);
    EXPECT_EQ(values("dbias"), (Values{14, 14}));
    EXPECT_EQ(values("dscale"), (Values{1, 4}));
    EXPECT_EQ(values("dx"), (Values{-9.5, -6.5, 0, 0, 9.5, 6.5, 24, -24}));
    EXPECT_EQ(output("dbias").header, output("dscale").header);
  });
}

TEST_F(BackwardCommandTest, InferenceTakesTheStatisticsForConstants) {
  expect_success();
  EXPECT_EQ(values("dbias"), (Values{14, 14}));
  EXPECT_EQ(values("dscale"), (Values{1, 4}));
  EXPECT_EQ(values("dx"), (Values{4, 8, 24, 32, 24, 20, 56, 0}));
}

TEST_F(BackwardCommandTest, NhwcTakesTheLastAxisForTheChannels) {
  expect_success({"--format", "NHWC"});
  EXPECT_EQ(values("dbias"), (Values{17, 11}));
  EXPECT_EQ(values("dx"), (Values{4, 16, 12, 32, 24, 40, 28, 0}));
}

TEST_F(BackwardCommandTest, EpsilonIsThatOfTheOperatorByDefault) {
  options_.erase("--epsilon");
  expect_success({"--training"});
  const Values unspecified = values("dx");
  options_["--epsilon"] = "1e-5";
  expect_success({"--training"});
  EXPECT_EQ(values("dx"), unspecified);
}

TEST_F(BackwardCommandTest, EmptyTensorsGiveAnEmptyGradientAndZeros) {
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{{0, 2}, {0, 2, 3, 3}, {4, 2, 0}}) {
    SCOPED_TRACE(npy::to_string(shape));
    support::save_npy(file("x"), Type::float32, shape, {});
    support::save_npy(file("dy"), Type::float32, shape, {});
    expect_success({"--training"});
    EXPECT_EQ(output("dx").header, (npy::Header{Type::float32, shape}));
    EXPECT_EQ(values("dscale"), (Values{0, 0}));
    EXPECT_EQ(values("dbias"), (Values{0, 0}));
  }
}

TEST_F(BackwardCommandTest, RefusesACommandLineThatLacksARequiredOption) { expect_that_every_option_is_required(); }

TEST_F(BackwardCommandTest, NamesTheInputFileThatCannotBeRead) { expect_that_a_missing_or_unreadable_file_is_named(names); }

TEST_F(BackwardCommandTest, RefusesTypesThatDoNotGoTogether) { expect_that_types_go_together({"dy"}, {"mean", "variance"}); }

TEST_F(BackwardCommandTest, RefusesShapesThatDoNotGoTogether) {
  expect_that_shapes_go_together({"dy"}, {"scale", "mean", "variance"});
}

TEST_F(BackwardCommandTest, ChecksItsOptions) { expect_that_options_are_checked(); }

TEST_F(BackwardCommandTest, AnErrorLeavesTheOutputFolderAsItWas) { expect_that_an_error_leaves_the_output_folder(results); }

TEST_F(BackwardCommandTest, MayWriteOverItsInputs) {
  std::filesystem::create_directory(out());
  std::filesystem::copy(file("dy"), out() / "dx.npy");
  options_["--dy"] = out() / "dx.npy";
  expect_success();
  EXPECT_EQ(values("dx"), (Values{4, 8, 24, 32, 24, 20, 56, 0}));
}

TEST_F(DoubleBackwardCommandTest, TrainingDifferentiatesTheStatisticsToo) {
  for_each_pair_of_types({"dx", "ddy"}, "dscale", [&] {
    expect_success({"--training"});
    EXPECT_EQ(support::names_in(out()), results);
    EXPECT_EQ(values("dx"), (Values{-17.5, -12.5, 12, 20, 19.5, 10.5, -32, 0}));
    EXPECT_EQ(values("ddy"), (Values{3, -1, -2, -16, -1, 11, 16, -2}));
    EXPECT_EQ(values("dscale"), (Values{3.5, 12}));
  });
}

TEST_F(DoubleBackwardCommandTest, InferenceTakesTheStatisticsForConstants) {
  expect_success();
  EXPECT_EQ(values("dx"), (Values{2, 4, 12, 16, 12, 10, 28, 0}));
  EXPECT_EQ(values("ddy"), (Values{10.5, 3.5, 6, -8, 3.5, 18.5, 24, 6}));
  EXPECT_EQ(values("dscale"), (Values{44, 40}));
}

TEST_F(DoubleBackwardCommandTest, NhwcTakesTheLastAxisForTheChannels) {
  expect_success({"--format", "NHWC"});
  EXPECT_EQ(values("dx"), (Values{2, 8, 6, 16, 12, 20, 14, 0}));
  EXPECT_EQ(values("dscale"), (Values{2 * 26, 2 * 16}));
}

TEST_F(DoubleBackwardCommandTest, EmptyTensorsGiveEmptyGradientsAndZeros) {
  const std::vector<std::int64_t> shape{0, 2, 3};
  for (const char* name : {"x", "dy", "ddx"}) support::save_npy(file(name), Type::float32, shape, {});
  expect_success({"--training"});
  EXPECT_EQ(output("dx").header, (npy::Header{Type::float32, shape}));
  EXPECT_EQ(output("ddy").header, (npy::Header{Type::float32, shape}));
  EXPECT_EQ(values("dscale"), (Values{0, 0}));
}

TEST_F(DoubleBackwardCommandTest, RefusesACommandLineThatLacksARequiredOption) { expect_that_every_option_is_required(); }

TEST_F(DoubleBackwardCommandTest, NamesTheInputFileThatCannotBeRead) {
  expect_that_a_missing_or_unreadable_file_is_named(names);
}

TEST_F(DoubleBackwardCommandTest, RefusesTypesThatDoNotGoTogether) {
  expect_that_types_go_together({"dy", "ddx"}, {"mean", "variance", "ddscale", "ddbias"});
}

TEST_F(DoubleBackwardCommandTest, RefusesShapesThatDoNotGoTogether) {
  expect_that_shapes_go_together({"dy", "ddx"}, {"scale", "mean", "variance", "ddscale", "ddbias"});
}

TEST_F(DoubleBackwardCommandTest, ChecksItsOptions) { expect_that_options_are_checked(); }

TEST_F(DoubleBackwardCommandTest, AnErrorLeavesTheOutputFolderAsItWas) {
  expect_that_an_error_leaves_the_output_folder(results);
}

TEST(GradientCommands, HelpNamesTheirOptions) {
  for (const std::string command : {"backward", "double-backward"}) {
    const ProgramResult result = support::run_program({BATCHNORM_NPY_TOOL, command, "--help"});
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.errors, "");
    std::vector<std::string> words{"--dy FILE",  "--x FILE",    "--scale FILE",       "--mean FILE", "--variance FILE",
                                   "--training", "--epsilon E", "--format NCHW|NHWC", "--out DIR"};
    if (command == "double-backward") words.insert(words.end(), {"--ddx FILE", "--ddscale FILE", "--ddbias FILE"});
    for (const std::string& word : words) EXPECT_NE(result.output.find(word), std::string::npos) << command << " " << word;
    EXPECT_EQ(result.output.find("--momentum"), std::string::npos) << command;
  }
  const ProgramResult all = support::run_program({BATCHNORM_NPY_TOOL, "--help"});
  for (const char* word : {"forward", "backward", "double-backward", "--ddbias FILE"}) {
    EXPECT_NE(all.output.find(word), std::string::npos) << word;
  }
}

}  // namespace
