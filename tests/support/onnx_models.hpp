// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include "onnx_files.hpp"

// A model as the exporters of frameworks write them, of all that a batch norm can be found in.
namespace support {

namespace detail {

inline Proto constant_node(std::string_view output, const Proto& attribute) {
  return node_proto("Constant", "", {}, {output}, {attribute});
}

/// AttributeProto: floats 7.
inline Proto floats_attribute(std::string_view name, const Doubles& values) {
  return Proto().bytes(1, name).bytes(7, raw<float>(values)).integer(20, onnx::Attribute::type_floats);
}

inline Proto branch() {
  const Names inputs{"in", "outer_scale", "outer_bias", "outer_mean", "branch_variance"};
  return Proto()
      .bytes(graph_field::name, "then")
      .bytes(graph_field::node, node_proto("BatchNormalization", "in_branch", inputs, {"branch_out"}))
      .bytes(graph_field::initializer, tensor_proto<double>("branch_variance", {2}, {1, 1}));
}

inline Proto function() {
  const Proto epsilon = Proto().bytes(1, "epsilon").integer(20, 1).bytes(21, "eps");
  return Proto()
      .bytes(1, "Block")
      .bytes(4, "a")
      .bytes(4, "p")
      .bytes(7, constant_node("s", floats_attribute("value_floats", {1, 1})))
      .bytes(7, node_proto("BatchNormalization", "in_function", {"a", "s", "p", "p", "p"}, {"b"}, {epsilon}))
      .bytes(9, opset_import(9));
}

}  // namespace detail

/// A residual block: float32 in raw_data, float_data and a Constant node, one parameter shared by an Identity; a batch norm of
/// float16 in int32_data; one whose parameters are computed, sparse, external or missing; one in a branch, one in a function
/// of another opset.
inline Proto every_kind_of_model() {
  using namespace graph_field;
  Proto graph;
  graph.bytes(name, "main").bytes(input, value_info("x", onnx::DataType::float32, {-1, 2, 4, 4}));
  graph.bytes(input, value_info("h", onnx::DataType::float16, {1, 2}));
  graph.bytes(initializer, tensor_proto("outer_scale", {2}, {1, 2}));
  graph.bytes(initializer, tensor_head("outer_bias", onnx::DataType::float32, {2}).bytes(4, raw<float>({3, 4})));
  graph.bytes(initializer, tensor_proto("outer_mean", {2}, {0, 1}));
  graph.bytes(node, node_proto("Conv", "conv", {"x", "w"}, {"c"}));
  graph.bytes(node, detail::constant_node("v", tensor_attribute("value", tensor_proto("", {2}, {1, 4}))));
  graph.bytes(node, node_proto("BatchNormalization", "block/bn1", {"c", "outer_scale", "outer_bias", "outer_mean", "v"}, {"n1"},
                               {float_attribute("epsilon", 1e-3F), float_attribute("momentum", 0.99F)}));
  graph.bytes(node, node_proto("Identity", "", {"outer_bias"}, {"shared"}));
  graph.bytes(node, node_proto("BatchNormalization", "block/bn2", {"n1", "shared", "shared", "shared", "v"},
                               {"n2", "running_mean", "running_var"}, {int_attribute("training_mode", 1)}));
  graph.bytes(initializer, tensor_head("half", onnx::DataType::float16, {2}).bytes(5, int32_data<batchnorm::half>({1, 2})));
  graph.bytes(node, node_proto("BatchNormalization", "half", {"h", "half", "half", "half", "half"}, {"n3"}));
  graph.bytes(initializer, tensor_head("elsewhere", onnx::DataType::float32, {2}).integer(14, 1));
  graph.bytes(sparse_initializer, Proto().bytes(1, tensor_proto("sparse", {1}, {1})));
  graph.bytes(node, node_proto("BatchNormalization", "", {"n2", "c", "sparse", "elsewhere", "nobody"}, {"n4"},
                               {int_attribute("spatial", 0)}));
  graph.bytes(node, node_proto("If", "", {"x"}, {"n5"}, {Proto().bytes(1, "then_branch").bytes(6, detail::branch())}));
  graph.bytes(node, node_proto("BatchNormalization", "of another domain", {}, {"n6"}, {}, "com.example"));
  graph.bytes(output, value_info("n2", onnx::DataType::float32, {-1, 2, 4, 4}));
  return model_proto(15, graph).bytes(8, opset_import(1, "com.example")).bytes(25, detail::function());
}

inline constexpr std::string_view every_kind_described =
    R"(6 nodes BatchNormalization
node 0 'block/bn1': opset 15, channels 2, epsilon 0.001, momentum 0.99, inference
    X 'c': computed by a node Conv
    scale 'outer_scale': float32 [2], an initializer (raw_data)
    B 'outer_bias': float32 [2], an initializer (float_data)
    mean 'outer_mean': float32 [2], an initializer (raw_data)
    var 'v': float32 [2], a node Constant (raw_data)
    output 'n1'
node 1 'block/bn2': opset 15, channels 2, epsilon 1e-05, momentum 0.9, training
    X 'n1': computed by a node BatchNormalization
    scale 'outer_bias': float32 [2], an initializer (float_data)
    B 'outer_bias': float32 [2], an initializer (float_data)
    mean 'outer_bias': float32 [2], an initializer (float_data)
    var 'v': float32 [2], a node Constant (raw_data)
    output 'n2'
    output 'running_mean'
    output 'running_var'
node 2 'half': opset 15, channels 2, epsilon 1e-05, momentum 0.9, inference
    X 'h': float16 [1, 2], an input of the graph
    scale 'half': float16 [2], an initializer (int32_data)
    B 'half': float16 [2], an initializer (int32_data)
    mean 'half': float16 [2], an initializer (int32_data)
    var 'half': float16 [2], an initializer (int32_data)
    output 'n3'
node 3: opset 15, channels 2, epsilon 1e-05, momentum 0.9, inference
    cannot be run: its attribute 'spatial' does not exist in opset 15
    X 'n2': float32 [N, 2, 4, 4], computed by a node BatchNormalization
    scale 'c': computed by a node Conv
    B 'sparse': a sparse constant
    mean 'elsewhere': float32 [2], an initializer (external_data), which is not read
    var 'nobody': nowhere in the model
    output 'n4'
node 4 'in_branch' of graph 'then': opset 15, channels 2, epsilon 1e-05, momentum 0.9, inference
    cannot be run: var is float64, opset 15 wants the type of mean, float32
    X 'in': nowhere in the model
    scale 'outer_scale': float32 [2], an initializer (raw_data)
    B 'outer_bias': float32 [2], an initializer (float_data)
    mean 'outer_mean': float32 [2], an initializer (raw_data)
    var 'branch_variance': float64 [2], an initializer (raw_data)
    output 'branch_out'
node 5 'in_function' of function 'Block': opset 9, channels 2, epsilon 1e-05, momentum 0.9, inference
    cannot be run: its attribute 'epsilon' is that of the function's caller, 'eps'
    X 'a': an input of the graph
    scale 's': float32 [2], a node Constant (value_floats)
    B 'p': an input of the graph
    mean 'p': an input of the graph
    var 'p': an input of the graph
    output 'b'
)";

}  // namespace support
