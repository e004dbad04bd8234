// SPDX-License-Identifier: MIT

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/npy/npy.hpp>

#include "support/npy_tool_test.hpp"

namespace {

namespace npy = batchnorm::npy;

using npy::Type;
using support::ProgramResult;

const std::vector<std::string> inference_files{"batch_mean.npy", "batch_variance.npy", "output_x.npy", "reserve_space_1.npy",
                                               "reserve_space_2.npy"};
const std::vector<std::string> training_files{"batch_mean.npy",      "batch_variance.npy",  "mean.npy",    "output_x.npy",
                                              "reserve_space_1.npy", "reserve_space_2.npy", "variance.npy"};

/// The command forward, on files that are good unless a test replaces them. The numbers are chosen such that every result is
/// exact: 0.25 + 3.75 in inference and 0.0625 + 0.1875 in training have the roots 2 and 0.5.
class BatchnormNpyTest : public support::NpyToolTest {
 protected:
  BatchnormNpyTest() : NpyToolTest("forward") {
    save_all(Type::float32, Type::float32);
    give_files({"x", "scale", "bias", "mean", "variance"});
    options_["--epsilon"] = "0.25";
  }

  /// x is [2, 2, 2]: channel 0 holds +-1/4, channel 1 holds 3 +- 1/4.
  void save_all(Type x_type, Type parameter_type) {
    support::save_npy(file("x"), x_type, {2, 2, 2}, {-0.25, 0.25, 2.75, 3.25, 0.25, -0.25, 3.25, 2.75});
    support::save_npy(file("residual"), x_type, {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
    save_parameters(parameter_type, {2});
  }

  void save_parameters(Type type, const std::vector<std::int64_t>& shape) {
    support::save_npy(file("scale"), type, shape, {2, 4});
    support::save_npy(file("bias"), type, shape, {0, -1});
    support::save_npy(file("mean"), type, shape, {0, 1});
    support::save_npy(file("variance"), type, shape, {3.75, 3.75});
  }
};

using Values = std::vector<long double>;

TEST_F(BatchnormNpyTest, InferenceNormalizesWithTheGivenStatisticsAndCopiesThem) {
  expect_success();
  EXPECT_EQ(support::names_in(out()), inference_files);
  EXPECT_EQ(values("output_x"), (Values{-0.25, 0.25, 2.5, 3.5, 0.25, -0.25, 3.5, 2.5}));
  EXPECT_EQ(values("batch_mean"), (Values{0, 1}));
  EXPECT_EQ(values("batch_variance"), (Values{3.75, 3.75}));
  EXPECT_EQ(values("reserve_space_1"), (Values{0, 1}));
  EXPECT_EQ(values("reserve_space_2"), (Values{3.75, 3.75}));
}

TEST_F(BatchnormNpyTest, TrainingNormalizesWithTheBatchAndUpdatesTheRunningStatistics) {
  options_["--epsilon"] = "0.1875";
  expect_success({"--training", "--momentum", "0.5"});
  EXPECT_EQ(support::names_in(out()), training_files);
  EXPECT_EQ(values("output_x"), (Values{-1, 1, -3, 1, 1, -1, 1, -3}));
  EXPECT_EQ(values("batch_mean"), (Values{0, 3}));
  EXPECT_EQ(values("batch_variance"), (Values{0.0625, 0.0625}));
  EXPECT_EQ(values("reserve_space_1"), (Values{0, 3}));
  EXPECT_EQ(values("reserve_space_2"), (Values{0.0625, 0.0625}));
  EXPECT_EQ(values("mean"), (Values{0, 2}));
  const long double unbiased = static_cast<float>(0.5 * 3.75 + 0.5 * (0.0625 * 4 / 3));
  EXPECT_EQ(values("variance"), (Values{unbiased, unbiased}));
}

TEST_F(BatchnormNpyTest, TheRunningVarianceCanTakeTheBiasedOne) {
  expect_success({"--training", "--momentum", "0.5", "--running-variance", "biased"});
  EXPECT_EQ(values("variance"), (Values{1.90625, 1.90625}));
}

TEST_F(BatchnormNpyTest, DefaultsAreThoseOfTheOperator) {
  options_.erase("--epsilon");
  expect_success({"--training"});
  options_["--epsilon"] = "1e-5";
  options_["--out"] = folder_ / "spelled out";
  expect_success({"--training", "--momentum", "0.1", "--format", "NCHW", "--running-variance", "unbiased", "--activation",
                  "none", "--slope", "0.01"});
  for (const std::string& name : training_files) {
    EXPECT_EQ(support::read_bytes(out() / name), support::read_bytes(folder_ / "spelled out" / name)) << name;
  }
}

TEST_F(BatchnormNpyTest, TheSlopeIsOneHundredthByDefault) {
  expect_success({"--activation", "leaky_relu"});
  const Values unspecified = values("output_x");
  expect_success({"--activation", "leaky_relu", "--slope", "0.01"});
  EXPECT_EQ(values("output_x"), unspecified);
}

TEST_F(BatchnormNpyTest, NhwcTakesTheLastAxisForTheChannels) {
  expect_success({"--format", "NHWC"});
  EXPECT_EQ(values("output_x"), (Values{-0.25, -2.5, 2.75, 3.5, 0.25, -3.5, 3.25, 2.5}));
}

TEST_F(BatchnormNpyTest, ActivationsAreAppliedLast) {
  expect_success({"--activation", "relu"});
  EXPECT_EQ(values("output_x"), (Values{0, 0.25, 2.5, 3.5, 0.25, 0, 3.5, 2.5}));
  expect_success({"--activation", "leaky_relu", "--slope", "-0.5"});
  EXPECT_EQ(values("output_x"), (Values{0.125, 0.25, 2.5, 3.5, 0.25, 0.125, 3.5, 2.5}));
}

TEST_F(BatchnormNpyTest, TheResidualIsAddedBeforeTheActivation) {
  support::save_npy(file("residual"), Type::float32, {2, 2, 2}, {-1, 2, 3, 4, 5, 6, 7, -8});
  expect_success({"--residual", file("residual")});
  EXPECT_EQ(values("output_x"), (Values{-1.25, 2.25, 5.5, 7.5, 5.25, 5.75, 10.5, -5.5}));
  expect_success({"--residual", file("residual"), "--activation", "leaky_relu", "--slope", "0.5"});
  EXPECT_EQ(values("output_x"), (Values{-0.625, 2.25, 5.5, 7.5, 5.25, 5.75, 10.5, -2.75}));
}

TEST_F(BatchnormNpyTest, OutputsHaveTheTypesOfXAndOfScale) {
  for (const auto& [x_type, parameter_type] : std::vector<std::pair<Type, Type>>{{Type::float16, Type::float16},
                                                                                 {Type::float16, Type::float32},
                                                                                 {Type::float32, Type::float16},
                                                                                 {Type::float32, Type::float32},
                                                                                 {Type::float64, Type::float64}}) {
    SCOPED_TRACE(npy::type_name(x_type) + " " + npy::type_name(parameter_type));
    save_all(x_type, parameter_type);
    options_["--epsilon"] = "0.1875";
    expect_success({"--training", "--residual", file("residual")});
    EXPECT_EQ(output("output_x").header, (npy::Header{x_type, {2, 2, 2}}));
    EXPECT_EQ(values("output_x"), (Values{0, 3, 0, 5, 6, 5, 8, 5}));
    for (const std::string name : {"batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "mean", "variance"}) {
      EXPECT_EQ(output(name).header, (npy::Header{parameter_type, {2}})) << name;
    }
    EXPECT_EQ(values("batch_mean"), (Values{0, 3}));
  }
}

TEST_F(BatchnormNpyTest, EmptyTensorsGiveEmptyOutputsAndKeepTheRunningStatistics) {
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{{0, 2}, {0, 2, 3, 3}, {4, 2, 0}}) {
    SCOPED_TRACE(npy::to_string(shape));
    support::save_npy(file("x"), Type::float32, shape, {});
    expect_success({"--training"});
    EXPECT_EQ(output("output_x").header, (npy::Header{Type::float32, shape}));
    EXPECT_EQ(values("batch_mean"), (Values{0, 0}));
    EXPECT_EQ(values("mean"), (Values{0, 1}));
    EXPECT_EQ(values("variance"), (Values{3.75, 3.75}));
  }
}

TEST_F(BatchnormNpyTest, NoChannelsGiveEmptyOutputs) {
  support::save_npy(file("x"), Type::float32, {4, 0, 3}, {});
  for (const char* name : {"scale", "bias", "mean", "variance"}) support::save_npy(file(name), Type::float32, {0}, {});
  expect_success({"--training"});
  EXPECT_EQ(output("output_x").header, (npy::Header{Type::float32, {4, 0, 3}}));
  EXPECT_EQ(output("variance").header, (npy::Header{Type::float32, {0}}));
}

TEST_F(BatchnormNpyTest, TheOutputFolderIsMadeWithItsParents) {
  options_["--out"] = out() / "of" / "many";
  expect_success();
  EXPECT_EQ(support::names_in(out() / "of" / "many"), inference_files);
}

TEST_F(BatchnormNpyTest, ResultsReplaceThoseOfAnEarlierRunEvenWhenTheyAreInputs) {
  std::filesystem::create_directory(out());
  for (const std::string name : {"mean", "variance"}) {
    std::filesystem::copy(file(name), out() / (name + ".npy"));
    options_["--" + name] = out() / (name + ".npy");
  }
  for (const long double mean : {2.0L, 2.5L, 2.75L}) {
    expect_success({"--training", "--momentum", "0.5"});
    EXPECT_EQ(values("mean"), (Values{0, mean}));
  }
  EXPECT_EQ(support::names_in(out()), training_files);
}

TEST_F(BatchnormNpyTest, HelpNamesEveryOption) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{BATCHNORM_NPY_TOOL, "--help"}, {BATCHNORM_NPY_TOOL, "forward", "--help"}}) {
    const ProgramResult result = support::run_program(command);
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.errors, "");
    for (const char* word : {"forward", "--x FILE", "--scale FILE", "--bias FILE", "--mean FILE", "--variance FILE",
                             "--training", "--epsilon E", "--momentum P", "--format NCHW|NHWC", "--residual FILE", "--slope A",
                             "--running-variance unbiased|biased", "--activation none|relu|leaky_relu", "--out DIR"}) {
      EXPECT_NE(result.output.find(word), std::string::npos) << word;
    }
  }
}

TEST_F(BatchnormNpyTest, RefusesACommandLineWithoutAKnownCommand) {
  expect_refusal(support::run_program({BATCHNORM_NPY_TOOL}), "a command is required");
  expect_refusal(support::run_program({BATCHNORM_NPY_TOOL, "sideways"}), "sideways");
  expect_refusal(support::run_program({BATCHNORM_NPY_TOOL, "--sideways"}), "--sideways");
}

TEST_F(BatchnormNpyTest, RefusesACommandLineThatLacksARequiredOption) {
  const std::map<std::string, std::string> complete = options_;
  for (const std::string option : {"--x", "--scale", "--bias", "--mean", "--variance", "--out"}) {
    SCOPED_TRACE(option);
    options_ = complete;
    options_.erase(option);
    expect_refusal(run(), option + " is required");
  }
}

TEST_F(BatchnormNpyTest, RefusesOptionsThatItDoesNotKnowOrThatComeTwice) {
  expect_refusal(run({"--sideways"}), "--sideways");
  expect_refusal(run({"stray"}), "stray");
  expect_refusal(run({"--epsilon", "0.1"}), "--epsilon");
  expect_refusal(run({"--momentum"}), "--momentum");
}

TEST_F(BatchnormNpyTest, RefusesWhatIsNotANumber) {
  for (const std::string text : {"1e-5x", "x", "", " 1", "0,1", "1e-5 ", "--training"}) {
    SCOPED_TRACE(text);
    options_["--epsilon"] = text;
    expect_refusal(run(), "--epsilon");
  }
  options_["--epsilon"] = "1e-400";
  expect_refusal(run(), "--epsilon is '1e-400', beyond the range of a double");
}

TEST_F(BatchnormNpyTest, RefusesNumbersOutOfRange) {
  for (const std::string text : {"0", "-1e-5", "1.5", "nan", "inf"}) {
    SCOPED_TRACE(text);
    options_["--epsilon"] = text;
    expect_refusal(run(), "epsilon");
  }
  options_["--epsilon"] = "0.25";
  for (const std::string text : {"-0.1", "1.5", "nan", "inf"}) {
    SCOPED_TRACE(text);
    expect_refusal(run({"--momentum=" + text}), "momentum");
  }
  for (const std::string text : {"nan", "inf", "-inf"}) {
    SCOPED_TRACE(text);
    expect_refusal(run({"--slope=" + text}), "--slope is '" + text + "', it must be finite");
  }
}

TEST_F(BatchnormNpyTest, ListsTheKnownNamesWhenItMeetsAnother) {
  expect_refusal(run({"--format", "nchw"}), "unknown format 'nchw', known are NCHW and NHWC");
  expect_refusal(run({"--activation", "gelu"}), "--activation is 'gelu', known are none, relu, leaky_relu");
  expect_refusal(run({"--running-variance", "b"}), "--running-variance is 'b', known are unbiased, biased");
}

TEST_F(BatchnormNpyTest, NamesTheInputFileThatIsMissing) {
  options_["--residual"] = file("residual");
  const std::map<std::string, std::string> complete = options_;
  for (const std::string name : {"x", "scale", "bias", "mean", "variance", "residual"}) {
    SCOPED_TRACE(name);
    options_ = complete;
    options_["--" + name] = file("missing_" + name);
    expect_refusal(run(), "'" + file("missing_" + name) + "': there is no such file");
  }
}

TEST_F(BatchnormNpyTest, NamesTheInputFileThatCannotBeRead) {
  const std::string matrix = "'fortran_order': False, 'shape': (2, 3)}";
  for (const auto& [bytes, why] : std::vector<std::pair<std::string, std::string>>{
           {"not an array", "it is not a .npy file"},
           {support::npy_bytes("{'descr': '<f4', " + matrix, "too short"), "its data is truncated"},
           {support::npy_bytes("{'descr': '<f4', " + matrix, std::string(25, 'x')), "it goes on after its data"},
           {support::npy_bytes("{'descr': '>f4', " + matrix, std::string(24, 'x')), "big-endian"},
           {support::npy_bytes("{'descr': '<i4', " + matrix, std::string(24, 'x')), "its elements are '<i4'"},
           {support::npy_bytes("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", std::string(24, 'x')),
            "Fortran order"}}) {
    for (const char* name : {"x", "scale", "bias", "mean", "variance"}) {
      SCOPED_TRACE(std::string(name) + " " + why);
      save_all(Type::float32, Type::float32);
      support::write_bytes(file(name), bytes);
      const ProgramResult result = run();
      expect_refusal(result, why);
      expect_refusal(result, "'" + file(name) + "'");
    }
  }
}

TEST_F(BatchnormNpyTest, RefusesTypesThatDoNotGoTogether) {
  save_all(Type::float32, Type::float64);
  expect_refusal(run(), "x is float32 and scale is float64");
  save_all(Type::float16, Type::float64);
  expect_refusal(run(), "x is float16 and scale is float64");
  save_all(Type::float64, Type::float32);
  expect_refusal(run(), "x is float64 and scale is float32");
  for (const char* name : {"bias", "mean", "variance"}) {
    save_all(Type::float32, Type::float32);
    support::save_npy(file(name), Type::float16, {2}, {1, 1});
    expect_refusal(run(), "'" + file(name) + "') is float16, it must have the type of scale, float32");
  }
  save_all(Type::float32, Type::float32);
  support::save_npy(file("residual"), Type::float16, {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  expect_refusal(run({"--residual", file("residual")}), "is float16, it must have the type of x, float32");
}

TEST_F(BatchnormNpyTest, RefusesWholeNumbers) {
  support::save_npy(file("scale"), Type::int64, {2}, {1, 1});
  for (const char* name : {"bias", "mean", "variance"}) support::save_npy(file(name), Type::int64, {2}, {1, 1});
  expect_refusal(run(), "scale is int64, it must be float16, float32 or float64");
  support::save_npy(file("x"), Type::int64, {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  expect_refusal(run(), "x is int64, it must be float16, float32 or float64");
}

TEST_F(BatchnormNpyTest, RefusesShapesThatDoNotGoTogether) {
  for (const char* name : {"scale", "bias", "mean", "variance"}) {
    SCOPED_TRACE(name);
    save_all(Type::float32, Type::float32);
    support::save_npy(file(name), Type::float32, {3}, {1, 1, 1});
    expect_refusal(run(), name);
    support::save_npy(file(name), Type::float32, {2, 1}, {1, 1});
    expect_refusal(run(), name);
    support::save_npy(file(name), Type::float32, {}, {1});
    expect_refusal(run(), name);
  }
  save_all(Type::float32, Type::float32);
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{{}, {2}, {1, 2, 1, 1, 1, 1}}) {
    SCOPED_TRACE(npy::to_string(shape));
    support::save_npy(file("x"), Type::float32, shape, std::vector<double>(shape.empty() ? 1 : 2));
    expect_refusal(run(), "rank");
  }
}

TEST_F(BatchnormNpyTest, RefusesAResidualOfAnotherShape) {
  support::save_npy(file("residual"), Type::float32, {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  expect_refusal(run({"--residual", file("residual")}), "residual");
}

TEST_F(BatchnormNpyTest, RefusesAnInstructionSetThatDoesNotExist) {
  expect_refusal(run({}, {"BATCHNORM_ISA=abacus"}), "BATCHNORM_ISA is 'abacus', available here are ");
  support::save_npy(file("x"), Type::float32, {0, 2}, {});
  expect_refusal(run({}, {"BATCHNORM_ISA=abacus"}), "BATCHNORM_ISA");
}

TEST_F(BatchnormNpyTest, RefusesANumberOfThreadsThatIsNone) {
  for (const std::string number : {"0", "-1", "two", "2.5", "99999999999999999999"}) {
    SCOPED_TRACE(number);
    expect_refusal(run({}, {"BATCHNORM_NUM_THREADS=" + number}), "BATCHNORM_NUM_THREADS is '" + number + "'");
  }
}

TEST_F(BatchnormNpyTest, RefusesAnOutputFolderThatCannotBeMade) {
  support::write_bytes(folder_ / "file", "");
  for (const std::string& path : {(folder_ / "file").string(), (folder_ / "file" / "out").string(), std::string()}) {
    SCOPED_TRACE(path);
    options_["--out"] = path;
    expect_refusal(run(), "--out");
  }
}

TEST_F(BatchnormNpyTest, AnErrorLeavesTheOutputFolderAsItWas) {
  expect_success();
  const std::string before = support::read_bytes(out() / "output_x.npy");
  options_["--mean"] = file("missing");
  EXPECT_EQ(run({"--training"}).status, 2);
  options_["--mean"] = file("mean");
  std::filesystem::create_directory(out() / "variance.npy");
  EXPECT_EQ(run({"--training"}).status, 2);
  std::filesystem::remove(out() / "variance.npy");
  EXPECT_EQ(support::names_in(out()), inference_files);
  EXPECT_EQ(support::read_bytes(out() / "output_x.npy"), before);
}

TEST_F(BatchnormNpyTest, ADirectoryInTheWayOfOneResultLosesNoOlderOne) {
  expect_success({"--training"});
  const std::vector<std::string> names = support::names_in(out());
  const std::string before = support::read_bytes(out() / "output_x.npy");
  std::filesystem::remove(out() / "variance.npy");
  std::filesystem::create_directory(out() / "variance.npy");
  options_["--slope"] = "0.5";
  options_["--activation"] = "leaky_relu";
  EXPECT_EQ(run({"--training"}).status, 2);
  EXPECT_EQ(support::names_in(out()), names);
  EXPECT_EQ(support::read_bytes(out() / "output_x.npy"), before);
}

TEST_F(BatchnormNpyTest, AFullDiskLeavesNothing) {
  support::save_npy(file("x"), Type::float32, {4096, 2}, std::vector<double>(8192, 1.0));
  std::vector<std::string> command{"/bin/sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"};
  for (const std::string& word : command_line({})) command.push_back(word);
  const ProgramResult result = support::run_program(command);
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.errors.find("output_x.npy': it cannot be written: File too large"), std::string::npos) << result.errors;
  EXPECT_FALSE(exists(out()));
}

}  // namespace
