// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/gradient_calls.hpp"

// Calls with named arguments are those with arguments in their places.
namespace {

using namespace support;
using batchnorm::BatchNorm;
using batchnorm::Tensor;
using batchnorm::TensorView;

struct Layer {
  Shape shape{4, 3, 5};
  std::vector<float> x = uniform<float>(60, -2, 2, 1), dy = uniform<float>(60, -2, 2, 2), ddx = uniform<float>(60, -2, 2, 3);
  std::vector<float> scale = uniform<float>(3, 1, 2, 4), bias = uniform<float>(3, -1, 1, 5), mean = uniform<float>(3, -1, 1, 6),
                     variance = uniform<float>(3, 1, 2, 7);

  TensorView<const float> of(const std::vector<float>& values) const { return {values.data(), shape}; }
};

TEST(NamedArguments, OfTheOperator) {
  for (const bool is_training : {false, true}) {
    const BatchNorm<float> norm(is_training);
    Layer a, b, c;
    const auto want = norm(a.of(a.x), a.scale, a.bias, a.mean, a.variance);
    const auto got = norm({.x = b.of(b.x), .scale = b.scale, .bias = b.bias, .mean = b.mean, .variance = b.variance});
    EXPECT_TRUE(same_bits(values_of(got.output_x), values_of(want.output_x)));
    EXPECT_TRUE(same_bits(values_of(got.batch_variance), values_of(want.batch_variance)));
    EXPECT_EQ(b.mean, a.mean);
    EXPECT_EQ(b.variance, a.variance);
    Tensor<float> y(c.shape);
    norm({.x = c.of(c.x), .scale = c.scale, .bias = c.bias, .mean = c.mean, .variance = c.variance}, {.output_x = y});
    EXPECT_TRUE(same_bits(values_of(y), values_of(want.output_x)));
    EXPECT_EQ(c.variance, a.variance);
  }
}

TEST(NamedArguments, OfTheOperatorMayBeConstantInInference) {
  const Layer layer;
  const BatchNorm<float> norm;
  const auto want = norm(layer.of(layer.x), layer.scale, nullptr, layer.mean, layer.variance, batchnorm::Relu{});
  const auto got =
      norm({.x = layer.of(layer.x), .scale = layer.scale, .mean = layer.mean, .variance = layer.variance}, batchnorm::Relu{});
  EXPECT_TRUE(same_bits(values_of(got.output_x), values_of(want.output_x)));
}

TEST(NamedArguments, OfTheGradient) {
  const Layer layer;
  const BatchNorm<float> norm(true);
  const auto want = norm.backward(layer.of(layer.dy), layer.of(layer.x), layer.scale, layer.mean, layer.variance);
  const auto got = norm.backward(
      {.dy = layer.of(layer.dy), .x = layer.of(layer.x), .scale = layer.scale, .mean = layer.mean, .variance = layer.variance});
  EXPECT_TRUE(same_bits(values_of(got.dx), values_of(want.dx)));
  EXPECT_TRUE(same_bits(values_of(got.dscale), values_of(want.dscale)));
  Tensor<float> dx(layer.shape);
  norm.backward(
      {.dy = layer.of(layer.dy), .x = layer.of(layer.x), .scale = layer.scale, .mean = layer.mean, .variance = layer.variance},
      {.dx = dx});
  EXPECT_TRUE(same_bits(values_of(dx), values_of(want.dx)));
}

/// The double gradients of the definition, in double: each output alone decides what its name stands for.
TEST(NamedArguments, OfTheDoubleGradient) {
  const Layer layer;
  const BatchNorm<float> norm(false, 0.25);
  const auto got = norm.double_backward({.dy = layer.of(layer.dy),
                                         .x = layer.of(layer.x),
                                         .scale = layer.scale,
                                         .mean = layer.mean,
                                         .variance = layer.variance,
                                         .ddx = layer.of(layer.ddx),
                                         .ddscale = layer.variance,
                                         .ddbias = layer.bias});
  std::vector<double> dscale(3);
  for (std::size_t i = 0; i < layer.x.size(); ++i) {
    const std::size_t c = i / 5 % 3;
    const double r = 1 / std::sqrt(layer.variance[c] + 0.25), xh = (layer.x[i] - layer.mean[c]) * r;
    const double g = layer.ddx[i], ddscale = layer.variance[c], ddbias = layer.bias[c];
    EXPECT_NEAR(got.ddy.data()[i], g * r * layer.scale[c] + ddscale * xh + ddbias, 1e-5);
    EXPECT_NEAR(got.dx.data()[i], ddscale * r * layer.dy[i], 1e-5);
    dscale[c] += g * layer.dy[i] * r;
  }
  for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(got.dscale.data()[c], dscale[c], 1e-4);
}

}  // namespace
