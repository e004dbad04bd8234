// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "onnx_files.hpp"
#include "tool_test.hpp"

// Runs the tool onnx_batchnorm on models that are written byte by byte. The numbers are chosen such that every result is exact:
// 0.25 + 3.75 in inference and 0.1875 + 0.0625 in training have the roots 2 and 0.5.
namespace support {

using Values = std::vector<long double>;

inline const Doubles x_values{-0.25, 0.25, 2.75, 3.25, 0.25, -0.25, 3.25, 2.75};
inline const Extents64 x_shape{2, 2, 2};
inline const Values y_inference{-0.25, 0.25, 2.5, 3.5, 0.25, -0.25, 3.5, 2.5};
inline const Values y_training{-1, 1, -3, 1, 1, -1, 1, -3};
inline const Values running_mean{0, 1.5}, running_variance{2.828125, 2.828125};  // three parts old, one part new

inline const Names node_inputs{"x", "scale", "bias", "mean", "variance"};
inline const Names statistics_too{"y", "running_mean", "running_var"};

class OnnxBatchnormTest : public ToolTest {
 protected:
  OnnxBatchnormTest() : ToolTest(BATCHNORM_ONNX_TOOL) { save_npy(file("x"), npy::Type::float32, x_shape, x_values); }

  std::string model() const { return folder_ / "model.onnx"; }
  std::string pb(const std::string& name) const { return folder_ / (name + ".pb"); }

  void save_model(const Proto& proto) const { write_bytes(model(), proto); }

  /// A model of one node, whose parameters are initializers: scale and bias of type P, the statistics of type S.
  template <class P = float, class S = P>
  void save(std::int64_t opset, const std::vector<Proto>& attributes, const Names& outputs = {"y"}) const {
    Proto graph;
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "bn", node_inputs, outputs, attributes));
    graph.bytes(graph_field::initializer, tensor_proto<P>("scale", {2}, {2, 4}));
    graph.bytes(graph_field::initializer, tensor_proto<P>("bias", {2}, {0, -1}));
    graph.bytes(graph_field::initializer, tensor_proto<S>("mean", {2}, {0, 1}));
    graph.bytes(graph_field::initializer, tensor_proto<S>("variance", {2}, {3.75, 3.75}));
    save_model(model_proto(opset, graph));
  }

  ProgramResult run(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command{tool_, "run", model(), "--x", file("x"), "--out", out()};
    command.insert(command.end(), more.begin(), more.end());
    return run_program(command);
  }

  std::string expect_success(const ProgramResult& result) const {
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.errors, "");
    return result.output;
  }

  void expect_inference(const std::vector<std::string>& more = {}) const {
    EXPECT_EQ(expect_success(run(more)), "");
    EXPECT_EQ(names_in(out()), std::vector<std::string>{"Y.npy"});
    EXPECT_EQ(values("Y"), y_inference);
  }

  void expect_training(const std::vector<std::string>& more = {}) const {
    EXPECT_EQ(expect_success(run(more)), "");
    EXPECT_EQ(names_in(out()), (std::vector<std::string>{"Y.npy", "running_mean.npy", "running_var.npy"}));
    EXPECT_EQ(values("Y"), y_training);
    EXPECT_EQ(values("running_mean"), running_mean);
    EXPECT_EQ(values("running_var"), running_variance);
  }

  const std::vector<Proto> quarter{float_attribute("epsilon", 0.25F)};
  const std::vector<Proto> training{float_attribute("epsilon", 0.1875F), float_attribute("momentum", 0.75F)};
  const std::vector<Proto> training_15{training[0], training[1], int_attribute("training_mode", 1)};
};

}  // namespace support
