// SPDX-License-Identifier: MIT
#pragma once

// std::mdspan and what has its interface: cuda::std::mdspan, Kokkos's reference implementation. Includes none of them.

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <batchnorm/tensor.hpp>

namespace batchnorm {

/// The interface of std::mdspan, as far as it is needed. Its elements are objects in memory: an accessor that computes them is
/// refused.
template <class M>
concept MdspanLike = requires(const M& m, typename M::rank_type axis) {
  { M::rank() } -> std::convertible_to<std::size_t>;
  { m.extent(axis) } -> std::convertible_to<std::int64_t>;
  { m.is_strided() } -> std::convertible_to<bool>;
  { m.data_handle() } -> std::convertible_to<typename M::element_type*>;
}
&&Element<std::remove_const_t<typename M::element_type>>&& std::same_as<typename M::reference, typename M::element_type&> &&
    (M::rank() > 0 && M::rank() <= static_cast<std::size_t>(Shape::max_rank));

/// The same elements with the same indices, in place: extents and strides are those of the mdspan, so that layout_left is not
/// transposed but read, or refused, as it lies in memory. TensorView<const T> for an mdspan of const T.
/// @throws ValueError   a layout without strides
template <MdspanLike M>
TensorView<typename M::element_type> view_of(const M& mdspan) {
  if (!mdspan.is_strided()) detail::fail<ValueError>("batchnorm::view_of: the layout of the mdspan has no strides");
  std::array<std::int64_t, Shape::max_rank> extents{};
  Strides strides{};
  for (std::size_t axis = 0; axis < M::rank(); ++axis) {
    const auto index = static_cast<typename M::rank_type>(axis);
    extents[axis] = static_cast<std::int64_t>(mdspan.extent(index));
    strides[axis] = static_cast<std::int64_t>(mdspan.stride(index));
  }
  return {mdspan.data_handle(), Shape(std::span<const std::int64_t>(extents).first(M::rank())), strides};
}

}  // namespace batchnorm
