// SPDX-License-Identifier: MIT
#pragma once

#include "weighted.hpp"

namespace network {

/// y = x W + b, for x of shape [N, ...] as N rows; y is [N, outputs].
template <class T>
class Linear final : public Weighted<T> {
 public:
  Linear(std::int64_t inputs, std::int64_t outputs, Bias bias, double deviation, Random& random)
      : Weighted<T>(Shape{inputs, outputs}, bias, deviation, random) {}

  std::unique_ptr<Layer<T>> clone() const override { return std::make_unique<Linear>(*this); }

  Shape output_shape(const Shape& x) const override { return {x[0], this->outputs()}; }

  void forward(const Tensor<T>& x, Tensor<T>& y, Mode) override {
    auto rows = by_first_axis(y);
    rows.noalias() = by_first_axis(x) * this->weights_matrix();
    this->add_bias(rows);
  }

  void backward(const Tensor<T>& x, const Tensor<T>&, const Tensor<T>& dy, Tensor<T>* dx) override {
    const auto dy_rows = by_first_axis(dy);
    this->weights_gradient().noalias() = by_first_axis(x).transpose() * dy_rows;
    this->find_bias_gradient(dy);
    if (dx != nullptr) by_first_axis(*dx).noalias() = dy_rows * this->weights_matrix().transpose();
  }
};

}  // namespace network
