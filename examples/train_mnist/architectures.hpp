// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../network/activations.hpp"
#include "../network/batch_normalization.hpp"
#include "../network/convolution.hpp"
#include "../network/linear.hpp"
#include "../network/max_pooling.hpp"
#include "../network/network.hpp"

namespace train_mnist {

enum class Normalize { no, yes };

/// A network, and the layer whose input shows how stable learning is.
template <class T>
struct Architecture {
  network::Network<T> layers;
  std::size_t last_sigmoid = 0;  ///< only of the sigmoid network
};

struct SigmoidExtents {
  std::int64_t inputs;
  std::vector<std::int64_t> hidden;
  std::int64_t classes;
};

/// The network of Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
/// Shift" (2015), section 4.1: fully connected layers, a sigmoid after each but the last, normalization before each sigmoid.
/// Weights are Gaussian; those of the same seed are the same with normalization and without.
template <class T>
Architecture<T> sigmoid_network(const SigmoidExtents& extents, Normalize normalize, double deviation, std::uint64_t seed) {
  using namespace network;
  const bool normalizes = normalize == Normalize::yes;
  Random random(seed);
  Architecture<T> made;
  std::int64_t inputs = extents.inputs;
  for (const std::int64_t units : extents.hidden) {
    made.layers.template add<Linear<T>>(inputs, units, normalizes ? Bias::absent : Bias::present, deviation, random);
    if (normalizes) made.layers.template add<BatchNormalization<T>>(units);
    made.last_sigmoid = made.layers.template add<Sigmoid<T>>();
    inputs = units;
  }
  made.layers.template add<Linear<T>>(inputs, extents.classes, Bias::present, deviation, random);
  return made;
}

struct ConvolutionalExtents {
  std::int64_t side;  ///< of a square image with one channel
  std::vector<std::int64_t> channels;
  std::int64_t classes;
};

/// Blocks of a 3 x 3 convolution, normalization, ReLU and pooling to half the side, then a linear layer. Normalization and ReLU
/// are one operation: the ReLU is the epilogue, and the gradient needs one bit of each of its elements.
/// The deviation of the weights is sqrt(2 / inputs) (He et al. 2015), which keeps the size of the values through a ReLU, and
/// sqrt(1 / inputs) where none follows. `training` is what normalises in training, as for BatchNormalization.
template <class T, class Operator = batchnorm::BatchNorm<T, batchnorm::Format::NHWC>>
Architecture<T> convolutional_network(const ConvolutionalExtents& extents, Normalize normalize, std::uint64_t seed,
                                      const Operator& training = Operator(true)) {
  using namespace network;
  Random random(seed);
  const auto deviation = [](double variance, std::int64_t count) { return std::sqrt(variance / static_cast<double>(count)); };
  Architecture<T> made;
  std::int64_t inputs = 1;
  std::int64_t side = extents.side;
  for (const std::int64_t channels : extents.channels) {
    if (normalize == Normalize::yes) {
      made.layers.template add<Convolution<T>>(inputs, channels, Bias::absent, deviation(2, 9 * inputs), random);
      made.layers.template add<BatchNormalization<T, batchnorm::Relu, Operator>>(channels, training);
    } else {
      made.layers.template add<Convolution<T>>(inputs, channels, Bias::present, deviation(2, 9 * inputs), random);
      made.layers.template add<Relu<T>>();
    }
    made.layers.template add<MaxPooling<T>>();
    inputs = channels;
    side /= 2;
  }
  inputs *= side * side;
  made.layers.template add<Linear<T>>(inputs, extents.classes, Bias::present, deviation(1, inputs), random);
  return made;
}

}  // namespace train_mnist
