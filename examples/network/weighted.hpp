// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include <batchnorm/fold.hpp>

#include "layer.hpp"
#include "matrix.hpp"

namespace network {

using Random = std::mt19937_64;

/// Whether a layer adds a bias. One before batch normalization needs none: the mean is taken away again.
enum class Bias { absent, present };

/// What linear and convolutional layers share: weights whose last axis counts the outputs, and a bias for each output.
template <class T>
class Weighted : public Layer<T> {
 public:
  /// Gaussian weights of that deviation; the bias is 0.
  Weighted(const Shape& shape, Bias bias, double deviation, Random& random) : weights_(shape), weights_gradient_(shape) {
    std::normal_distribution<double> gaussian(0, deviation);
    for (T& weight : weights_) weight = static_cast<T>(gaussian(random));
    if (bias == Bias::present) set_bias(Tensor<T>(Shape{outputs()}));
  }

  std::int64_t outputs() const { return weights_.shape()[weights_.shape().rank() - 1]; }
  const Tensor<T>& weights() const { return weights_; }
  bool has_bias() const { return bias_.size() > 0; }

  /// [outputs], or of no size where there is none.
  const Tensor<T>& bias() const { return bias_; }

  /// Takes over the work of a map of its outputs, y = map(x W + b); it has a bias from then on.
  void fold(const batchnorm::AffineMap& map) {
    // The library wants [outputs, inputs]: the same memory with the strides exchanged.
    const batchnorm::TensorView<T> weights(weights_.data(), {outputs(), weights_.size() / outputs()}, {1, outputs()});
    Tensor<T> bias(Shape{outputs()});
    batchnorm::fold_after<T>(batchnorm::TensorView<const T>(weights),
                             has_bias() ? batchnorm::TensorView<const T>(bias_) : nullptr, map, {weights, bias});
    set_bias(std::move(bias));
  }

  std::vector<Parameter<T>> parameters() override {
    std::vector<Parameter<T>> all = {{elements(weights_), elements(weights_gradient_)}};
    if (has_bias()) all.push_back({elements(bias_), elements(bias_gradient_)});
    return all;
  }

 protected:
  /// [inputs, outputs]: y = x W + b for each row of x.
  ConstMatrixMap<T> weights_matrix() const { return by_last_axis(weights_); }
  MatrixMap<T> weights_gradient() { return by_last_axis(weights_gradient_); }

  template <class Matrix>
  void add_bias(Matrix&& y) const {
    if (has_bias()) y.rowwise() += array(bias_).matrix().transpose();
  }
  void find_bias_gradient(const Tensor<T>& dy) {
    if (has_bias()) array(bias_gradient_).matrix() = by_last_axis(dy).colwise().sum();
  }

 private:
  void set_bias(Tensor<T> bias) {
    bias_ = std::move(bias);
    bias_gradient_ = Tensor<T>(bias_.shape());
  }

  Tensor<T> weights_;
  Tensor<T> weights_gradient_;
  Tensor<T> bias_;
  Tensor<T> bias_gradient_;
};

}  // namespace network
