// SPDX-License-Identifier: MIT
#pragma once

// Eigen's matrices, arrays and tensors. The one header that includes Eigen's tensors: the component eigen of the package.

#include <type_traits>
#include <utility>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <batchnorm/tensor.hpp>

namespace batchnorm {

namespace detail {

template <class M>
concept EigenDense = std::is_base_of_v<Eigen::DenseBase<M>, M> &&((M::Flags & Eigen::DirectAccessBit) != 0);
template <class M>
concept EigenTensor = std::is_base_of_v<Eigen::TensorBase<M, Eigen::ReadOnlyAccessors>, M> && requires(M& m) {
  m.data();
  m.dimensions();
  M::Layout;
  M::NumIndices;
};

/// Whether M has memory of its own, which a view of a temporary would outlive.
template <class M>
inline constexpr bool owns_elements = false;
template <class Scalar, int Rows, int Columns, int Options, int MaxRows, int MaxColumns>
inline constexpr bool owns_elements<Eigen::Matrix<Scalar, Rows, Columns, Options, MaxRows, MaxColumns>> = true;
template <class Scalar, int Rows, int Columns, int Options, int MaxRows, int MaxColumns>
inline constexpr bool owns_elements<Eigen::Array<Scalar, Rows, Columns, Options, MaxRows, MaxColumns>> = true;
template <class Matrix, int Options, class Stride>
inline constexpr bool owns_elements<Eigen::Ref<const Matrix, Options, Stride>> = true;  // the value of an expression
template <class Scalar, int Rank, int Options, class Index>
inline constexpr bool owns_elements<Eigen::Tensor<Scalar, Rank, Options, Index>> = true;
template <class Scalar, class Dimensions, int Options, class Index>
inline constexpr bool owns_elements<Eigen::TensorFixedSize<Scalar, Dimensions, Options, Index>> = true;

/// As a parameter type M&& binds to a variable, or to a temporary that only points to elements.
template <class M>
concept Viewable = std::is_lvalue_reference_v<M> || !owns_elements<std::remove_const_t<M>>;

template <class M>
using pointee_of = std::remove_pointer_t<decltype(std::declval<M&>().data())>;

}  // namespace detail

/// A matrix, an array, a Map, Ref or Block of one, row or column major, as it lies in memory: rows are the batch, columns the
/// channels, so shape [rows, columns]; one that is a vector at compile time has shape [size]. An expression that has no memory
/// (a + b, a.transpose() * b) does not fit: evaluate it first. TensorView<const T> where the elements are const.
template <class M>
  requires detail::EigenDense<std::remove_cvref_t<M>> && detail::Viewable<M> && Element<typename std::remove_cvref_t<M>::Scalar>
      TensorView<detail::pointee_of<M>> view_of(M&& matrix) {
    using Matrix = std::remove_cvref_t<M>;
    if constexpr (Matrix::IsVectorAtCompileTime) {
      return {matrix.data(), Shape{matrix.size()}, Strides{matrix.innerStride()}};
    } else {
      return {matrix.data(), Shape{matrix.rows(), matrix.cols()}, Strides{matrix.rowStride(), matrix.colStride()}};
    }
  }

/// A Tensor, TensorFixedSize or TensorMap with the same indices: element (i, j, ...) of the one is that of the other. A tensor
/// of rank 3 and more that is column major, Eigen's default, is neither NCHW nor NHWC in memory, and batch normalization
/// refuses it by its strides; declare it Eigen::RowMajor, or give `reversed_view_of` the tensor with the axes in reverse.
/// @throws ShapeError   more than Shape::max_rank axes
template <class M>
  requires detail::EigenTensor<std::remove_cvref_t<M>> && detail::Viewable<M> &&
      Element<typename std::remove_cvref_t<M>::Scalar>
          TensorView<detail::pointee_of<M>> view_of(M&& tensor) {
    using Tensor = std::remove_cvref_t<M>;
    constexpr int rank = Tensor::NumIndices;
    static_assert(rank <= Shape::max_rank, "batchnorm::view_of: the tensor has more axes than a Shape");
    std::array<std::int64_t, Shape::max_rank> extents{};
    const auto& dimensions = tensor.dimensions();
    [&]<std::size_t... axis>(std::index_sequence<axis...>) {
      ((extents[axis] = static_cast<std::int64_t>(dimensions[axis])), ...);
    }
    (std::make_index_sequence<static_cast<std::size_t>(rank)>());
    const Shape shape(std::span<const std::int64_t>(extents).first(rank));
    if constexpr (static_cast<int>(Tensor::Layout) == static_cast<int>(Eigen::RowMajor)) {
      return {tensor.data(), shape};
    } else {
      Strides strides{};
      std::uint64_t stride = 1;  // unsigned: a product that overflows is refused later, by element_count
      for (int axis = 0; axis < rank; ++axis) {
        strides[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(stride);
        stride *= static_cast<std::uint64_t>(shape[axis]);
      }
      return {tensor.data(), shape, strides};
    }
  }

/// A tensor with its axes in reverse: a column-major one of dimensions (W, H, C, N) is the dense [N, C, H, W], one of
/// dimensions (C, W, H, N) the dense [N, H, W, C].
template <class M>
  requires detail::EigenTensor<std::remove_cvref_t<M>> && detail::Viewable<M> &&
      Element<typename std::remove_cvref_t<M>::Scalar>
          TensorView<detail::pointee_of<M>> reversed_view_of(M&& tensor) {
    const auto view = view_of(tensor);
    const int rank = view.shape().rank();
    std::array<std::int64_t, Shape::max_rank> extents{};
    Strides strides{};
    for (int axis = 0; axis < rank; ++axis) {
      const auto to = static_cast<std::size_t>(rank - 1 - axis);
      extents[to] = view.shape()[axis];
      strides[to] = view.strides()[static_cast<std::size_t>(axis)];
    }
    return {view.data(), Shape(std::span<const std::int64_t>(extents).first(static_cast<std::size_t>(rank))), strides};
  }

}  // namespace batchnorm
