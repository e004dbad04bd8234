// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/parameters.hpp>

#include "activations.hpp"
#include "layer.hpp"

namespace network {

/// What batch normalization layers of all activations have in common.
template <class T>
class Normalization : public Layer<T> {
 public:
  explicit Normalization(std::int64_t channels)
      : learnt_(channels),
        dscale_(Shape{channels}),
        dbias_(Shape{channels}),
        saved_mean_(Shape{channels}),
        saved_variance_(Shape{channels}) {}

  /// Scale, bias and the running statistics.
  const batchnorm::Parameters<T>& learnt() const { return learnt_; }
  double epsilon() const { return inference_.options().epsilon; }

  /// The activation as a layer of its own; null where there is none.
  virtual std::unique_ptr<Layer<T>> activation() const = 0;

  std::vector<Parameter<T>> parameters() override {
    return {{elements(learnt_.scale), elements(dscale_)}, {elements(learnt_.bias), elements(dbias_)}};
  }

 protected:
  batchnorm::BatchNorm<T, batchnorm::Format::NHWC> inference_;
  batchnorm::Parameters<T> learnt_;
  Tensor<T> dscale_;
  Tensor<T> dbias_;
  Tensor<T> saved_mean_;
  Tensor<T> saved_variance_;
};

/// y = activation(scale * (x - mean) / sqrt(variance + epsilon) + bias), the channels on the last axis of x: one object over
/// the library's operator, with the parameters, their gradients and what the gradient needs from the forward pass. Of an
/// activation that is one bit per element. Operator is what trains: the library's for one process, or the one for several.
template <class T, class Activation = batchnorm::Identity, class Operator = batchnorm::BatchNorm<T, batchnorm::Format::NHWC>>
class BatchNormalization final : public Normalization<T> {
 public:
  explicit BatchNormalization(std::int64_t channels) : BatchNormalization(channels, Operator(true)) {}
  BatchNormalization(std::int64_t channels, const Operator& training) : Normalization<T>(channels), training_(training) {}

  std::unique_ptr<Layer<T>> clone() const override { return std::make_unique<BatchNormalization>(*this); }
  std::unique_ptr<Layer<T>> activation() const override {
    if constexpr (has_activation) return std::make_unique<Relu<T>>();
    return nullptr;
  }

  void forward(const Tensor<T>& x, Tensor<T>& y, Mode mode) override {
    auto& [scale, bias, mean, variance, batches] = this->learnt_;
    if (mode == Mode::inference) {
      this->inference_(x, scale, bias, mean, variance, {.output_x = y}, Activation{});
      return;
    }
    ++batches;
    batchnorm::OutputViews<T, T> out{
        .output_x = y, .reserve_space_1 = this->saved_mean_, .reserve_space_2 = this->saved_variance_};
    if constexpr (has_activation) {
      mask_.resize(static_cast<std::size_t>(batchnorm::mask_bytes(x.shape())));
      out.mask = mask_;
    }
    training_(x, scale, bias, mean, variance, out, Activation{});
  }

  void backward(const Tensor<T>& x, const Tensor<T>&, const Tensor<T>& dy, Tensor<T>* dx) override {
    batchnorm::GradientViews<T, T> out{.dscale = this->dscale_, .dbias = this->dbias_};
    if (dx != nullptr) out.dx = *dx;
    const auto backward_through = [&](const auto& through) {
      training_.backward(dy, x, this->learnt_.scale, this->saved_mean_, this->saved_variance_, out, through);
    };
    if constexpr (has_activation) {
      backward_through(batchnorm::ThroughMask<Activation>{mask_});
    } else {
      backward_through(batchnorm::Identity{});
    }
  }

 private:
  static constexpr bool has_activation = std::is_same_v<Activation, batchnorm::Relu>;
  static_assert(has_activation || std::is_same_v<Activation, batchnorm::Identity>);

  Operator training_;
  std::vector<std::uint8_t> mask_;
};

}  // namespace network
