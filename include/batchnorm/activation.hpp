// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <batchnorm/detail/numbers.hpp>
#include <batchnorm/element.hpp>
#include <batchnorm/plan/default_mode.hpp>
#include <batchnorm/tensor.hpp>
#include <batchnorm/vector/vec.hpp>

namespace batchnorm {

/// @file
/// Activations, the residual before them, and masks.
///
/// An activation is a policy with one member,
///
///   template <class V> V operator()(const V& z) const;
///
/// where V is a vector of float or double (vector/vec.hpp) of 16, 32 or 64 bytes, with + - * and comparisons. It sees the
/// normalised value before its one rounding to T. Kernels call it as a constant object, on several threads at once, and copy
/// it, often: a copy should cost little (a pointer to a table, not the table), and neither it nor the call may throw, which
/// would end the program. Nothing else is asked: no default constructor, no assignment. Mark it BATCHNORM_INLINE, so that it
/// runs on the instruction set of the kernel.
///
/// To be trained through, an activation of two linear pieces has two more,
///
///   template <class V> cpu::MaskOf<V> passes(const V& y) const;                            which piece, from y as rounded to T
///   template <class V> V gradient(const V& dy, const cpu::MaskOf<V>& passes) const;        dz from dy
///
/// and it may have more: `const char* problem() const`, null or why it cannot be trained through as it is;
/// `template <class V> V inverse(const V& y) const` with `double least_slope() const`, so that it can be undone (in_place.hpp);
/// and `template <class Scalar> A computed_in() const`, the activation with its constants rounded to the computing type, which
/// sums of double go by. Another activation is another such class, nothing else changes.

/// y = z
struct Identity {
  /// z
  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return z;
  }
};

/// y = max(z, 0); 0 for -0, NaN for NaN. dz = dy where y > 0 or y is NaN, else 0: at 0 the gradient is 0.
struct Relu {
  /// y from z.
  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return select(z <= V::zero(), V::zero(), z);
  }

  /// Where y > 0 or y is NaN.
  template <class V>
  BATCHNORM_INLINE cpu::MaskOf<V> passes(const V& y) const {
    return !(y <= V::zero());
  }

  /// dz from dy: dy where it passes, else 0.
  template <class V>
  BATCHNORM_INLINE V gradient(const V& dy, const cpu::MaskOf<V>& passes) const {
    return select(passes, dy, V::zero());
  }
};

/// y = z for z >= 0, slope * z below; NaN for NaN. dz = dy where y > 0 or y is NaN, else slope * dy; to be trained through,
/// slope must be at least 0 (otherwise y > 0 does not tell the piece).
struct LeakyRelu {
  double slope = 0.01;  ///< that of z < 0

  /// y from z.
  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return select(z < V::zero(), z * factor<V>(), z);
  }

  /// Where y > 0 or y is NaN.
  template <class V>
  BATCHNORM_INLINE cpu::MaskOf<V> passes(const V& y) const {
    return !(y <= V::zero());
  }

  /// dz from dy: dy where it passes, else slope * dy.
  template <class V>
  BATCHNORM_INLINE V gradient(const V& dy, const cpu::MaskOf<V>& passes) const {
    return select(passes, dy, dy * factor<V>());
  }

  /// z from y; the slope must be above 0.
  template <class V>
  BATCHNORM_INLINE V inverse(const V& y) const {
    return select(y < V::zero(), y / factor<V>(), y);
  }

  /// The least slope of z below 0; an activation with one above 0 can be undone (in_place.hpp).
  double least_slope() const noexcept { return slope; }

  /// Null, or why it cannot be trained through: a negative slope, or one that is NaN.
  const char* problem() const noexcept { return detail::is_from_0(slope) ? nullptr : "its slope must be at least 0"; }

  /// The same with the slope rounded to the computing type, float or double.
  template <class Scalar>
  LeakyRelu computed_in() const noexcept {
    double rounded = slope;
    cpu::in_default_mode([&] { rounded = static_cast<double>(static_cast<Scalar>(slope)); });
    return {rounded};
  }

 private:
  template <class V>
  BATCHNORM_INLINE V factor() const {
    return V::broadcast(static_cast<typename V::scalar>(slope));
  }
};

/// y = activation(z + residual). The residual has the shape of y; it may be y itself.
template <Element T, class Activation = Identity>
struct AddResidual {
  TensorView<const T> residual;  ///< shape of y
  Activation activation{};       ///< of the sum
};

namespace detail {

template <class A, class V>
concept MapsVector = requires(const A& activation, const V& z) {
  { activation(z) } -> std::same_as<V>;
};

template <class A, class V>
concept PassesVector = requires(const A& activation, const V& y, const cpu::MaskOf<V>& passes) {
  { activation.passes(y) } -> std::same_as<cpu::MaskOf<V>>;
  { activation.gradient(y, passes) } -> std::same_as<V>;
};

}  // namespace detail

/// What is applied to each value after scale and bias: an object that can be copied, with a call operator, const, from vectors
/// of float and of double of each width to vectors of the same type.
template <class A>
concept Activation =
    std::copy_constructible<A> && detail::MapsVector<A, cpu::vec<float, 16>> && detail::MapsVector<A, cpu::vec<float, 32>> &&
    detail::MapsVector<A, cpu::vec<float, 64>> && detail::MapsVector<A, cpu::vec<double, 16>> &&
    detail::MapsVector<A, cpu::vec<double, 32>> && detail::MapsVector<A, cpu::vec<double, 64>>;

/// An activation that gradients pass through: one with `passes` and `gradient`, const, for the same vectors.
template <class A>
concept DifferentiableActivation =
    Activation<A> && detail::PassesVector<A, cpu::vec<float, 16>> && detail::PassesVector<A, cpu::vec<float, 32>> &&
    detail::PassesVector<A, cpu::vec<float, 64>> && detail::PassesVector<A, cpu::vec<double, 16>> &&
    detail::PassesVector<A, cpu::vec<double, 32>> && detail::PassesVector<A, cpu::vec<double, 64>>;

/// Bytes of the mask that training stores of a tensor of that shape: 1 bit per element. Bit i % 8, counted from the least, of
/// byte i / 8 is set where element i passes the activation (NumPy: packbits(y > 0, bitorder="little")). Bits after the last
/// element are 0. The elements come in the memory order of a dense tensor laid out like x: where the channels of a position lie
/// next to each other, [N, spatial..., C]; where the values along the last spatial axis do, [N, C, spatial...], or
/// [C, N, spatial...] where x has the channels outside of the batch in memory. Neither gaps nor the format change that order; N
/// and the spatial axes keep the order of the shape.
/// @throws ShapeError   negative extent or overflow
inline std::int64_t mask_bytes(const Shape& shape) {
  const std::int64_t elements = element_count(shape);
  return elements / 8 + (elements % 8 != 0 ? 1 : 0);
}

/// To backward: dy passes the activation where the mask of the forward pass says so. x must lie in memory as it did there: its
/// layout determines the order of the mask.
template <DifferentiableActivation A>
struct ThroughMask {
  TensorView<const std::uint8_t> mask;  ///< [mask_bytes(shape of x)]
  A activation{};                       ///< that of the forward pass
};

/// To backward: dy comes through the activation, whose pieces follow from y: no mask is stored, y is read once more.
template <Element T, DifferentiableActivation A>
struct ThroughOutput {
  TensorView<const T> y;  ///< shape of x
  A activation{};         ///< that of the forward pass
};

namespace detail {

/// Null, or what keeps gradients from passing an activation.
template <class A>
const char* problem_of(const A& activation) noexcept {
  if constexpr (requires { activation.problem(); }) return activation.problem();
  return nullptr;
}

/// The activation as it is computed in Scalar.
template <class Scalar, class A>
A computed_in(const A& activation) noexcept {
  if constexpr (requires { activation.template computed_in<Scalar>(); }) return activation.template computed_in<Scalar>();
  return activation;
}

/// How dy passes ReLU and leaky ReLU, one type for both: kernels are compiled once. dz = dy where it passes, else
/// slope * dy; or 0, whatever dy is, with keeps = 0.
struct TwoPieces {
  double slope = 0;
  double keeps = 0;

  template <class V>
  BATCHNORM_INLINE cpu::MaskOf<V> passes(const V& y) const {
    return !(y <= V::zero());
  }
  template <class V>
  BATCHNORM_INLINE V gradient(const V& dy, const cpu::MaskOf<V>& passes) const {
    const V below = dy * V::broadcast(static_cast<typename V::scalar>(slope));
    const V kept = V::broadcast(static_cast<typename V::scalar>(keeps));
    return select(passes, dy, select(V::zero() < kept, below, V::zero()));
  }
};

inline TwoPieces pieces_of(const Relu&) noexcept { return {0, 0}; }
inline TwoPieces pieces_of(const LeakyRelu& activation) noexcept { return {activation.slope, 1}; }
template <class A>
const A& pieces_of(const A& activation) noexcept {
  return activation;
}

/// The type of that.
template <class A>
using PiecesOf = std::remove_cvref_t<decltype(pieces_of(std::declval<const A&>()))>;

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

/// Whether a residual, where there is one, has the type of x.
template <class E, class T>
inline constexpr bool residual_fits = true;
template <class U, class A, class T>
inline constexpr bool residual_fits<AddResidual<U, A>, T> = std::same_as<U, T>;

}  // namespace detail

/// What `normalize` does after scale and bias: an activation, or AddResidual with one and a residual of the type of x.
template <class E, class T>
concept Epilogue = detail::residual_fits<E, T> && Activation<typename detail::EpilogueParts<E>::Activation>;

}  // namespace batchnorm
