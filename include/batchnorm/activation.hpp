// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include <batchnorm/cpu/vec.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm {

// An activation is a policy with one member,
//
//   template <class V> V operator()(const V& z) const;
//
// where V is a vector of float or double (cpu/vec.hpp) with + - * and comparisons, always inlined into the kernels. It sees
// the normalised value before its one rounding to T. Another activation is another such class, nothing else changes.

/// y = z
struct Identity {
  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return z;
  }
};

/// y = max(z, 0); 0 for -0, NaN for NaN.
struct Relu {
  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return select(z <= V::zero(), V::zero(), z);
  }
};

/// y = z for z >= 0, slope * z below; NaN for NaN.
struct LeakyRelu {
  double slope = 0.01;

  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return select(z < V::zero(), z * V::broadcast(static_cast<typename V::scalar>(slope)), z);
  }
};

/// y = activation(z + residual). The residual has the shape of y; it may be y itself.
template <Element T, class Activation = Identity>
struct AddResidual {
  TensorView<const T> residual;
  Activation activation{};
};

template <class A>
concept Activation = requires(const A& activation, const cpu::vec<float, 16>& z) {
  { activation(z) } -> std::same_as<cpu::vec<float, 16>>;
};

namespace detail {

/// An epilogue taken apart: an activation, and a residual that may be absent.
template <class E>
struct EpilogueParts {
  using Activation = E;
  static constexpr bool adds_residual = false;
  static const E& activation(const E& epilogue) noexcept { return epilogue; }
};

template <class T, class A>
struct EpilogueParts<AddResidual<T, A>> {
  using Activation = A;
  static constexpr bool adds_residual = true;
  static const A& activation(const AddResidual<T, A>& epilogue) noexcept { return epilogue.activation; }
};

template <class E, class T>
struct IsEpilogue : std::bool_constant<Activation<E>> {};
template <class T, class A>
struct IsEpilogue<AddResidual<T, A>, T> : std::bool_constant<Activation<A>> {};

}  // namespace detail

/// What `normalize` does after scale and bias: an activation, or AddResidual with one.
template <class E, class T>
concept Epilogue = detail::IsEpilogue<E, T>::value;

}  // namespace batchnorm
