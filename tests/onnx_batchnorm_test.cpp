// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/npy/npy.hpp>
#include <batchnorm/npy/tensor.hpp>

#include "support/onnx_files.hpp"
#include "support/onnx_models.hpp"
#include "support/onnx_tool_test.hpp"

// The tool onnx_batchnorm, on models that are written here byte by byte. The numbers are chosen such that every result is
// exact: 0.25 + 3.75 in inference and 0.1875 + 0.0625 in training have the roots 2 and 0.5.
namespace {

using namespace support;
using batchnorm::bfloat16;
using batchnorm::half;
using onnx::DataType;

TEST_F(OnnxBatchnormTest, InferenceUsesTheRunningStatisticsInEveryOpset) {
  const auto with = [&](const Proto& attribute) { return std::vector<Proto>{quarter[0], attribute}; };
  for (const auto& [opset, attributes] :
       std::vector<std::pair<std::int64_t, std::vector<Proto>>>{{1, with(int_attribute("is_test", 1))},
                                                                {6, with(int_attribute("is_test", 1))},
                                                                {7, with(int_attribute("spatial", 1))},
                                                                {9, quarter},
                                                                {14, with(int_attribute("training_mode", 0))},
                                                                {15, quarter},
                                                                {21, quarter}}) {
    SCOPED_TRACE(opset);
    save(opset, attributes);
    expect_inference();
  }
}

TEST_F(OnnxBatchnormTest, TrainingWeighsTheOldStatisticAndTakesTheBiasedVariance) {
  save(15, training_15, statistics_too);
  expect_training();
  save(14, training_15, {"y"});
  expect_training();
  for (const std::int64_t opset : {7, 9, 13}) {
    SCOPED_TRACE(opset);
    save(opset, training, {"y", "m", "v", "saved_m", "saved_v"});
    expect_training();
    save(opset, training, {"y", "", "v"});
    expect_training();
  }
  save(6, training);
  expect_training();
}

TEST_F(OnnxBatchnormTest, NumbersThatAFileLeavesOutAreZero) {
  save(15, {quarter[0], Proto().bytes(1, "momentum").integer(20, onnx::Attribute::type_float),
            Proto().bytes(1, "training_mode").integer(20, onnx::Attribute::type_int)});
  expect_inference();
  save(15, {Proto().bytes(1, "epsilon").integer(20, onnx::Attribute::type_float)});
  EXPECT_NE(expect_success(run_program({tool_, "list", model()})).find(", epsilon 0,"), std::string::npos);
}

/// x of one type from a .pb file, with parameters of another and statistics of a third.
template <class X, class P, class S>
struct Types {
  using x = X;
  using parameters = P;
  using statistics = S;
};

struct TypeNames {
  template <class T>
  static std::string GetName(int) {
    return std::string(batchnorm::element_name<typename T::x>()) + "_" +
           std::string(batchnorm::element_name<typename T::parameters>()) + "_" +
           std::string(batchnorm::element_name<typename T::statistics>());
  }
};

template <class T>
class OnnxBatchnormTypesTest : public OnnxBatchnormTest {};
using AllTypes = testing::Types<Types<float, float, float>, Types<double, double, double>, Types<half, half, half>,
                                Types<half, float, float>, Types<half, half, float>, Types<float, half, half>,
                                Types<float, bfloat16, float>, Types<bfloat16, bfloat16, bfloat16>,
                                Types<bfloat16, float, half>, Types<double, float, float>, Types<double, half, double>>;
TYPED_TEST_SUITE(OnnxBatchnormTypesTest, AllTypes, TypeNames);

TYPED_TEST(OnnxBatchnormTypesTest, OutputsHaveTheTypesOfXAndOfTheStatistics) {
  using X = typename TypeParam::x;
  using S = typename TypeParam::statistics;
  const auto type = []<class T>(T) { return npy::type_of<T>(); };
  write_bytes(this->pb("x"), tensor_proto<X>("", x_shape, x_values));
  this->template save<typename TypeParam::parameters, S>(15, this->training_15, statistics_too);
  this->expect_success(run_program({this->tool_, "run", this->model(), "--x", this->pb("x"), "--out", this->out()}));
  EXPECT_EQ(this->output("Y").header, (npy::Header{type(X()), x_shape}));
  EXPECT_EQ(this->values("Y"), y_training);
  EXPECT_EQ(this->output("running_mean").header, (npy::Header{type(S()), {2}}));
  EXPECT_EQ(this->values("running_mean"), running_mean);
  EXPECT_EQ(this->output("running_var").header.type, type(S()));
  const auto rounded = static_cast<long double>(static_cast<double>(
      static_cast<batchnorm::compute_t<S>>(static_cast<S>(static_cast<batchnorm::compute_t<S>>(running_variance[0])))));
  EXPECT_EQ(this->values("running_var"), (Values{rounded, rounded}));
}

TEST_F(OnnxBatchnormTest, AFloat32ArrayServesAsBfloat16WhereTheModelSaysSo) {
  Proto graph;
  graph.bytes(graph_field::node, node_proto("BatchNormalization", "bn", node_inputs, {"y"}, quarter));
  for (const std::string_view name : node_inputs) {
    graph.bytes(graph_field::input, value_info(name, DataType::bfloat16, {-1}));
  }
  save_model(model_proto(15, graph));
  save_npy(file("scale"), npy::Type::float32, {2}, {2, 4});
  save_npy(file("bias"), npy::Type::float32, {2}, {0, -1});
  save_npy(file("mean"), npy::Type::float32, {2}, {0, 1});
  save_npy(file("variance"), npy::Type::float32, {2}, {3.75, 3.75});
  const std::vector<std::string> files{"--scale", file("scale"), "--bias",     file("bias"),
                                       "--mean",  file("mean"),  "--variance", file("variance")};
  expect_inference(files);
  std::filesystem::remove_all(out());
  save_npy(file("scale"), npy::Type::float32, {2}, {2, 1.0009765625});
  expect_refusal(run(files), "'" + file("scale") + "': its value 1 is not one of bfloat16's");
  save_npy(file("x"), npy::Type::float64, x_shape, x_values);
  expect_refusal(run(files), "'" + file("x") + "': it is float64, in the model it is bfloat16");
}

TEST_F(OnnxBatchnormTest, TakesEveryRank) {
  save(15, quarter);
  for (const Extents64& shape :
       std::vector<Extents64>{{2, 2, 2}, {2, 2, 1, 2}, {2, 2, 1, 1, 2}, {2, 2, 1, 2, 1, 1}, {2, 2, 1, 2, 1, 1, 1, 1}}) {
    SCOPED_TRACE(npy::to_string(shape));
    save_npy(file("x"), npy::Type::float32, shape, x_values);
    expect_inference();
    EXPECT_EQ(output("Y").header.shape, shape);
  }
  save_npy(file("one"), npy::Type::float32, {1}, {1});
  save_npy(file("three"), npy::Type::float32, {1}, {3.75});
  save_npy(file("x"), npy::Type::float32, {3}, {1, 3, -1});
  expect_success(run({"--scale", file("one"), "--bias", file("one"), "--mean", file("one"), "--variance", file("three")}));
  EXPECT_EQ(values("Y"), (Values{1, 2, 0}));
}

TEST_F(OnnxBatchnormTest, AFileTakesThePlaceOfAnInitializer) {
  save(15, quarter);
  save_npy(file("bias"), npy::Type::float32, {2}, {1, 0});
  write_bytes(pb("scale"), tensor_proto("", {2}, {0, 4}));
  expect_success(run({"--bias", file("bias"), "--scale", pb("scale")}));
  EXPECT_EQ(values("Y"), (Values{1, 1, 3.5, 4.5, 1, 1, 4.5, 3.5}));
}

TEST_F(OnnxBatchnormTest, ExpectedOutputsAreCompared) {
  save(15, training_15, statistics_too);
  write_bytes(pb("y"), tensor_proto("", x_shape, {-1, 1, -3, 1, 1, -1.5, 1.25, -3}));
  save_npy(file("mean"), npy::Type::float32, {2}, {0, 1.5});
  write_bytes(pb("variance"), tensor_proto("", {2}, {2.828125, NAN}));
  const std::string all = expect_success(run({"--expect", pb("y"), file("mean"), pb("variance")}));
  EXPECT_EQ(all,
            "Y float32 [2, 2, 2]: largest difference 0.5, element 5 is -1, expected -1.5\n"
            "running_mean float32 [2]: largest difference 0\n"
            "running_var float32 [2]: largest difference inf, element 1 is 2.828125, expected nan\n");
  std::filesystem::remove_all(out());
  write_bytes(pb("y"), tensor_proto("", {8}, x_values));
  expect_refusal(run({"--expect", pb("y")}), "Y has shape [2, 2, 2], the one expected has [8]");
  save(15, quarter);
  expect_refusal(run({"--expect", pb("y"), file("mean")}), "--expect has 2 files, the node puts out 1 tensor");
}

TEST_F(OnnxBatchnormTest, PublishedModelsAreReproduced) {
#if defined(BATCHNORM_ONNX_TEST_DATA)
  // Seven units in the last place of a float below 16, as onnx_test.cpp derives them.
  constexpr double tolerance = 7 * 0x1p-20;
  const std::string folder = BATCHNORM_ONNX_TEST_DATA;
  for (const std::string name :
       {"node/test_batchnorm_example", "node/test_batchnorm_epsilon_training_mode",
        "pytorch-converted/test_BatchNorm1d_3d_input_eval", "pytorch-converted/test_BatchNorm3d_eval"}) {
    SCOPED_TRACE(name);
    const std::string data = folder + "/" + name + "/test_data_set_0/";
    std::vector<std::string> command{tool_, "run", folder + "/" + name + "/model.onnx"};
    const std::vector<std::string> options{"--x", "--scale", "--bias", "--mean", "--variance"};
    for (std::size_t k = 0; k < options.size(); ++k) {
      const std::string path = data + "input_" + std::to_string(k) + ".pb";
      if (std::filesystem::exists(path)) command.insert(command.end(), {options[k], path});
    }
    const bool is_training = name.ends_with("training_mode");
    command.push_back("--expect");
    for (int k = 0; k < (is_training ? 3 : 1); ++k) command.push_back(data + "output_" + std::to_string(k) + ".pb");
    std::string rest = expect_success(run_program(command));
    int found = 0;
    const std::string before = "largest difference ";
    for (std::size_t at = rest.find(before); at != std::string::npos; at = rest.find(before), ++found) {
      rest.erase(0, at + before.size());
      EXPECT_LE(std::stod(rest), tolerance);
    }
    EXPECT_EQ(found, is_training ? 3 : 1);
  }
#else
  GTEST_SKIP() << "BATCHNORM_ONNX_TEST_DATA is not defined: libonnx-testdata was not found";
#endif
}

TEST_F(OnnxBatchnormTest, FoldShowsTheMapOfEachChannel) {
  const std::string table = "y = x * scale' + shift'\nchannel\tscale'\tshift'\n0\t1\t0\n1\t2\t-3\n";
  save(15, quarter);
  EXPECT_EQ(expect_success(run_program({tool_, "run", model(), "--fold"})), table);
  EXPECT_EQ(expect_success(run({"--fold"})), table);
  EXPECT_EQ(names_in(out()), (std::vector<std::string>{"Y.npy", "folded_scale.npy", "folded_shift.npy"}));
  EXPECT_EQ(values("folded_scale"), (Values{1, 2}));
  EXPECT_EQ(values("folded_shift"), (Values{0, -3}));
  save(15, {quarter[0], int_attribute("training_mode", 1)});
  EXPECT_EQ(expect_success(run({"--fold"})), table);  // with the running statistics given, not those that training leaves
}

TEST_F(OnnxBatchnormTest, ListNamesEveryBatchNorm) {
  save_model(every_kind_of_model());
  EXPECT_EQ(expect_success(run_program({tool_, "list", model()})), std::string(every_kind_described));
  save_model(model_proto(15, Proto().bytes(graph_field::name, "empty")));
  EXPECT_EQ(expect_success(run_program({tool_, "list", model()})), "0 nodes BatchNormalization\n");
  expect_refusal(run(), "'" + model() + "': it has no node BatchNormalization");
}

TEST_F(OnnxBatchnormTest, ANodeIsChosenByNameOrNumber) {
  save_model(every_kind_of_model());
  for (const std::string choice : {"block/bn1", "0"}) {
    expect_success(run({"--node", choice, "--fold"}));
    EXPECT_EQ(values("Y").size(), 8U);
  }
  EXPECT_EQ(names_in(out()), (std::vector<std::string>{"Y.npy", "folded_scale.npy", "folded_shift.npy"}));
  expect_success(run({"--node", "block/bn2"}));
  EXPECT_EQ(names_in(out()).size(), 5U);
  std::filesystem::remove_all(out());
  save_npy(file("x"), npy::Type::float16, {1, 2}, {1, 2});
  expect_success(run({"--node", "half"}));
  EXPECT_EQ(output("Y").header.type, npy::Type::float16);
  std::filesystem::remove_all(out());
  expect_refusal(run(), "it has 6 nodes BatchNormalization; --node chooses one");
  for (const std::string choice : {"6", "-1", "1x", "conv"}) {
    expect_refusal(run({"--node=" + choice}), "it has no node BatchNormalization with the name or number '" + choice + "'");
  }
  const Proto node = node_proto("BatchNormalization", "twin", {}, {});
  save_model(model_proto(15, Proto().bytes(graph_field::node, node).bytes(graph_field::node, node)));
  expect_refusal(run({"--node", "twin"}), "2 nodes BatchNormalization have the name 'twin'");
}

}  // namespace
