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
Call<float, float> call_of(const OnnxCase& test) {
  batchnorm::Options options;
  options.epsilon = static_cast<double>(test.epsilon);
  options.momentum = 1 - static_cast<double>(test.momentum);
  options.is_training = test.is_training;
  options.running_variance = batchnorm::RunningVariance::biased;
  const auto values = [&](std::size_t k) { return std::vector<float>(test.inputs[k].begin(), test.inputs[k].end()); };
  return {test.inputs[0].shape(), Format::NCHW, options, values(0), values(1), values(2), values(3), values(4)};
}

TEST_P(Onnx, PublishedOutputsAreReproduced) {
  if (data_folder.empty()) GTEST_SKIP() << "BATCHNORM_ONNX_TEST_DATA is not defined: libonnx-testdata was not found";
  const OnnxCase test = read_onnx_case(data_folder + "/" + GetParam());
  const auto call = call_of(test);
  const Expected want = expected(call);
  ASSERT_EQ(test.outputs.size(), call.options.is_training ? 3U : 1U);
  for_each_isa([&](Isa isa) {
    const auto result = run(call);
    expect_kept(errors(call, result, want, isa));
    for (std::size_t i = 0; i < result.y.size(); ++i) {
      const Real ulp = ulp_at<float>(want.y[i].magnitude);
      ASSERT_LE(error(result.y[i], real(test.outputs[0][static_cast<std::int64_t>(i)])),
                (published_ulps + y_ulps<float>(isa)) * ulp)
          << i;
    }
    if (!call.options.is_training) return;
    for (std::size_t c = 0; c < result.mean.size(); ++c) {
      const auto channel = static_cast<std::int64_t>(c);
      const Real mean = real(test.outputs[1][channel]), variance = real(test.outputs[2][channel]);
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

}  // namespace
