// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <span>

#include "support/calls.hpp"
#include "support/messages.hpp"

// Inference takes constant running statistics in every form of the call, training refuses them.
namespace {

using namespace support;
using batchnorm::BatchNorm;
using batchnorm::StatisticView;
using batchnorm::Tensor;
using batchnorm::TensorView;
using batchnorm::ValueError;

struct Layer {
  Call<float, float> call = ordinary_call<float, float>({4, 3, 5}, Format::NCHW, false);
  TensorView<const float> x{call.x.data(), call.shape};
  const std::vector<float> mean = *call.mean, variance = *call.variance;
  std::vector<float> want = run(call).y;
};

TEST(ConstantStatistics, ServeInferenceInEveryFormOfTheCall) {
  const Layer layer;
  const auto scale = view(layer.call.scale), bias = view(layer.call.bias);
  const BatchNorm<float> norm(false, layer.call.options.epsilon);
  const auto returned = norm.output_x(layer.x, scale, bias, layer.mean, layer.variance);
  EXPECT_TRUE(same_bits(values_of(returned), layer.want));
  const auto out = norm(layer.x, scale, bias, layer.mean, layer.variance);
  EXPECT_TRUE(same_bits(values_of(out.output_x), layer.want));
  EXPECT_TRUE(same_bits(values_of(out.batch_mean), layer.mean));
  EXPECT_TRUE(same_bits(values_of(out.reserve_space_2), layer.variance));
  std::vector<float> y(layer.want.size());
  norm(layer.x, scale, bias, layer.mean, layer.variance, {.output_x = {y.data(), layer.call.shape}});
  EXPECT_TRUE(same_bits(y, layer.want));
  std::vector<float> again(layer.want.size());
  batchnorm::batch_norm<float>(Format::NCHW, layer.call.options, layer.x, scale, bias, layer.mean, layer.variance,
                               {.output_x = {again.data(), layer.call.shape}});
  EXPECT_TRUE(same_bits(again, layer.want));
}

TEST(ConstantStatistics, ComeFromWhateverTensorsComeFrom) {
  const Layer layer;
  const BatchNorm<float> norm(false, layer.call.options.epsilon);
  const auto expect = [&](StatisticView<float> mean, StatisticView<float> variance, bool are_constant) {
    EXPECT_EQ(mean.is_constant(), are_constant);
    EXPECT_EQ(variance.is_constant(), are_constant);
    const auto y = norm.output_x(layer.x, view(layer.call.scale), view(layer.call.bias), mean, variance);
    EXPECT_TRUE(same_bits(values_of(y), layer.want));
  };
  const Shape channels{3};
  std::vector<float> mean = layer.mean, variance = layer.variance;
  expect(mean, variance, false);
  expect(layer.mean, layer.variance, true);
  expect(std::span<float>(mean), std::span<float>(variance), false);
  expect(std::span<const float>(mean), std::span<const float>(variance), true);
  expect({mean.data(), channels}, {variance.data(), channels}, false);
  expect({layer.mean.data(), channels}, {layer.variance.data(), channels}, true);
  expect(TensorView<float>(mean), TensorView<float>(variance), false);
  expect(TensorView<const float>(mean), TensorView<const float>(variance), true);
  Tensor<float> m(channels), v(channels);
  std::ranges::copy(mean, m.begin()), std::ranges::copy(variance, v.begin());
  const Tensor<float> constant_m = m, constant_v = v;
  expect(m, v, false);
  expect(constant_m, constant_v, true);
  const std::array<float, 3> array_m{mean[0], mean[1], mean[2]}, array_v{variance[0], variance[1], variance[2]};
  expect(array_m, array_v, true);
  const batchnorm::Strides strides{1};
  expect({mean.data(), channels, strides}, {variance.data(), channels, strides}, false);
  expect({layer.mean.data(), channels, strides}, {layer.variance.data(), channels, strides}, true);
  EXPECT_FALSE(StatisticView<float>(layer.mean).updated().present());
  EXPECT_FALSE(StatisticView<float>(nullptr).present());
  EXPECT_FALSE(StatisticView<float>().present());
}

TEST(ConstantStatistics, MayBeAbsentInTraining) {
  const Layer layer;
  const StatisticView<float> absent(TensorView<const float>{});
  EXPECT_FALSE(absent.is_constant());
  EXPECT_EQ(BatchNorm<float>(true)(layer.x, nullptr, nullptr, absent, absent).batch_mean.size(), 3);
}

TEST(ConstantStatistics, AreRefusedByTrainingBeforeAnythingIsWritten) {
  const Layer layer;
  std::vector<float> mean = layer.mean, variance = layer.variance, y(layer.want.size(), 7);
  const BatchNorm<float> norm(true);
  const auto message = [&](const StatisticView<float>& m, const StatisticView<float>& v) {
    return message_of<ValueError>([&] {
      norm(layer.x, nullptr, nullptr, m, v, {.output_x = {y.data(), layer.call.shape}, .batch_mean = mean});
    });
  };
  const std::string rest = " is constant, but training updates it; only inference takes constants";
  EXPECT_EQ(message(layer.mean, layer.variance), "batchnorm::BatchNorm: mean" + rest);
  EXPECT_EQ(message(mean, layer.variance), "batchnorm::BatchNorm: variance" + rest);
  EXPECT_EQ(mean, layer.mean);
  EXPECT_TRUE(std::ranges::all_of(y, [](float value) { return value == 7; }));
}

}  // namespace
