// SPDX-License-Identifier: MIT
//
// The layers and networks of the example train_mnist, on images made here: the data set itself is not needed. In double, where
// gradients can be checked by differences; the program trains in float (train_mnist_program_test.cpp).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>
#include <train_mnist/architectures.hpp>
#include <train_mnist/distribution.hpp>
#include <train_mnist/folding.hpp>
#include <train_mnist/training.hpp>

namespace {

using namespace train_mnist;
using network::Mode;
using network::Shape;
using network::Tensor;

constexpr std::int64_t side = 8;
constexpr std::int64_t classes = 3;

/// Noise, and a bright square whose place is the class.
Examples make_examples(std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int> noise(0, 120);
  Examples examples{{count, side, side, std::vector<std::uint8_t>(static_cast<std::size_t>(count * side * side))}, {}};
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t label = n % classes;
    examples.labels.push_back(static_cast<std::uint8_t>(label));
    for (std::int64_t row = 0; row < side; ++row) {
      for (std::int64_t column = 0; column < side; ++column) {
        const bool bright = row / 2 == label + 1 && column / 2 == label;
        examples.images.pixels[static_cast<std::size_t>((n * side + row) * side + column)] =
            static_cast<std::uint8_t>(noise(random) + (bright ? 100 : 0));
      }
    }
  }
  return examples;
}

template <class T>
Tensor<T> noise_tensor(const Shape& shape, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> gaussian;
  Tensor<T> tensor(shape);
  for (T& value : tensor) value = static_cast<T>(gaussian(random));
  return tensor;
}

template <class T>
Architecture<T> small_sigmoid_network(Normalize normalize) {
  return sigmoid_network<T>({.inputs = side * side, .hidden = {7, 6, 5}, .classes = classes}, normalize, 0.3, 3);
}

template <class T>
Architecture<T> small_convolutional_network(Normalize normalize) {
  return convolutional_network<T>({.side = side, .channels = {3, 4}, .classes = classes}, normalize, 3);
}

// ------------------------------------------------------------------------------------------------------------------ gradients

double loss_of(network::Network<double>& layers, const Batch<double>& batch) {
  return network::softmax_cross_entropy<double>(layers.forward(batch.x, Mode::training), batch.labels, nullptr).loss;
}

/// The largest difference of a gradient and (loss(p + h) - loss(p - h)) / 2h, over all parameters p.
double gradient_error(network::Network<double> layers) {
  const Examples examples = make_examples(7, 5);  // two blocks of the convolution, the second of one image
  Batch<double> batch;
  load(examples, std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6}, batch);
  // Biases and scales other than 0 and 1, so that none of their terms vanishes.
  std::mt19937_64 random(7);
  std::normal_distribution<double> gaussian(0, 0.1);
  for (const auto& parameter : layers.parameters()) {
    for (double& value : parameter.values) value += gaussian(random);
  }
  Tensor<double> dlogits;
  network::softmax_cross_entropy<double>(layers.forward(batch.x, Mode::training), batch.labels, &dlogits);
  layers.backward(batch.x, dlogits);

  constexpr double h = 1e-6;
  double worst = 0;
  for (const auto& parameter : layers.parameters()) {
    const std::vector<double> gradient(parameter.gradient.begin(), parameter.gradient.end());
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const double value = parameter.values[i];
      parameter.values[i] = value + h;
      const double above = loss_of(layers, batch);
      parameter.values[i] = value - h;
      const double below = loss_of(layers, batch);
      parameter.values[i] = value;
      const double error = std::abs(gradient[i] - (above - below) / (2 * h));
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
    }
  }
  return worst;
}

// The loss, about 1, is computed to some 1e-15, so its difference over 2h to some 1e-9; gradients are 1e-3 to 1. No input of a
// ReLU or of the pooling of these networks comes so close to another branch that h would take it there.
constexpr double gradient_tolerance = 1e-8;

TEST(TrainMnist, GradientsOfTheSigmoidNetworkAreThoseOfItsLoss) {
  EXPECT_LT(gradient_error(small_sigmoid_network<double>(Normalize::no).layers), gradient_tolerance);
  EXPECT_LT(gradient_error(small_sigmoid_network<double>(Normalize::yes).layers), gradient_tolerance);
}

TEST(TrainMnist, GradientsOfTheConvolutionalNetworkAreThoseOfItsLoss) {
  EXPECT_LT(gradient_error(small_convolutional_network<double>(Normalize::no).layers), gradient_tolerance);
  EXPECT_LT(gradient_error(small_convolutional_network<double>(Normalize::yes).layers), gradient_tolerance);
}

// --------------------------------------------------------------------------------------------------------------------- layers

TEST(TrainMnist, ConvolutionSumsOverTheNeighboursOfEachPixel) {
  constexpr std::int64_t images = 13, height = 3, width = 4, inputs = 2, outputs = 3;
  network::Random random(1);
  network::Convolution<double> convolution(inputs, outputs, network::Bias::absent, 1, random);
  const Tensor<double> x = noise_tensor<double>({images, height, width, inputs}, 2);
  Tensor<double> y(convolution.output_shape(x.shape()));
  ASSERT_EQ(y.shape(), (Shape{images, height, width, outputs}));
  convolution.forward(x, y, Mode::inference);
  const Tensor<double>& weights = convolution.weights();
  const auto expected = [&](std::int64_t n, std::int64_t row, std::int64_t column, std::int64_t o) {
    double sum = 0;
    for (std::int64_t k = 0; k < 9; ++k) {
      const std::int64_t h = row + k / 3 - 1, w = column + k % 3 - 1;
      if (h < 0 || h >= height || w < 0 || w >= width) continue;
      for (std::int64_t i = 0; i < inputs; ++i) {
        sum += x[((n * height + h) * width + w) * inputs + i] * weights[(k * inputs + i) * outputs + o];
      }
    }
    return sum;
  };
  constexpr double tolerance = 1e-13;  // 18 products of order 1 in double
  for (std::int64_t at = 0; at < y.size(); ++at) {
    const std::int64_t pixel = at / outputs;
    EXPECT_NEAR(y[at], expected(pixel / (height * width), pixel / width % height, pixel % width, at % outputs), tolerance)
        << at;
  }
}

TEST(TrainMnist, MaxPoolingLeavesOutALastOddRowAndColumn) {
  network::MaxPooling<float> pooling;
  Tensor<float> x(Shape{1, 3, 5, 1});
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  Tensor<float> y(pooling.output_shape(x.shape())), dx(x.shape());
  ASSERT_EQ(y.shape(), (Shape{1, 1, 2, 1}));
  pooling.forward(x, y, Mode::training);
  EXPECT_EQ(y[0], 6.0F);
  EXPECT_EQ(y[1], 8.0F);
  Tensor<float> dy(y.shape());
  dy[0] = 3, dy[1] = 4;
  pooling.backward(x, y, dy, &dx);
  for (std::int64_t i = 0; i < dx.size(); ++i) EXPECT_EQ(dx[i], i == 6 ? 3.0F : i == 8 ? 4.0F : 0.0F) << i;
}

TEST(TrainMnist, MaxPoolingGivesTheGradientOfATieToOneNeighbour) {
  network::MaxPooling<float> pooling;
  const Tensor<float> x(Shape{1, 2, 2, 1});
  Tensor<float> y(pooling.output_shape(x.shape())), dy(y.shape()), dx(x.shape());
  pooling.forward(x, y, Mode::training);
  dy[0] = 3;
  pooling.backward(x, y, dy, &dx);
  EXPECT_EQ((std::vector<float>(dx.begin(), dx.end())), (std::vector<float>{3, 0, 0, 0}));
}

TEST(TrainMnist, CrossEntropyOfEqualLogitsIsTheLogarithmOfTheClasses) {
  Tensor<double> logits(Shape{2, 4}), gradient;
  for (double& z : logits) z = 1000;  // exp() of which is infinite
  const std::vector<std::uint8_t> labels = {0, 3};
  const network::Score score = network::softmax_cross_entropy<double>(logits, labels, &gradient);
  EXPECT_DOUBLE_EQ(score.loss, std::log(4.0));
  EXPECT_EQ(score.correct, 1);  // the first of equal logits is taken
  EXPECT_EQ((std::vector<double>(gradient.begin(), gradient.end())),
            (std::vector<double>{-0.375, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, -0.375}));
}

// ------------------------------------------------------------------------------------------------------------------- training

/// 300 steps, which must bring the loss well below that of guessing, log(3) = 1.10; then folds what was learnt.
void expect_to_learn_and_fold(Architecture<double> architecture, Normalize normalize) {
  const Examples examples = make_examples(90, 11);
  const Examples others = make_examples(300, 13);
  Training<double> training(architecture.layers, examples, {.steps = 300, .batch_size = 20, .rate = 0.3, .seed = 2});
  training.step();
  const double first = training.progress().loss;
  for (int i = 1; i < 300; ++i) training.step();
  EXPECT_LT(training.progress().loss, 0.5);
  EXPECT_LT(training.progress().loss, 0.5 * first);
  EXPECT_GT(accuracy(architecture.layers, others, [] {}), 0.9);
  if (normalize == Normalize::no) return;

  network::Network<double> without = folded(architecture.layers);
  for (std::size_t i = 0; i < without.size(); ++i) {
    EXPECT_EQ(dynamic_cast<const network::Normalization<double>*>(&without.layer(i)), nullptr) << i;
  }
  const Agreement agreement = compare(architecture.layers, without, others);
  EXPECT_EQ(agreement.examples, 300);
  EXPECT_TRUE(agreement.complete()) << agreement.same << " the same, " << agreement.ties << " ties";
  EXPECT_LT(agreement.largest_difference, 1e-12);  // logits are some 10, of which a double has 1e-15, through four layers
}

TEST(TrainMnist, TheSigmoidNetworkLearns) {
  expect_to_learn_and_fold(small_sigmoid_network<double>(Normalize::yes), Normalize::yes);
}

TEST(TrainMnist, TheConvolutionalNetworkLearns) {
  expect_to_learn_and_fold(small_convolutional_network<double>(Normalize::no), Normalize::no);
  expect_to_learn_and_fold(small_convolutional_network<double>(Normalize::yes), Normalize::yes);
}

TEST(TrainMnist, NetworksOfTheSameSeedHaveTheSameWeights) {
  const auto plain = small_sigmoid_network<double>(Normalize::no).layers;
  const auto normalized = small_sigmoid_network<double>(Normalize::yes).layers;
  const auto weights = [](const network::Network<double>& layers, std::size_t i) {
    const Tensor<double>& tensor = dynamic_cast<const network::Weighted<double>&>(layers.layer(i)).weights();
    return std::vector<double>(tensor.begin(), tensor.end());
  };
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(weights(plain, 2 * i), weights(normalized, 3 * i)) << i;
}

/// Says of every image that its logits are these three.
network::Network<double> constant_network(const std::array<double, 3>& logits) {
  network::Random random(1);
  network::Network<double> layers;
  layers.add<network::Linear<double>>(side * side, classes, network::Bias::present, 0.0, random);
  std::ranges::copy(logits, layers.parameters().back().values.begin());
  return layers;
}

TEST(TrainMnist, CompareToleratesNothingButTies) {
  const Examples examples = make_examples(250, 13);
  auto one = constant_network({1, 1, 0});
  auto same = constant_network({3, 2, 1});
  EXPECT_EQ(compare(one, same, examples).same, 250);
  EXPECT_EQ(compare(one, same, examples).largest_difference, 2);
  auto tie = constant_network({1, 1.000001, 0});
  EXPECT_EQ(compare(one, tie, examples).ties, 250);
  EXPECT_TRUE(compare(one, tie, examples).complete());
  auto other = constant_network({1, 1.0001, 0});  // a tie only by the first network's account
  EXPECT_EQ(compare(one, other, examples).ties, 0);
  EXPECT_FALSE(compare(one, other, examples).complete());
  EXPECT_FALSE(compare(other, one, examples).complete());
}

TEST(TrainMnist, TheRateFallsToZeroInTheLastSteps) {
  const Schedule schedule{.steps = 10, .rate = 2, .decay = 0.4};
  EXPECT_EQ(rate_after(schedule, 0), 2);
  EXPECT_EQ(rate_after(schedule, 6), 2);
  EXPECT_EQ(rate_after(schedule, 7), 1.5);
  EXPECT_EQ(rate_after(schedule, 9), 0.5);
  EXPECT_EQ(rate_after({.steps = 10, .rate = 2}, 9), 2);
}

TEST(TrainMnist, EachEpochShowsEveryExampleOnceInANewOrder) {
  Shuffled shuffled(12, 1);
  std::vector<std::vector<std::int64_t>> epochs(2);
  for (auto& epoch : epochs) {
    for (int i = 0; i < 3; ++i) std::ranges::copy(shuffled.next(4), std::back_inserter(epoch));
  }
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto& epoch : epochs) {
    std::ranges::sort(epoch);
    EXPECT_EQ(epoch, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  }
}

TEST(TrainMnist, PercentilesAreThoseOfEachUnit) {
  DistributionHistory<float> history;
  Tensor<float> batch(Shape{101, 3});
  for (std::int64_t n = 0; n < 101; ++n) {
    const auto rank = static_cast<float>(n * 37 % 101);  // 0 to 100 in some order
    batch[3 * n] = rank, batch[3 * n + 1] = 3 * rank, batch[3 * n + 2] = 2 * rank;
  }
  history.take_in(batch);
  history.finish(7);
  ASSERT_EQ(history.points().size(), 1U);
  EXPECT_EQ(history.points()[0].step, 7);
  EXPECT_EQ(history.points()[0].units, (std::vector<Percentiles>{{15, 50, 85}, {45, 150, 255}, {30, 100, 170}}));
  EXPECT_EQ(history.typical_unit(), 2U);
}

}  // namespace
