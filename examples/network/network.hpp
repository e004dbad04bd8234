// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "layer.hpp"
#include "matrix.hpp"

namespace network {

/// Layers one after the other, and the values between them.
template <class T>
class Network {
 public:
  /// Adds a layer after the others; returns its number.
  std::size_t add(std::unique_ptr<Layer<T>> layer) {
    layers_.push_back(std::move(layer));
    outputs_.emplace_back();
    gradients_.emplace_back();
    return layers_.size() - 1;
  }
  template <class L, class... Arguments>
  std::size_t add(Arguments&&... arguments) {
    return add(std::make_unique<L>(std::forward<Arguments>(arguments)...));
  }

  std::size_t size() const { return layers_.size(); }
  Layer<T>& layer(std::size_t i) { return *layers_[i]; }
  const Layer<T>& layer(std::size_t i) const { return *layers_[i]; }

  /// The output of layer i in the latest forward().
  const Tensor<T>& output(std::size_t i) const { return outputs_[i]; }

  /// The output of the last layer for x of shape [N, ...]; valid until the next forward().
  const Tensor<T>& forward(const Tensor<T>& x, Mode mode) {
    for (std::size_t i = 0; i < size(); ++i) {
      const Tensor<T>& input = input_of(i, x);
      reshape(outputs_[i], layers_[i]->output_shape(input.shape()));
      layers_[i]->forward(input, outputs_[i], mode);
    }
    return outputs_.back();
  }

  /// The gradients of all parameters, for the x of the latest forward() in training and dy, the gradient of its output.
  void backward(const Tensor<T>& x, const Tensor<T>& dy) {
    gradients_.back() = dy;
    for (std::size_t i = size(); i-- > 0;) {
      Tensor<T>* const dx = i > 0 ? &gradients_[i - 1] : nullptr;
      if (dx != nullptr) reshape(*dx, outputs_[i - 1].shape());
      layers_[i]->backward(input_of(i, x), outputs_[i], gradients_[i], dx);
    }
  }

  std::vector<Parameter<T>> parameters() {
    std::vector<Parameter<T>> all;
    for (const auto& layer : layers_) {
      for (const Parameter<T>& parameter : layer->parameters()) all.push_back(parameter);
    }
    return all;
  }

 private:
  const Tensor<T>& input_of(std::size_t i, const Tensor<T>& x) const { return i == 0 ? x : outputs_[i - 1]; }

  std::vector<std::unique_ptr<Layer<T>>> layers_;
  std::vector<Tensor<T>> outputs_;
  std::vector<Tensor<T>> gradients_;
};

/// Plain stochastic gradient descent: parameter -= rate * gradient.
template <class T>
void descend(Network<T>& network, double rate) {
  using Values = Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>;
  using Gradient = Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>;
  for (const Parameter<T>& parameter : network.parameters()) {
    const auto size = static_cast<Eigen::Index>(parameter.values.size());
    Values(parameter.values.data(), size) -= static_cast<T>(rate) * Gradient(parameter.gradient.data(), size);
  }
}

}  // namespace network
