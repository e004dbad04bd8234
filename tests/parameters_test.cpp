// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <type_traits>
#include <vector>

#include "support/calls.hpp"
#include "support/messages.hpp"

// What a layer learns and keeps: how it begins, and that it goes into the operator's calls as it is.
namespace {

using namespace support;
using batchnorm::bfloat16;
using batchnorm::half;
using batchnorm::Parameters;
using batchnorm::Tensor;

template <class P>
void expect_all(const Tensor<P>& tensor, double value, const char* name) {
  EXPECT_EQ(tensor.shape(), Shape({5})) << name;
  for (const P& entry : tensor) EXPECT_EQ(real(entry), real(value)) << name;
}

/// A layer of five channels, all of whose values differ from those at first.
template <class P>
Parameters<P> used_layer() {
  Parameters<P> layer(5);
  for (Tensor<P>* tensor : {&layer.scale, &layer.bias, &layer.mean, &layer.variance}) std::ranges::fill(*tensor, P(7));
  layer.batches = 9;
  return layer;
}

template <class P>
class ParametersOf : public testing::Test {};
using EveryParameter = testing::Types<float, double, half, bfloat16>;
TYPED_TEST_SUITE(ParametersOf, EveryParameter);

TYPED_TEST(ParametersOf, BeginWithTheIdentity) {
  const Parameters<TypeParam> layer(5);
  EXPECT_EQ(layer.channels(), 5);
  expect_all(layer.scale, 1, "scale");
  expect_all(layer.bias, 0, "bias");
  expect_all(layer.mean, 0, "mean");
  expect_all(layer.variance, 1, "variance");
  EXPECT_EQ(layer.batches, 0);
}

TYPED_TEST(ParametersOf, ResetRestoresEverything) {
  auto layer = used_layer<TypeParam>();
  layer.reset();
  expect_all(layer.scale, 1, "scale");
  expect_all(layer.bias, 0, "bias");
  expect_all(layer.mean, 0, "mean");
  expect_all(layer.variance, 1, "variance");
  EXPECT_EQ(layer.batches, 0);
}

TYPED_TEST(ParametersOf, ResetStatisticsKeepsWhatIsLearnt) {
  auto layer = used_layer<TypeParam>();
  layer.reset_statistics();
  expect_all(layer.scale, 7, "scale");
  expect_all(layer.bias, 7, "bias");
  expect_all(layer.mean, 0, "mean");
  expect_all(layer.variance, 1, "variance");
  EXPECT_EQ(layer.batches, 0);
}

TEST(ParametersTest, CopiesShareNothing) {
  const auto layer = used_layer<float>();
  Parameters<float> copy = layer;
  copy.reset();
  expect_all(layer.scale, 7, "scale");
  EXPECT_EQ(layer.batches, 9);
}

TEST(ParametersTest, NoChannelsAreAllowedNegativeOnesAreNot) {
  EXPECT_EQ(Parameters<float>(0).channels(), 0);
  EXPECT_EQ(Parameters<float>(0).variance.shape(), Shape({0}));
  EXPECT_NE(message_of<batchnorm::ShapeError>([] { Parameters<float> layer(-1); }).find("negative extent"), std::string::npos);
}

TEST(ParametersTest, GoIntoTheCallsAsTheyAre) {
  const auto call = ordinary_call<float, float>({4, 5, 7}, Format::NCHW, true);
  Tensor<float> x(call.shape);
  std::ranges::copy(call.x, x.begin());
  Parameters<float> layer(5);
  std::ranges::copy(*call.scale, layer.scale.begin());
  std::ranges::copy(*call.bias, layer.bias.begin());
  std::ranges::copy(*call.mean, layer.mean.begin());
  std::ranges::copy(*call.variance, layer.variance.begin());

  const auto expected = run(call);
  const auto outputs = batchnorm::BatchNorm<float>(true)(x, layer.scale, layer.bias, layer.mean, layer.variance);
  EXPECT_TRUE(same_bits(values_of(outputs.output_x), expected.y));
  EXPECT_TRUE(same_bits(values_of(layer.mean), expected.mean));
  EXPECT_TRUE(same_bits(values_of(layer.variance), expected.variance));
  EXPECT_FALSE(same_bits(values_of(layer.mean), *call.mean));

  auto inference_call = call;
  inference_call.options.is_training = false;
  inference_call.mean = expected.mean;
  inference_call.variance = expected.variance;
  const Tensor<float> y = batchnorm::BatchNorm<float>().output_x(x, layer.scale, layer.bias, layer.mean, layer.variance);
  EXPECT_TRUE(same_bits(values_of(y), run(inference_call).y));
}

}  // namespace
