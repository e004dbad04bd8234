// SPDX-License-Identifier: MIT
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/onnx_files.hpp"
#include "support/onnx_tool_test.hpp"
#include "support/sanitizers.hpp"

// What a file may cost: less than 200 bytes of memory for each of its own, and time as for sorting it. The models here are a
// few hundred KB and say the same thing many times; where each time costs, they take gigabytes or hours.
namespace {

using namespace support;

std::string label(int i) { return "n" + std::to_string(i); }

class OnnxBatchnormCostsTest : public OnnxBatchnormTest {
 protected:
  /// Lists and folds the model within the memory and the processor time that its size allows.
  void expect_cheap(const Proto& graph, const std::string& said = "") const {
    save_model(model_proto(15, graph));
    const std::size_t size = read_bytes(model()).size();
    ASSERT_LT(size, 1U << 20U);
    // Beside the file's share, the program itself.
    const std::size_t kilobytes = 40000 + size * 200 / 1024;
    const bool is_sanitized = address_sanitizer || thread_sanitizer;
    const std::string limits =
        "ulimit -t 30; " + (is_sanitized ? "" : "ulimit -v " + std::to_string(kilobytes) + "; ") + "exec \"$@\"";
    for (const std::vector<std::string>& command :
         std::vector<std::vector<std::string>>{{"list", model()}, {"fold", model(), "--out", folder_ / "folded.onnx"}}) {
      SCOPED_TRACE(command[0]);
      std::vector<std::string> shell{"/bin/sh", "-c", limits, "sh", tool_};
      shell.insert(shell.end(), command.begin(), command.end());
      const ProgramResult result = run_program(shell);
      EXPECT_EQ(result.status, said.empty() ? 0 : 2) << result.errors;
      EXPECT_NE(result.errors.find(said), std::string::npos) << result.errors;
    }
  }

  /// Batch norms whose parameters are all `name`.
  static void add_norms(Proto& graph, int count, const std::string& name, const std::string& x = "x") {
    for (int i = 0; i < count; ++i) {
      graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {x, name, name, name, name}, {label(i)}));
    }
  }
};

TEST_F(OnnxBatchnormCostsTest, ManyReferencesToATensorOfManyExtents) {
  Proto packed;
  for (int i = 0; i < 60000; ++i) packed.varint(1);
  Proto graph;
  graph.bytes(graph_field::initializer, Proto().bytes(1, packed).integer(2, 1).bytes(8, "p").bytes(9, raw<float>({1})));
  add_norms(graph, 1500, "p");
  expect_cheap(graph, "tensor 'p': its rank is 60000, the largest that can be read is 8");
}

TEST_F(OnnxBatchnormCostsTest, ManyReferencesToAConstantOfManyAttributes) {
  std::vector<Proto> attributes(30000, Proto().bytes(1, "a"));
  attributes.push_back(tensor_attribute("value", tensor_proto("", {1}, {1})));
  Proto graph = Proto().bytes(graph_field::node, node_proto("Constant", "", {}, {"p"}, attributes));
  for (int i = 0; i < 1500; ++i) {  // each after a name of its own
    graph.bytes(graph_field::node, node_proto("Identity", "", {"p"}, {"i" + label(i)}));
    const std::string p = "i" + label(i);
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {"x", p, p, p, p}, {label(i)}));
  }
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, ManyOutputsOfOneConstant) {
  std::vector<Proto> attributes(30000, Proto().bytes(1, "a"));
  std::vector<std::string> names;
  for (int i = 0; i < 1500; ++i) names.push_back("p" + label(i));
  Proto graph = Proto().bytes(graph_field::node, node_proto("Constant", "", {}, Names(names.begin(), names.end()), attributes));
  for (int i = 0; i < 1500; ++i) {
    const std::string& p = names[static_cast<std::size_t>(i)];
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {"x", p, p, p, p}, {label(i)}));
  }
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, ManyReferencesToValuesInManyFields) {
  Proto tensor = tensor_head("p", onnx::DataType::float32, {50000});
  for (int i = 0; i < 50000; ++i) tensor.float32(4, 1);
  Proto graph = Proto().bytes(graph_field::initializer, tensor);
  add_norms(graph, 1500, "p");
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, ManyReferencesToADeclarationOfManyExtents) {
  Proto graph = Proto().bytes(graph_field::input, value_info("x", onnx::DataType::float32, Extents64(50000, 1)));
  graph.bytes(graph_field::initializer, tensor_proto("p", {1}, {1}));
  add_norms(graph, 1500, "p");
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, ManyReferencesThroughAChainOfLongNames) {
  std::string last = "p";
  Proto graph = Proto().bytes(graph_field::initializer, tensor_proto("p", {1}, {1}));
  for (int i = 0; i < 60; ++i) {
    const std::string name = std::string(2000, 'n') + label(i);
    graph.bytes(graph_field::node, node_proto("Identity", "", {last}, {name}));
    last = name;
  }
  graph.bytes(graph_field::node, node_proto("Identity", "", {last}, {"short"}));
  add_norms(graph, 2000, "short");
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, FieldsThatAreAsSmallAsFieldsCanBe) {
  const auto many = [](std::uint64_t number, const Proto& field, int count) {
    Proto proto;
    for (int i = 0; i < count; ++i) proto.bytes(number, field);
    return proto;
  };
  expect_cheap(many(graph_field::node, Proto(), 60000));
  expect_cheap(many(graph_field::node, Proto().bytes(1, ""), 50000));                                        // nodes
  expect_cheap(Proto().bytes(graph_field::node, many(1, Proto(), 60000)));                                   // inputs
  expect_cheap(Proto().bytes(graph_field::node, many(5, Proto(), 60000)));                                   // attributes
  expect_cheap(Proto().bytes(graph_field::node, Proto().bytes(5, many(11, Proto(), 60000))));                // graphs
  expect_cheap(Proto().bytes(graph_field::node, Proto().bytes(5, many(11, Proto().bytes(15, ""), 50000))));  // with content
  expect_cheap(Proto().bytes(graph_field::node, Proto().bytes(5, many(11, Proto().bytes(1, Proto().bytes(1, "a")), 30000))));
  expect_cheap(many(graph_field::input, Proto(), 60000));
}

TEST_F(OnnxBatchnormCostsTest, NamesThatDifferInDeepGraphs) {
  Proto graph;
  for (int i = 0; i < 1000; ++i) {
    const std::string a = label(4 * i), b = label(4 * i + 1), c = label(4 * i + 2), d = label(4 * i + 3);
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {"x", a, b, c, d}, {"y" + a}));
  }
  for (int level = 0; level < 32; ++level) {
    graph = Proto().bytes(graph_field::node, node_proto("If", "", {}, {}, {Proto().bytes(6, graph)}));
  }
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, LayersThatShareLargeWeightsAreNotCopiedEachTime) {
  Proto graph = Proto().bytes(graph_field::initializer, tensor_proto("w", {1, 50000, 1}, Doubles(50000, 1)));
  graph.bytes(graph_field::initializer, tensor_proto("p", {1}, {1}));
  for (int i = 0; i < 1000; ++i) {
    graph.bytes(graph_field::node, node_proto("Conv", "", {"x", "w"}, {"c" + label(i)}));
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {"c" + label(i), "p", "p", "p", "p"}, {label(i)}));
  }
  expect_cheap(graph);
  EXPECT_LT(read_bytes(folder_ / "folded.onnx").size(), 3 * read_bytes(model()).size());
}

TEST_F(OnnxBatchnormCostsTest, ParametersOfManyFieldsAreReadOnce) {
  Proto parameter = tensor_proto("p", {1}, {1});
  for (int i = 0; i < 60000; ++i) parameter.integer(99, 1);
  Proto graph = Proto().bytes(graph_field::initializer, parameter);
  for (int i = 0; i < 1000; ++i) {
    const std::string w = "w" + label(i), c = "c" + label(i);
    graph.bytes(graph_field::initializer, tensor_proto(w, {1, 1, 1}, {1}));
    graph.bytes(graph_field::node, node_proto("Conv", "", {"x", w}, {c}));
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {c, "p", "p", "p", "p"}, {label(i)}));
  }
  expect_cheap(graph);
}

TEST_F(OnnxBatchnormCostsTest, ALongChainOfBatchNormsThatShareLargeParameters) {
  Proto graph = Proto().bytes(graph_field::initializer, tensor_proto("w", {20000, 1, 1}, Doubles(20000, 1)));
  graph.bytes(graph_field::initializer, tensor_proto("p", {20000}, Doubles(20000, 1)));
  graph.bytes(graph_field::node, node_proto("Conv", "", {"x", "w"}, {"c0"}));
  for (int i = 0; i < 1500; ++i) {
    const std::string x = "c" + std::to_string(i), y = "c" + std::to_string(i + 1);
    graph.bytes(graph_field::node, node_proto("BatchNormalization", "", {x, "p", "p", "p", "p"}, {y}));
  }
  expect_cheap(graph);
}

}  // namespace
