// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <span>
#include <vector>

#include <batchnorm/tensor.hpp>

namespace network {

using batchnorm::Shape;
using batchnorm::Tensor;

/// Whether a layer learns from the batch, or serves with what it has learnt.
enum class Mode { training, inference };

/// Numbers that training moves, and the loss's gradient with respect to them.
template <class T>
struct Parameter {
  std::span<T> values;
  std::span<const T> gradient;
};

/// One step of a network. It owns its parameters and their gradients; the network owns the values between the layers, x and y,
/// of shape [N, ...], and hands them in.
template <class T>
class Layer {
 public:
  virtual ~Layer() = default;
  virtual std::unique_ptr<Layer> clone() const = 0;

  virtual Shape output_shape(const Shape& x) const { return x; }

  /// y = f(x). y has output_shape(x.shape()).
  virtual void forward(const Tensor<T>& x, Tensor<T>& y, Mode mode) = 0;

  /// The gradients of the parameters and, where dx is not null, of x. x and y are those of the latest forward() in training.
  virtual void backward(const Tensor<T>& x, const Tensor<T>& y, const Tensor<T>& dy, Tensor<T>* dx) = 0;

  virtual std::vector<Parameter<T>> parameters() { return {}; }

 protected:
  Layer() = default;
  Layer(const Layer&) = default;
  Layer& operator=(const Layer&) = default;
};

/// Gives a tensor another shape, and new memory only where the shape is another. The elements are not kept.
template <class T>
void reshape(Tensor<T>& tensor, const Shape& shape) {
  if (tensor.shape() != shape) tensor = Tensor<T>(shape);
}

template <class T>
std::span<T> elements(Tensor<T>& tensor) {
  return {tensor.data(), static_cast<std::size_t>(tensor.size())};
}

}  // namespace network
