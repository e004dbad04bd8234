// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/calls.hpp"
#include "support/onnx.hpp"

// The test data that ONNX publishes for BatchNormalization (Debian's libonnx-testdata): four node tests, two of them in
// training mode, and five models converted from PyTorch.
namespace {

using namespace support;

#if defined(BATCHNORM_ONNX_TEST_DATA)
const std::string data_folder = BATCHNORM_ONNX_TEST_DATA;
#else
const std::string data_folder;
#endif

// Their outputs were computed in float: about eight roundings each (difference, square, sum, root, quotient, product, sum), so
// 8 half ulp at M, beside our own 3.
constexpr Real published_ulps = 4;

class Onnx : public testing::TestWithParam<const char*> {};

/// The node's call, in this library's terms: ONNX's momentum weighs the old value, its running variance is the biased one.
Call<float, float> call_of(const onnx::Case& test) {
  const onnx::Model& model = test.model;
  const auto float_or = [&](const char* name, float otherwise) {
    return model.floats.contains(name) ? model.floats.at(name) : otherwise;
  };
  const auto input = [&](std::size_t i) { return test.inputs.at(model.node_inputs.at(i)); };
  batchnorm::Options options;
  options.epsilon = static_cast<double>(float_or("epsilon", 1e-5F));
  options.momentum = 1 - static_cast<double>(float_or("momentum", 0.9F));
  options.is_training = model.integers.contains("training_mode") && model.integers.at("training_mode") == 1;
  options.running_variance = batchnorm::RunningVariance::biased;
  return {Shape(input(0).extents), Format::NCHW,    options,         input(0).values,
          input(1).values,         input(2).values, input(3).values, input(4).values};
}

TEST_P(Onnx, PublishedOutputsAreReproduced) {
  if (data_folder.empty()) GTEST_SKIP() << "BATCHNORM_ONNX_TEST_DATA is not defined: libonnx-testdata was not found";
  const onnx::Case test = onnx::read_case(data_folder + "/" + GetParam());
  ASSERT_EQ(test.model.operator_name, "BatchNormalization");
  const auto call = call_of(test);
  const Expected want = expected(call);
  ASSERT_EQ(test.outputs.size(), call.options.is_training ? 3U : 1U);
  for_each_isa([&](Isa isa) {
    const auto result = run(call);
    expect_kept(errors(call, result, want, isa));
    for (std::size_t i = 0; i < result.y.size(); ++i) {
      const Real ulp = ulp_at<float>(want.y[i].magnitude);
      ASSERT_LE(error(result.y[i], real(test.outputs[0].values.at(i))), (published_ulps + y_ulps<float>(isa)) * ulp) << i;
    }
    if (!call.options.is_training) return;
    for (std::size_t c = 0; c < result.mean.size(); ++c) {
      const Real mean = real(test.outputs[1].values.at(c)), variance = real(test.outputs[2].values.at(c));
      ASSERT_LE(error(result.mean[c], mean), (published_ulps + mean_ulps) * ulp_at<float>(std::abs(mean)));
      ASSERT_LE(error(result.variance[c], variance), (published_ulps + variance_ulps) * ulp_at<float>(variance));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Published, Onnx,
    testing::Values("node/test_batchnorm_example", "node/test_batchnorm_epsilon", "node/test_batchnorm_example_training_mode",
                    "node/test_batchnorm_epsilon_training_mode", "pytorch-converted/test_BatchNorm1d_3d_input_eval",
                    "pytorch-converted/test_BatchNorm2d_eval", "pytorch-converted/test_BatchNorm2d_momentum_eval",
                    "pytorch-converted/test_BatchNorm3d_eval", "pytorch-converted/test_BatchNorm3d_momentum_eval"),
    [](const auto& parameter) {
      std::string name = parameter.param;
      for (char& letter : name) letter = std::isalnum(static_cast<unsigned char>(letter)) != 0 ? letter : '_';
      return name;
    });

TEST(OnnxReader, RefusesTruncatedMessages) {
  // dims: 2; data_type: 1; raw_data: 8 bytes
  const std::string tensor("\x08\x02\x10\x01\x4A\x08\0\0\x80\x3F\0\0\0\x40", 14);
  EXPECT_EQ(onnx::parse_tensor(tensor).values, (std::vector<float>{1, 2}));
  for (std::size_t size = 0; size < tensor.size(); ++size) {
    EXPECT_THROW(onnx::parse_tensor(tensor.substr(0, size)), std::runtime_error) << size;
  }
  EXPECT_THROW(onnx::parse_tensor("\x0A\xFF\xFF\xFF\xFF\x0F"), std::runtime_error);
  EXPECT_THROW(onnx::parse_tensor(std::string(11, '\xFF')), std::runtime_error);
}

}  // namespace
