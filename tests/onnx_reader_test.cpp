// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "onnx/batch_normalization.hpp"
#include "onnx_batchnorm/description.hpp"
#include "support/messages.hpp"
#include "support/onnx_files.hpp"
#include "support/onnx_models.hpp"

// The reader of ONNX's files, on files that are written here byte by byte.
namespace {

using namespace support;
using onnx::DataType;

std::vector<double> decoded(const Proto& tensor) {
  const onnx::TensorProto parsed = onnx::parse_tensor({tensor});
  std::vector<double> values;
  const auto append = [&](const auto& decoded) {
    for (const auto& value : decoded) values.push_back(batchnorm::widened(value));
  };
  switch (parsed.type) {
    case DataType::float32: append(onnx::decode<float>(parsed)); break;
    case DataType::float64: append(onnx::decode<double>(parsed)); break;
    case DataType::float16: append(onnx::decode<batchnorm::half>(parsed)); break;
    case DataType::bfloat16: append(onnx::decode<batchnorm::bfloat16>(parsed)); break;
  }
  return values;
}

/// What the reader says about a tensor that it refuses.
std::string refusal(const Proto& tensor) {
  return message_of<onnx::FormatError>([&] { onnx::check_values(onnx::parse_tensor({tensor})); });
}

const Doubles numbers{1, -2, 0.5};

TEST(OnnxReader, ReadsRawDataOfEveryType) {
  EXPECT_EQ(decoded(tensor_proto<float>("t", {3}, numbers)), numbers);
  EXPECT_EQ(decoded(tensor_proto<double>("t", {3, 1}, numbers)), numbers);
  EXPECT_EQ(decoded(tensor_proto<batchnorm::half>("t", {1, 3}, numbers)), numbers);
  EXPECT_EQ(decoded(tensor_proto<batchnorm::bfloat16>("t", {3}, numbers)), numbers);
  EXPECT_EQ(decoded(tensor_proto<float>("t", {2, 0}, {})), Doubles());
  EXPECT_EQ(decoded(tensor_proto<float>("t", {}, {7})), Doubles{7});
}

TEST(OnnxReader, ReadsNumbersPackedOrOneByOne) {
  const auto head = [](DataType type) { return tensor_head("t", type, {3}); };
  EXPECT_EQ(decoded(head(DataType::float32).bytes(4, raw<float>(numbers))), numbers);
  EXPECT_EQ(decoded(head(DataType::float32).float32(4, 1).float32(4, -2).float32(4, 0.5F)), numbers);
  EXPECT_EQ(decoded(head(DataType::float32).bytes(4, raw<float>({1, -2})).float32(4, 0.5F)), numbers);
  EXPECT_EQ(decoded(head(DataType::float64).bytes(10, raw<double>(numbers))), numbers);
  EXPECT_EQ(decoded(head(DataType::float64).float64(10, 1).float64(10, -2).float64(10, 0.5)), numbers);
  EXPECT_EQ(decoded(head(DataType::float16).bytes(5, int32_data<batchnorm::half>(numbers))), numbers);
  EXPECT_EQ(decoded(head(DataType::bfloat16).bytes(5, int32_data<batchnorm::bfloat16>(numbers))), numbers);
  EXPECT_EQ(decoded(head(DataType::float16).integer(5, 0x3C00).integer(5, 0xC000).integer(5, 0x3800)), numbers);
  const Proto packed_extents = Proto().bytes(1, Proto().varint(3).varint(1)).integer(2, 1).bytes(9, raw<float>(numbers));
  EXPECT_EQ(onnx::parse_tensor({packed_extents}).extents, (Extents64{3, 1}));
  EXPECT_EQ(decoded(packed_extents), numbers);
}

TEST(OnnxReader, RefusesExtentsThatAreNone) {
  EXPECT_NE(refusal(tensor_proto("t", {-3}, numbers)).find("negative extent, its shape is [-3]"), std::string::npos);
  EXPECT_NE(refusal(tensor_proto("t", {INT64_MAX, 4}, numbers)).find("overflows 64 bits"), std::string::npos);
  EXPECT_NE(refusal(tensor_proto("t", {INT64_MAX, 4, 0}, numbers)).find("overflows 64 bits"), std::string::npos);
  EXPECT_EQ(refusal(tensor_proto("t", Extents64(9, 1), {1})), "tensor 't': its rank is 9, the largest that can be read is 8");
}

TEST(OnnxReader, RefusesAnotherNumberOfValuesThanTheExtentsDemand) {
  EXPECT_EQ(refusal(tensor_proto("t", {2}, numbers)),
            "tensor 't': it holds 12 bytes of values, shape [2] of float32 takes 2 times 4");
  EXPECT_EQ(
      refusal(tensor_proto("t", {std::int64_t{1} << 61U}, numbers)),
      "tensor 't': it holds 12 bytes of values, shape [2305843009213693952] of float32 takes 2305843009213693952 times 4");
  EXPECT_NE(refusal(tensor_head("t", DataType::float32, {3}).bytes(9, "12345678901")).find("it holds 11 bytes"),
            std::string::npos);
  EXPECT_NE(refusal(tensor_head("t", DataType::float32, {3})).find("it holds 0 bytes"), std::string::npos);
  EXPECT_NE(refusal(tensor_head("t", DataType::float16, {3}).integer(5, 1)).find("it holds 2 bytes"), std::string::npos);
}

TEST(OnnxReader, RefusesValuesThatStandInTheWrongPlace) {
  const auto head = [](DataType type) { return tensor_head("t", type, {1}); };
  EXPECT_EQ(refusal(head(DataType::float32).bytes(10, raw<double>({1}))),
            "tensor 't': its values are in double_data, which is no place for float32");
  EXPECT_EQ(refusal(head(DataType::float64).float32(4, 1)),
            "tensor 't': its values are in float_data, which is no place for float64");
  EXPECT_EQ(refusal(head(DataType::float32).integer(5, 1)),
            "tensor 't': its values are in int32_data, which is no place for float32");
  EXPECT_EQ(refusal(head(DataType::float16).integer(5, 65536)),
            "tensor 't': int32_data holds 65536, which is not the bits of a float16");
  EXPECT_EQ(refusal(head(DataType::float16).integer(5, -1)),
            "tensor 't': int32_data holds -1, which is not the bits of a float16");
  EXPECT_NE(refusal(head(DataType::float32).float32(4, 1).bytes(9, raw<float>({1}))).find("has both float_data and raw_data"),
            std::string::npos);
  EXPECT_NE(refusal(tensor_proto("t", {1}, {1}).bytes(9, raw<float>({1}))).find("has raw_data twice"), std::string::npos);
  EXPECT_EQ(refusal(head(DataType::float32).bytes(13, Proto().bytes(1, "location").bytes(2, "w.bin")).integer(14, 1)),
            "tensor 't': its values are in another file (external data), which is not read");
  EXPECT_EQ(refusal(head(DataType::float32).bytes(3, Proto().integer(1, 5))),
            "tensor 't': it is a segment of a larger tensor, which cannot be put together");
}

TEST(OnnxReader, RefusesTypesThatAreNotFloatingPoint) {
  EXPECT_EQ(refusal(tensor_head("t", static_cast<DataType>(7), {1}).integer(7, 1)),
            "tensor 't': it is int64, it must be float16, bfloat16, float32 or float64");
  EXPECT_EQ(refusal(tensor_head("t", static_cast<DataType>(99), {1})),
            "tensor 't': it is type 99, it must be float16, bfloat16, float32 or float64");
  EXPECT_EQ(refusal(tensor_head("t", static_cast<DataType>(-1), {1})),
            "tensor 't': it is type -1, it must be float16, bfloat16, float32 or float64");
  const Proto floats = tensor_proto("t", {1}, {1});
  EXPECT_EQ(message_of<onnx::FormatError>([&] { onnx::decode<double>(onnx::parse_tensor({floats})); }),
            "tensor 't': it is float32, expected is float64");
}

TEST(OnnxReader, SaysAtWhichByteAFieldIsMalformed) {
  const auto said = [](std::string_view bytes) { return message_of<onnx::FormatError>([&] { onnx::parse_tensor({bytes}); }); };
  using namespace std::string_view_literals;
  EXPECT_EQ(said("\x10\x01\x48\x01"sv), "at byte 2, field 9 of TensorProto has wire type 0, expected is 2");
  EXPECT_EQ(said("\x12\x01x"sv), "at byte 0, field 2 of TensorProto has wire type 2, expected is 0");
  EXPECT_EQ(said("\x10\x01\x4A\x05xyz"sv), "at byte 4, TensorProto goes on for 5 bytes, where it has 3 left");
  EXPECT_EQ(said("\x4A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01x"sv),
            "at byte 11, TensorProto goes on for 18446744073709551615 bytes, where it has 1 left");
  EXPECT_EQ(said("\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02"sv),
            "at byte 1, TensorProto has an integer of more than 64 bits");
  EXPECT_EQ(said("\x08\x80"sv), "at byte 2, TensorProto goes on for 1 bytes, where it has 0 left");
  EXPECT_EQ(said("\x13"sv), "at byte 0, field 2 of TensorProto has wire type 3, which ONNX has no use for");
  EXPECT_EQ(said("\x02\x01x"sv), "at byte 0, TensorProto has a field of number 0, it must be in [1, 536870911]");
  EXPECT_EQ(refusal(tensor_head("t", DataType::float32, {1}).bytes(4, "abcde")),
            "at byte 7, field 4 of TensorProto packs numbers of 4 bytes into 5 bytes");
}

TEST(OnnxReader, SkipsFieldsThatItDoesNotKnow) {
  EXPECT_EQ(decoded(tensor_proto("t", {3}, numbers).bytes(12, "doc").integer(99, 5).float64(100, 1).float32(101, 1)), numbers);
}

TEST(OnnxReader, FindsTheBatchNormsOfBranchesAndFunctions) {
  const Proto proto = every_kind_of_model();
  const onnx::Model model = onnx::parse_model({proto});
  onnx::Values values;
  EXPECT_EQ(onnx_tool::describe(onnx::batch_normalizations(model, values)), std::string(every_kind_described));
}

TEST(OnnxReader, RefusesModelsThatContradictThemselves) {
  const auto said = [](const Proto& model) { return message_of<onnx::FormatError>([&] { onnx::parse_model({model}); }); };
  EXPECT_EQ(said(Proto().integer(1, 8)), "it is no model: it has no graph");
  EXPECT_NE(said(Proto().bytes(7, "").bytes(7, "")).find("the model has a second graph"), std::string::npos);
  const Proto relu = node_proto("Relu", "", {"x"}, {"y"});
  EXPECT_NE(said(model_proto(15, Proto().bytes(graph_field::node, relu).bytes(graph_field::node, relu)))
                .find("two nodes put out 'y'"),
            std::string::npos);
  const Proto tensor = tensor_proto("w", {1}, {1});
  EXPECT_NE(said(model_proto(15, Proto().bytes(graph_field::initializer, tensor).bytes(graph_field::initializer, tensor)))
                .find("two initializers have the name 'w'"),
            std::string::npos);
}

TEST(OnnxReader, RefusesGraphsThatAreNestedTooDeep) {
  const auto nested = [](int levels) {
    Proto graph = Proto().bytes(graph_field::name, "innermost");
    for (int level = 0; level < levels; ++level) {
      const Proto branch = Proto().bytes(1, "then_branch").bytes(6, graph);
      graph = Proto().bytes(graph_field::node, node_proto("If", "", {}, {}, {branch}));
    }
    return model_proto(15, graph);
  };
  EXPECT_EQ(onnx::parse_model({nested(32)}).graphs.size(), 33U);
  for (const int levels : {33, 1000}) {
    const std::string said = message_of<onnx::FormatError>([&] { onnx::parse_model({nested(levels)}); });
    EXPECT_NE(said.find("graphs are nested more than 32 deep"), std::string::npos) << said;
  }
}

TEST(OnnxReader, IdentitiesInACircleLeadNowhere) {
  const Proto graph = Proto()
                          .bytes(graph_field::node, node_proto("Identity", "", {"b"}, {"a"}))
                          .bytes(graph_field::node, node_proto("Identity", "", {"a"}, {"b"}));
  const Proto proto = model_proto(15, graph);
  const onnx::Model model = onnx::parse_model({proto});
  onnx::Values values;
  EXPECT_EQ(values.of(model.graphs[0], "a").source, onnx::Source::unknown);
  EXPECT_EQ(values.of(model.graphs[0], "b").name, "b");
}

/// Reads all that the tool would read of a model; what is malformed is a FormatError and nothing else.
void read_all(std::string_view bytes) {
  try {
    const onnx::Model model = onnx::parse_model({bytes});
    onnx::Values values;
    const std::vector<onnx::BatchNormalization> norms = onnx::batch_normalizations(model, values);
    for (const onnx::BatchNormalization& norm : norms) {
      for (const onnx::Value& value : norm.inputs) {
        if (value.tensor && value.tensor->type == DataType::float32) onnx::decode<float>(*value.tensor);
        if (value.tensor && value.tensor->type == DataType::float16) onnx::decode<batchnorm::half>(*value.tensor);
      }
    }
    onnx_tool::describe(norms);
  } catch (const onnx::FormatError&) {
  }
}

TEST(OnnxReader, EveryTruncationIsReadOrRefused) {
  const std::string whole(every_kind_of_model());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // Memory of its own: a sanitizer sees a byte read beyond its end.
    const std::vector<char> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_NO_THROW(read_all({part.data(), part.size()})) << size;
  }
}

TEST(OnnxReader, EveryMutationIsReadOrRefused) {
  const std::string whole(every_kind_of_model());
  std::mt19937 random(1);
  const auto below = [&](std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(random); };
  for (int i = 0; i < 20000; ++i) {
    std::vector<char> bytes(whole.begin(), whole.end());
    for (std::size_t count = 1 + below(4); count > 0; --count) {
      const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size()));
      switch (below(3)) {
        case 0: *place = static_cast<char>(below(256)); break;
        case 1: bytes.erase(place); break;
        default: bytes.insert(place, static_cast<char>(below(2) == 0 ? 0xFF : below(256))); break;
      }
    }
    ASSERT_NO_THROW(read_all({bytes.data(), bytes.size()})) << i;
  }
}

}  // namespace
