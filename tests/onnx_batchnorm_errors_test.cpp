// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/onnx_files.hpp"
#include "support/onnx_models.hpp"
#include "support/onnx_tool_test.hpp"
#include "support/sanitizers.hpp"

// What the tool onnx_batchnorm refuses: the message names the file and what is wrong, the status is 2, nothing is written.
namespace {

using namespace support;

class OnnxBatchnormErrorsTest : public OnnxBatchnormTest {
 protected:
  ProgramResult list() const { return run_program({tool_, "list", model()}); }

  /// The good model with one parameter replaced.
  void save_with(std::string_view name, const Proto& tensor) const {
    Proto graph;
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "bn", node_inputs, {"y"}));
    for (const std::string_view input : {"scale", "bias", "mean", "variance"}) {
      graph.bytes(graph_field::initializer, input == name ? tensor : tensor_proto(input, {2}, {1, 1}));
    }
    save_model(model_proto(15, graph));
  }
};

TEST_F(OnnxBatchnormErrorsTest, FilesThatAreNoModel) {
  const std::string before = "'" + model() + "': ";
  expect_refusal(run(), before + "there is no such file");
  expect_refusal(list(), before + "there is no such file");
  save_model(Proto());
  expect_refusal(list(), before + "it is no model: it has no graph");
  write_bytes(model(), "neither a model nor a protocol buffer");
  expect_refusal(run(), before + "at byte 0, field 13 of ModelProto has wire type 6, which ONNX has no use for");
  std::filesystem::remove(model());
  std::filesystem::create_directory(model());
  expect_refusal(run(), before + "it is a directory");
}

TEST_F(OnnxBatchnormErrorsTest, EveryTruncationOfAModelThatLosesAParameter) {
  save(15, quarter);
  const std::string whole = read_bytes(model());
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    write_bytes(model(), whole.substr(0, size));
    expect_refusal(run(), "'" + model() + "': ");
  }
}

TEST_F(OnnxBatchnormErrorsTest, ParametersThatAreMalformed) {
  using onnx::DataType;
  const std::string before = "'" + model() + "': tensor 'mean': ";
  for (const auto& [tensor, why] : std::vector<std::pair<Proto, std::string>>{
           {tensor_proto("mean", {-2}, {1, 1}), "extents: the tensor has a negative extent, its shape is [-2]"},
           {tensor_proto("mean", {INT64_MAX, 2}, {1, 1}), "overflows 64 bits"},
           {tensor_proto("mean", {1LL << 40}, {1, 1}), "it holds 8 bytes of values, shape [1099511627776] of float32 takes"},
           {tensor_proto("mean", {2}, {1}), "it holds 4 bytes of values, shape [2] of float32 takes 2 times 4"},
           {tensor_head("mean", DataType::float32, {2}).bytes(9, "1234567"), "it holds 7 bytes of values"},
           {tensor_head("mean", static_cast<DataType>(7), {2}).integer(7, 1).integer(7, 1), "it is int64, it must be float16"},
           {tensor_head("mean", DataType::float32, {2}).bytes(10, raw<double>({1, 1})), "its values are in double_data"}}) {
    SCOPED_TRACE(why);
    save_with("mean", tensor);
    expect_refusal(run(), why);
    expect_refusal(run(), before);
    expect_refusal(list(), why);
    expect_refusal(run_program({tool_, "run", model(), "--fold"}), why);
  }
}

TEST_F(OnnxBatchnormErrorsTest, ParametersThatTheModelDoesNotHold) {
  save_with("mean", tensor_head("mean", onnx::DataType::float32, {2}).integer(14, 1));
  expect_refusal(run(), "tensor 'mean': its values are in another file (external data), which is not read");
  save_model(every_kind_of_model());
  expect_refusal(
      run_program({tool_, "run", model(), "--node", "in_function", "--fold"}),
      "'" + model() + "', node 5 'in_function' of function 'Block': its attribute 'epsilon' is that of the function's");
  Proto graph;
  graph.bytes(graph_field::node, node_proto("BatchNormalization", "bn", {"x", "computed", "sparse", "nobody", ""}, {"y"}));
  graph.bytes(graph_field::node, node_proto("Relu", "", {"x"}, {"computed"}));
  graph.bytes(graph_field::sparse_initializer, Proto().bytes(1, tensor_proto("sparse", {1}, {1})));
  save_model(model_proto(15, graph));
  save_npy(file("two"), npy::Type::float32, {2}, {1, 1});
  std::vector<std::string> files;
  for (const auto& [option, why] :
       std::vector<std::pair<std::string, std::string>>{{"--scale", "scale is computed by a node Relu; --scale gives it"},
                                                        {"--bias", "B is a sparse constant; --bias gives it"},
                                                        {"--mean", "mean is nowhere in the model; --mean gives it"},
                                                        {"--variance", "var is left out; --variance gives it"}}) {
    expect_refusal(run(files), "'" + model() + "', node 0 'bn': " + why);
    files.insert(files.end(), {option, file("two")});
  }
  expect_success(run(files));
}

TEST_F(OnnxBatchnormErrorsTest, AttributesThatTheOpsetLacks) {
  const auto no_float = Proto().bytes(1, "epsilon").integer(3, 1).integer(20, onnx::Attribute::type_int);
  const auto no_int = Proto().bytes(1, "training_mode").float32(2, 1).integer(20, onnx::Attribute::type_float);
  for (const auto& [opset, attribute, why] : std::vector<std::tuple<std::int64_t, Proto, std::string>>{
           {9, int_attribute("spatial", 1), "its attribute 'spatial' does not exist in opset 9"},
           {9, int_attribute("training_mode", 1), "its attribute 'training_mode' does not exist in opset 9"},
           {7, int_attribute("is_test", 1), "its attribute 'is_test' does not exist in opset 7"},
           {15, float_attribute("eps", 1), "its attribute 'eps' does not exist in opset 15"},
           {15, float_attribute("e\n\x1B[31m", 1), "its attribute 'e??[31m' does not exist"},
           {15, no_float, "its attribute 'epsilon' is no float"},
           {15, no_int, "its attribute 'training_mode' is no integer"}}) {
    SCOPED_TRACE(why);
    save(opset, {attribute});
    expect_refusal(run(), "'" + model() + "', node 0 'bn': " + why);
  }
}

TEST_F(OnnxBatchnormErrorsTest, OptionsOutOfRange) {
  for (const auto& [attribute, why] : std::vector<std::pair<Proto, std::string>>{
           {float_attribute("epsilon", -1e-5F), "epsilon is -1e-05, it must be finite and at least 0"},
           {float_attribute("epsilon", INFINITY), "epsilon is inf"},
           {float_attribute("epsilon", NAN), "epsilon is nan"},
           {float_attribute("momentum", 1.5F), "momentum is 1.5, it must be in [0, 1]"},
           {float_attribute("momentum", -1), "momentum is -1"},
           {float_attribute("momentum", NAN), "momentum is nan"}}) {
    SCOPED_TRACE(why);
    save(15, {attribute, int_attribute("training_mode", 1)});
    expect_refusal(run(), "'" + model() + "', node 0 'bn': " + why);
    EXPECT_NE(expect_success(list()).find("\n    cannot be run: " + why), std::string::npos);
  }
}

TEST_F(OnnxBatchnormErrorsTest, NodesWithoutFiveInputsOrAnOpset) {
  const auto graph = [](const Names& inputs) {
    return Proto().bytes(graph_field::node, node_proto("BatchNormalization", "bn", inputs, {"y"}));
  };
  save_model(model_proto(15, graph({"x", "s"})));
  expect_refusal(run(), "node 0 'bn': it has 2 inputs, it must have 5");
  save_model(Proto().bytes(8, opset_import(1, "com.example")).bytes(7, graph(node_inputs)));
  expect_refusal(run(), "node 0 'bn': the model imports no version of ONNX's operators");
}

TEST_F(OnnxBatchnormErrorsTest, TypesThatDoNotGoTogether) {
  save<double>(15, quarter);
  expect_refusal(run(), "scale is float64; only x of float64 takes parameters of float64");
  save<float, double>(15, quarter);
  expect_refusal(run(), "mean is float64; only x of float64 takes parameters of float64");
  save<float, batchnorm::half>(14, quarter);
  expect_success(run());
  std::filesystem::remove_all(out());
  save<batchnorm::half>(14, quarter);
  expect_refusal(run(), "scale is float16, opset 14 wants the type of X, float32");
  save<float, batchnorm::half>(9, quarter);
  expect_refusal(run(), "mean is float16, opset 9 wants the type of X, float32");
  save_with("bias", tensor_proto<batchnorm::half>("bias", {2}, {1, 1}));
  expect_refusal(run(), "B is float16, opset 15 wants the type of scale, float32");
  save_with("variance", tensor_proto<batchnorm::half>("variance", {2}, {1, 1}));
  expect_refusal(run_program({tool_, "run", model(), "--fold"}), "var is float16, opset 15 wants the type of mean, float32");
  EXPECT_NE(expect_success(list()).find("\n    cannot be run: var is float16, opset 15 wants the type of mean"),
            std::string::npos);
  save_npy(file("x"), npy::Type::int64, x_shape, Doubles(8));
  expect_refusal(run(), "'" + file("x") + "': it is int64, it must be float16, float32 or float64");
}

TEST_F(OnnxBatchnormErrorsTest, ShapesThatDoNotGoTogether) {
  save_with("scale", tensor_proto("scale", {3}, {1, 1, 1}));
  expect_refusal(run(), "'" + model() + "', node 0 'bn': scale has shape [3], expected [C] = [2]");
  EXPECT_NE(expect_success(list()).find("\n    cannot be run: B has shape [2], expected [C] = [3]"), std::string::npos);
  save_with("mean", tensor_proto("mean", {2, 1}, {1, 1}));
  expect_refusal(run(), "mean has shape [2, 1], expected [C] = [2]");
  expect_refusal(run_program({tool_, "run", model(), "--fold"}), "mean has shape [2, 1], expected [C]");
  save(15, quarter);
  save_npy(file("x"), npy::Type::float32, {}, {1});
  expect_refusal(run(), "rank");
  save_npy(file("x"), npy::Type::float32, {2}, {1, 1});
  expect_refusal(run(), "scale has shape [2], expected [C] = [1]");
}

TEST_F(OnnxBatchnormErrorsTest, TensorFilesThatCannotBeRead) {
  save(15, quarter);
  const auto with_x = [&](const std::string& path) {
    return run_program({tool_, "run", model(), "--x", path, "--out", out()});
  };
  expect_refusal(with_x(pb("missing")), "'" + pb("missing") + "': there is no such file");
  write_bytes(folder_ / "x.txt", "");
  expect_refusal(with_x(folder_ / "x.txt"), "x.txt': its name must end in .npy, or in .pb for a TensorProto");
  write_bytes(pb("x"), Proto().integer(9, 1));
  expect_refusal(with_x(pb("x")), "'" + pb("x") + "': at byte 0, field 9 of TensorProto has wire type 0, expected is 2");
  write_bytes(pb("x"), tensor_proto("", {1LL << 50, 2, 2}, {1}));
  expect_refusal(with_x(pb("x")), "'" + pb("x") + "': tensor '': it holds 4 bytes of values");
  write_bytes(pb("x"), "");
  expect_refusal(with_x(pb("x")), "'" + pb("x") + "': tensor '': it is undefined, it must be");
  write_bytes(file("x"), "not an array");
  expect_refusal(run(), "'" + file("x") + "': it is not a .npy file");
}

TEST_F(OnnxBatchnormErrorsTest, CommandLinesThatAskForNothing) {
  save(15, quarter);
  expect_refusal(run_program({tool_}), "a command is required");
  expect_refusal(run_program({tool_, "list"}), "model is required");
  expect_refusal(run_program({tool_, "run", model()}), "--x or --fold is required");
  expect_refusal(run_program({tool_, "run", model(), "--x", file("x")}), "--out, --expect or --fold is required");
  expect_refusal(run_program({tool_, "run", model(), "--fold", "--expect", file("x")}), "--expect needs --x");
  expect_refusal(run({"--sideways"}), "--sideways");
  const ProgramResult help = run_program({tool_, "run", "--help"});
  EXPECT_EQ(help.status, 0);
  for (const char* word : {"--node NODE", "--x FILE", "--variance FILE", "--expect FILE", "--fold", "--out DIR"}) {
    EXPECT_NE(help.output.find(word), std::string::npos) << word;
  }
}

TEST_F(OnnxBatchnormErrorsTest, ALieInAHeaderCostsNoMemory) {
  if (address_sanitizer || thread_sanitizer) GTEST_SKIP() << "a sanitizer needs the address space for itself";
  save_with("mean", tensor_proto("mean", {1LL << 40}, {1, 1}));
  std::vector<std::string> command{"/bin/sh", "-c", "ulimit -v 300000; exec \"$@\"", "sh", tool_, "list", model()};
  expect_refusal(run_program(command), "it holds 8 bytes of values");
}

TEST_F(OnnxBatchnormErrorsTest, AnErrorLeavesTheOutputFolderAsItWas) {
  save(15, quarter);
  expect_success(run());
  const std::string before = read_bytes(out() / "Y.npy");
  save_npy(file("wrong"), npy::Type::float32, {2}, {1, 1});
  EXPECT_EQ(run({"--bias", file("wrong"), "--expect", file("wrong")}).status, 2);
  EXPECT_EQ(names_in(out()), std::vector<std::string>{"Y.npy"});
  EXPECT_EQ(read_bytes(out() / "Y.npy"), before);
}

}  // namespace
