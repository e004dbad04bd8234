// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Running statistics as arguments: constant or not.

#include <concepts>
#include <cstddef>
#include <utility>

#include <batchnorm/tensor.hpp>

namespace batchnorm {

/// A running mean or variance that somebody else owns. It is made from whatever a TensorView<P> is made from, and from the same
/// where its elements are const. Training writes to running statistics, so it refuses constants when it is called; inference
/// takes both.
template <class P>
class StatisticView {
 public:
  /// Stands for an argument that is absent.
  StatisticView() = default;

  /// The same, so that a call may name it nullptr.
  StatisticView(std::nullptr_t) noexcept {}

  /// What a TensorView<P> is made of.
  template <class R>
    requires std::convertible_to<R, TensorView<P>> StatisticView(R&& from)
  noexcept(noexcept(TensorView<P>(std::forward<R>(from)))) : view_(std::forward<R>(from)) {}

  /// What only a TensorView<const P> is made of: a constant.
  template <class R>
    requires(!std::convertible_to<R, TensorView<P>> && std::convertible_to<R, TensorView<const P>>)
  StatisticView(R&& from)
  noexcept(noexcept(TensorView<const P>(std::forward<R>(from))))
      : StatisticView(constant, TensorView<const P>(std::forward<R>(from))) {}

  /// A dense vector.
  StatisticView(P* data, const Shape& shape) noexcept : view_(data, shape) {}

  /// The element of index i is data[i * strides[0]].
  StatisticView(P* data, const Shape& shape, const Strides& strides) noexcept : view_(data, shape, strides) {}

  /// A dense vector of the compiler's type of the same bits, constant or not.
  template <detail::SameBitsAs<const P> U>
  StatisticView(U* data, const Shape& shape) noexcept : StatisticView(data, shape, dense_strides(shape)) {}

  /// The same with strides.
  template <detail::SameBitsAs<const P> U>
  StatisticView(U* data, const Shape& shape, const Strides& strides) noexcept {
    if constexpr (std::is_const_v<U>) {
      *this = StatisticView(constant, TensorView<const P>(data, shape, strides));
    } else {
      view_ = TensorView<P>(data, shape, strides);
    }
  }

  /// A dense vector of constants.
  template <std::same_as<const P> Q>
  StatisticView(Q* data, const Shape& shape) noexcept : StatisticView(constant, TensorView<const P>(data, shape)) {}

  /// The same with strides.
  template <std::same_as<const P> Q>
  StatisticView(Q* data, const Shape& shape, const Strides& strides) noexcept
      : StatisticView(constant, TensorView<const P>(data, shape, strides)) {}

  /// False for a default-constructed view: the argument is absent.
  bool present() const noexcept { return view_.present(); }
  /// Whether training refuses it.
  bool is_constant() const noexcept { return is_constant_; }
  /// To read.
  TensorView<const P> values() const noexcept { return view_; }
  /// To write; absent where it is constant.
  TensorView<P> updated() const noexcept { return is_constant_ ? TensorView<P>() : view_; }

 private:
  struct Constant {};
  static constexpr Constant constant{};

  StatisticView(Constant, const TensorView<const P>& view) noexcept : is_constant_(view.present()) {
    if (view.present()) view_ = TensorView<P>(const_cast<P*>(view.data()), view.shape(), view.strides());
  }

  TensorView<P> view_;
  bool is_constant_ = false;
};

}  // namespace batchnorm
