// SPDX-License-Identifier: MIT
#pragma once

#include "layer.hpp"
#include "matrix.hpp"

namespace network {

/// y = 1 / (1 + exp(-x))
template <class T>
class Sigmoid final : public Layer<T> {
 public:
  std::unique_ptr<Layer<T>> clone() const override { return std::make_unique<Sigmoid>(*this); }
  void forward(const Tensor<T>& x, Tensor<T>& y, Mode) override { array(y) = array(x).logistic(); }
  void backward(const Tensor<T>&, const Tensor<T>& y, const Tensor<T>& dy, Tensor<T>* dx) override {
    if (dx != nullptr) array(*dx) = array(dy) * array(y) * (T(1) - array(y));
  }
};

/// y = max(x, 0), where no batch normalization stands before it to do this in passing.
template <class T>
class Relu final : public Layer<T> {
 public:
  std::unique_ptr<Layer<T>> clone() const override { return std::make_unique<Relu>(*this); }
  void forward(const Tensor<T>& x, Tensor<T>& y, Mode) override { array(y) = array(x).max(T(0)); }
  void backward(const Tensor<T>&, const Tensor<T>& y, const Tensor<T>& dy, Tensor<T>* dx) override {
    if (dx != nullptr) array(*dx) = (array(y) > T(0)).select(array(dy), T(0));
  }
};

}  // namespace network
