// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/onnx_files.hpp"
#include "support/onnx_tool_test.hpp"

// What ONNX allows where the library is stricter or has no such thing: statistics for each position, any epsilon, and whatever
// stands in options that the node's mode does not use.
namespace {

using namespace support;

class OnnxBatchnormOptionsTest : public OnnxBatchnormTest {
 protected:
  /// A node of opset 7 with spatial = 0; scale 2, bias 1, mean 0 and 1 in turns, variance 3.75 at each of the elements.
  void save_positions(const Extents64& extents, std::vector<Proto> attributes, const Names& outputs = {"y"}) const {
    std::int64_t count = 1;
    for (const std::int64_t extent : extents) count *= extent;
    const auto all = [&](double even, double odd) {
      Doubles values;
      for (std::int64_t i = 0; i < count; ++i) values.push_back(i % 2 == 0 ? even : odd);
      return values;
    };
    attributes.push_back(int_attribute("spatial", 0));
    Proto graph;
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "bn", node_inputs, outputs, attributes));
    graph.bytes(graph_field::initializer, tensor_proto("scale", extents, all(2, 2)));
    graph.bytes(graph_field::initializer, tensor_proto("bias", extents, all(1, 1)));
    graph.bytes(graph_field::initializer, tensor_proto("mean", extents, all(0, 1)));
    graph.bytes(graph_field::initializer, tensor_proto("variance", extents, all(3.75, 3.75)));
    save_model(model_proto(7, graph));
  }

  std::string list() const { return expect_success(run_program({tool_, "list", model()})); }
};

TEST_F(OnnxBatchnormOptionsTest, WithoutPositionsSpatialZeroMeansTheSame) {
  save_positions({3}, quarter);
  EXPECT_EQ(list().find("cannot be run"), std::string::npos) << list();
  const Extents64 five_by_three{5, 3};
  save_npy(file("x"), npy::Type::float32, five_by_three, {0, 1, 0, 1, 2, 1, 0, 1, 0, -1, 0, -1, 2, 1, 2});
  EXPECT_EQ(expect_success(run()), "");
  EXPECT_EQ(values("Y"), (Values{1, 1, 1, 2, 2, 2, 1, 1, 1, 0, 0, 0, 3, 1, 3}));
  for (const Extents64& x : {Extents64{5, 3, 1, 1}, Extents64{5, 3, 1}}) {
    save_npy(file("x"), npy::Type::float32, x, {0, 1, 0, 1, 2, 1, 0, 1, 0, -1, 0, -1, 2, 1, 2});
    EXPECT_EQ(expect_success(run()), "");
    EXPECT_EQ(values("Y").back(), 3);
  }
}

TEST_F(OnnxBatchnormOptionsTest, SpatialZeroHasStatisticsForEachPosition) {
  save_positions({2, 3}, quarter);
  EXPECT_NE(list().find("channels 2, epsilon 0.25, momentum 0.9, inference, statistics for each position\n"),
            std::string::npos);
  save_npy(file("x"), npy::Type::float32, {2, 2, 3}, {0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 0, 1});
  EXPECT_EQ(expect_success(run()), "");
  EXPECT_EQ(output("Y").header.shape, (Extents64{2, 2, 3}));
  EXPECT_EQ(values("Y"), (Values{1, 1, 3, 3, 5, 5, 1, 1, 1, 1, 1, 1}));
  save_npy(file("x"), npy::Type::float32, {2, 2, 2}, Doubles(8));
  std::filesystem::remove_all(out());
  expect_refusal(run(), "scale has shape [2, 3], expected [C, D1, ...] = [2, 2]");
}

TEST_F(OnnxBatchnormOptionsTest, SpatialZeroTrainsOverTheBatchAlone) {
  save_positions({2, 1}, training, {"y", "mean", "var"});
  save_npy(file("x"), npy::Type::float32, {2, 2, 1}, {-0.25, 0.75, 0.25, 1.25});
  EXPECT_EQ(expect_success(run()), "");
  EXPECT_EQ(values("Y"), (Values{0, 0, 2, 2}));
  EXPECT_EQ(output("running_mean").header.shape, (Extents64{2, 1}));
  EXPECT_EQ(values("running_mean"), (Values{0, 1}));
  EXPECT_EQ(values("running_var"), (Values{2.828125, 2.828125}));
}

TEST_F(OnnxBatchnormOptionsTest, EpsilonZeroNormalizesByTheVarianceAlone) {
  save(15, {float_attribute("epsilon", 0)});
  EXPECT_EQ(list().find("cannot be run"), std::string::npos);
  save_npy(file("four"), npy::Type::float32, {2}, {4, 4});
  EXPECT_EQ(expect_success(run({"--variance", file("four")})), "");
  EXPECT_EQ(values("Y"), y_inference);
  EXPECT_EQ(expect_success(run_program({tool_, "run", model(), "--variance", file("four"), "--fold"})),
            "y = x * scale' + shift'\nchannel\tscale'\tshift'\n0\t1\t0\n1\t2\t-3\n");
}

TEST_F(OnnxBatchnormOptionsTest, AVarianceOfZeroBesideEpsilonZeroGivesWhatTheFormulaGives) {
  save(15, {float_attribute("epsilon", 0)});
  save_npy(file("zero"), npy::Type::float32, {2}, {0, 4});
  save_npy(file("x"), npy::Type::float32, {3, 2}, {1, 3, -1, 1, 0, 1});
  EXPECT_EQ(expect_success(run({"--variance", file("zero")})), "");
  const Values y = values("Y");
  EXPECT_EQ(y[0], INFINITY);
  EXPECT_EQ(y[2], -INFINITY);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ((Values{y[1], y[3], y[5]}), (Values{3, -1, -1}));
}

TEST_F(OnnxBatchnormOptionsTest, AnEpsilonAboveOneIsUsedInBothModes) {
  save(15, {float_attribute("epsilon", 12.25F)});
  EXPECT_EQ(expect_success(run()), "");
  EXPECT_EQ(values("Y"), (Values{-0.125, 0.125, 0.75, 1.25, 0.125, -0.125, 1.25, 0.75}));
  save(15, {float_attribute("epsilon", 3.9375F), float_attribute("momentum", 0.75F), int_attribute("training_mode", 1)},
       statistics_too);
  EXPECT_EQ(expect_success(run()), "");
  EXPECT_EQ(values("Y"), (Values{-0.25, 0.25, -1.5, -0.5, 0.25, -0.25, -0.5, -1.5}));
  EXPECT_EQ(values("running_mean"), running_mean);
  EXPECT_EQ(values("running_var"), running_variance);
}

TEST_F(OnnxBatchnormOptionsTest, InferenceHasNoUseForMomentum) {
  const Proto of_caller = Proto().bytes(1, "momentum").integer(20, onnx::Attribute::type_float).bytes(21, "m");
  for (const Proto& momentum : {float_attribute("momentum", 1.5F), float_attribute("momentum", NAN), of_caller}) {
    save(15, {quarter[0], momentum});
    EXPECT_EQ(list().find("cannot be run"), std::string::npos) << list();
    expect_inference();
  }
  save(15, {quarter[0], of_caller, int_attribute("training_mode", 1)});
  std::filesystem::remove_all(out());
  expect_refusal(run(), "its attribute 'momentum' is that of the function's caller, 'm'");
}

}  // namespace
