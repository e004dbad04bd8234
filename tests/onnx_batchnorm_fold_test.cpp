// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "support/lost_output.hpp"
#include "support/onnx_evaluator.hpp"
#include "support/onnx_fold_models.hpp"
#include "support/onnx_tool_test.hpp"

// The command fold: the model that it writes computes what the model did, without the batch norms.
namespace {

using namespace support;
using std::string_view_literals::operator""sv;

class OnnxBatchnormFoldTest : public OnnxBatchnormTest {
 protected:
  std::string target() const { return folder_ / "folded.onnx"; }

  ProgramResult fold(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command{tool_, "fold", model(), "--out", target()};
    command.insert(command.end(), more.begin(), more.end());
    return run_program(command);
  }

  /// What the tool says of the only batch norm of a model that it leaves as it is.
  void expect_not_folded(const FoldModel& graph, const std::string& why, std::int64_t opset = 15) const {
    SCOPED_TRACE(why);
    save_model(graph.model(opset));
    const std::string said = expect_success(fold());
    EXPECT_EQ(said.find("folded 0 of 1 nodes"), 0U) << said;
    EXPECT_NE(said.find(": not folded: " + why), std::string::npos) << said;
    EXPECT_EQ(read_bytes(target()), read_bytes(model()));
  }

  /// Input of small whole numbers.
  static Data input(std::int64_t n, std::int64_t c, std::int64_t l) {
    Data x = zeros(n, c, l);
    for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] = static_cast<double>(i * 7 % 5) - 2;
    return x;
  }

  static FoldModel conv() { return FoldModel().tensor("w", {2, 3, 1}).node("Conv", {"x", "w"}, "c"); }
};

TEST_F(OnnxBatchnormFoldTest, TheFoldedModelComputesWhatTheModelDid) {
  save_model(foldable_model());
  const std::string said = expect_success(fold());
  EXPECT_EQ(said.find("folded 7 of 7 nodes BatchNormalization\nnode 0 'BatchNormalization_n1': folded into Conv 'Conv_c1'\n"),
            0U)
      << said;
  const std::string before = read_bytes(model()), after = read_bytes(target());
  const onnx::Model folded = onnx::parse_model({after});
  for (const onnx::Node& node : folded.graphs[0].nodes) EXPECT_FALSE(node.is("BatchNormalization"));
  // The Gemm's [M, K] is [M, K, 1] here, as is the convolutions' [N, C, L].
  const Data x = input(3, 4, 1);
  EXPECT_EQ(OnnxEvaluator::run(after, x).at("z").values, OnnxEvaluator::run(before, x).at("z").values);
  EXPECT_NE(after.find("unknown, too"), std::string::npos);
}

TEST_F(OnnxBatchnormFoldTest, ConvolutionsOverSeveralPositionsComputeTheSame) {
  for (const std::int64_t opset : {9, 15}) {
    FoldModel graph;
    graph.tensor("w1", {4, 2, 2}).tensor("b1", {4});
    graph.node("Conv", {"x", "w1", "b1"}, "c1", {int_attribute("group", 2)}).norm("c1", "n1", 4).node("Relu", {"n1"}, "r1");
    graph.tensor("w2", {4, 3, 2}).node("ConvTranspose", {"r1", "w2"}, "c2", {int_attribute("group", 2)});
    graph.norm("c2", "n2", 6).norm("n2", "y", 6).output("y");
    save_model(graph.model(opset));
    EXPECT_EQ(expect_success(fold()).find("folded 3 of 3"), 0U);
    const Data x = input(2, 4, 5);
    EXPECT_EQ(OnnxEvaluator::run(read_bytes(target()), x).at("y").values,
              OnnxEvaluator::run(read_bytes(model()), x).at("y").values);
  }
}

TEST_F(OnnxBatchnormFoldTest, EveryTypeIsFoldedInItself) {
  const auto fold_type = [&]<class T>(T) {
    save_model(foldable_model<T>());
    EXPECT_EQ(expect_success(fold()).find("folded 7 of 7"), 0U);
    const Data x = input(1, 4, 1);
    EXPECT_EQ(OnnxEvaluator::run(read_bytes(target()), x).at("z").values,
              OnnxEvaluator::run(read_bytes(model()), x).at("z").values);
  };
  fold_type(double());
  fold_type(batchnorm::half());
  fold_type(batchnorm::bfloat16());
}

TEST_F(OnnxBatchnormFoldTest, WhatIsNotFoldedSaysWhy) {
  expect_not_folded(FoldModel().node("Relu", {"x"}, "r").norm("r", "y", 2), "X is computed by a node Relu");
  expect_not_folded(FoldModel().norm("x", "y", 2), "X is an input of the graph");
  expect_not_folded(conv().norm("c", "y", 2).node("Relu", {"c"}, "r"), "X is also used by others");
  expect_not_folded(conv().norm("c", "y", 2).output("c"), "X is also used by others");
  expect_not_folded(conv().norm("c", "y", 3), "scale has shape [3], the Conv before it puts out 2 channels");
  expect_not_folded(FoldModel().node("Conv", {"x", "x"}, "c").norm("c", "y", 2),
                    "the Conv before it cannot take it: its input of weights is an input of the graph");
  expect_not_folded(FoldModel().tensor("w", {2, 3, 1}).node("Conv", {"x", "w", "x"}, "c").norm("c", "y", 2),
                    "the Conv before it cannot take it: its bias is an input of the graph");
  const Proto external = tensor_head("w", onnx::DataType::float32, {2, 3, 1}).integer(14, 1);
  expect_not_folded(FoldModel().add(external).node("Conv", {"x", "w"}, "c").norm("c", "y", 2),
                    "the Conv before it cannot take it: its input of weights is in another file");
  FoldModel trains = conv();
  trains.tensor("p", {2}).node("BatchNormalization", {"c", "p", "p", "p", "p"}, "y", {int_attribute("training_mode", 1)});
  expect_not_folded(trains, "it trains");
  FoldModel flat = conv();
  flat.add(tensor_proto("p", {2}, {0, 0}))
      .node("BatchNormalization", {"c", "p", "p", "p", "p"}, "y", {float_attribute("epsilon", 0)});
  expect_not_folded(flat, "channel 0 has a factor or a shift that is not finite");
  FoldModel old = FoldModel().tensor("w", {3, 2}).tensor("b", {2}).tensor("p", {2});
  old.node("Gemm", {"x", "w", "b"}, "g");
  old.node("BatchNormalization", {"g", "p", "p", "p", "p"}, "y", {int_attribute("is_test", 1)});
  expect_not_folded(old, "the Gemm before it cannot take it: before opset 7 it adds its bias otherwise", 6);
}

TEST_F(OnnxBatchnormFoldTest, HalfWeightsThatWouldOverflowAreLeftAlone) {
  using batchnorm::half;
  FoldModel graph;
  graph.add(tensor_proto<half>("w", {1, 1, 1}, {1000}))
      .add(tensor_proto<half>("one", {1}, {1}))
      .add(tensor_proto<half>("v", {1}, {0}));
  graph.node("Conv", {"x", "w"}, "c");
  graph.node("BatchNormalization", {"c", "one", "one", "one", "v"}, "y", {float_attribute("epsilon", 0x1p-14F)});
  expect_not_folded(graph, "the weights would not be finite in float16");
}

TEST_F(OnnxBatchnormFoldTest, OnlyTheLengthsAroundAChangeChange) {
  save_model(conv().norm("c", "y", 2).output("y").model());
  expect_success(fold());
  const std::string before = read_bytes(model()), after = read_bytes(target());
  for (const std::string_view kept : {"y_scale"sv, "y_variance"sv, "main"sv, "unknown, too"sv, "Conv_c"sv}) {
    EXPECT_NE(after.find(kept), std::string::npos) << kept;
  }
  EXPECT_EQ(after.find("BatchNormalization"), std::string::npos);
  EXPECT_EQ(after.substr(after.size() - 14), before.substr(before.size() - 14));
}

TEST_F(OnnxBatchnormFoldTest, TheModelItselfIsReplacedOnlyWhereThatIsAskedFor) {
  save_model(conv().norm("c", "y", 2).output("y").model());
  const std::string before = read_bytes(model());
  expect_refusal(run_program({tool_, "fold", model(), "--out", model()}), "is the model itself; --overwrite allows that");
  std::filesystem::create_symlink(model(), target());
  expect_refusal(fold(), "is the model itself; --overwrite allows that");
  EXPECT_EQ(read_bytes(model()), before);
  EXPECT_EQ(expect_success(fold({"--overwrite"})).find("folded 1 of 1"), 0U);
  EXPECT_TRUE(std::filesystem::is_symlink(target()));
  EXPECT_NE(read_bytes(model()), before);
}

TEST_F(OnnxBatchnormFoldTest, AFileAppearsWholeOrNotAtAll) {
  save_model(conv().norm("c", "y", 2).output("y").model());
  expect_lost_output_is_told({tool_, "fold", model(), "--out", target()});
  EXPECT_EQ(names_in(folder_.path()), (std::vector<std::string>{"model.onnx", "x.npy"}));
  expect_refusal(run_program({tool_, "fold", model(), "--out", folder_ / "none/folded.onnx"}), "it cannot be written");
  write_bytes(model(), "not a model");
  expect_refusal(fold(), "'" + model() + "': ");
  EXPECT_EQ(names_in(folder_.path()), (std::vector<std::string>{"model.onnx", "x.npy"}));
}

}  // namespace
