// SPDX-License-Identifier: MIT
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/lost_output.hpp"
#include "support/onnx_files.hpp"
#include "support/temporary_folder.hpp"

// What the programs do where standard output takes nothing: they say so and end with a status that is not 0.
namespace {

using namespace support;

TEST(StandardOutput, AProgramWhoseListIsLostFails) { expect_lost_output_is_told({BATCHNORM_INSTRUCTION_SETS}); }

#if defined(BATCHNORM_NPY_TOOL)
TEST(StandardOutput, AToolWhoseHelpIsLostFails) { expect_lost_output_is_told({BATCHNORM_NPY_TOOL, "--help"}); }
#endif

#if defined(BATCHNORM_TRAIN_MNIST)
TEST(StandardOutput, TheHelpOfTheTrainingIsNotLostSilently) { expect_lost_output_is_told({BATCHNORM_TRAIN_MNIST, "--help"}); }
#endif

#if defined(BATCHNORM_NORMALIZE_IMAGES)
TEST(StandardOutput, TheHelpOfTheImagesIsNotLostSilently) {
  expect_lost_output_is_told({BATCHNORM_NORMALIZE_IMAGES, "--help"});
}
#endif

#if defined(BATCHNORM_ONNX_TOOL)

class OnnxStandardOutput : public testing::Test {
 protected:
  /// A batch norm of one channel whose four parameters are 1.
  OnnxStandardOutput() {
    const Names inputs{"x", "one", "one", "one", "one"};
    Proto graph = Proto().bytes(graph_field::node, node_proto("BatchNormalization", "bn", inputs, {"y"}));
    graph.bytes(graph_field::initializer, tensor_proto("one", {1}, {1}));
    write_bytes(model_, model_proto(15, graph));
  }

  TemporaryFolder folder_;
  std::string model_ = folder_ / "model.onnx";
  std::string out_ = folder_ / "out";
};

TEST_F(OnnxStandardOutput, AListThatIsLostFails) { expect_lost_output_is_told({BATCHNORM_ONNX_TOOL, "list", model_}); }

TEST_F(OnnxStandardOutput, ATableThatIsLostLeavesNoFiles) {
  expect_lost_output_is_told({BATCHNORM_ONNX_TOOL, "run", model_, "--fold", "--out", out_});
  EXPECT_TRUE(!std::filesystem::exists(out_) || std::filesystem::is_empty(out_));
}

TEST_F(OnnxStandardOutput, TextDoesNotEndUpInAFileThatTakesTheDescriptorOfClosedOutput) {
  const ProgramResult result =
      run_program({"/bin/sh", "-c", "exec \"$@\" >&- 2>&- <&-", "sh", BATCHNORM_ONNX_TOOL, "list", model_});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.output + result.errors, "");
}

TEST_F(OnnxStandardOutput, NothingToPrintIsNothingLost) {
  const std::string x = folder_ / "x.pb";
  write_bytes(x, tensor_proto("", {2, 1}, {1, 2}));
  for (const std::string script : {"exec \"$@\" > /dev/full", "exec \"$@\" >&-"}) {
    const ProgramResult result =
        run_program({"/bin/sh", "-c", script, "sh", BATCHNORM_ONNX_TOOL, "run", model_, "--x", x, "--out", out_});
    EXPECT_EQ(result.status, 0) << result.errors;
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(out_) / "Y.npy"));
  }
}

#endif

}  // namespace
