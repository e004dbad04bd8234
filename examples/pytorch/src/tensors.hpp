// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <type_traits>

#include <batchnorm/batchnorm.hpp>

namespace batchnorm_torch {

/// The tensor that may be absent: undefined then, as at::native names it.
inline const at::Tensor& or_undefined(const std::optional<at::Tensor>& tensor) {
  static const at::Tensor undefined;
  return tensor ? *tensor : undefined;
}

template <class T>
constexpr at::ScalarType scalar_type() {
  if constexpr (std::is_same_v<T, float>) return at::kFloat;
  if constexpr (std::is_same_v<T, double>) return at::kDouble;
  if constexpr (std::is_same_v<T, batchnorm::half>) return at::kHalf;
  if constexpr (std::is_same_v<T, batchnorm::bfloat16>) return at::kBFloat16;
}

/// Calls with_type.operator()<T>() for the element type T of a tensor that is_batch() accepts.
template <class F>
auto dispatch(at::ScalarType type, F&& with_type) {
  switch (type) {
    case at::kDouble: return with_type.template operator()<double>();
    case at::kHalf: return with_type.template operator()<batchnorm::half>();
    case at::kBFloat16: return with_type.template operator()<batchnorm::bfloat16>();
    default: return with_type.template operator()<float>();
  }
}

/// Extents and strides as PyTorch has them: channels are axis 1 in every memory format, and where they are the innermost in
/// memory, the strides say so. An undefined tensor is an absent argument.
template <class T>
batchnorm::TensorView<T> view(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  batchnorm::Strides strides{};
  for (std::size_t axis = 0; axis < tensor.strides().size(); ++axis) strides[axis] = tensor.strides()[axis];
  const batchnorm::Shape shape(std::span(tensor.sizes().data(), tensor.sizes().size()));
  if constexpr (std::is_const_v<T>) {
    return {static_cast<T*>(tensor.const_data_ptr()), shape, strides};
  } else {
    return {static_cast<T*>(tensor.mutable_data_ptr()), shape, strides};
  }
}

/// A batch on the CPU that the kernels can take: one of the four types, rank 2 to 5, not empty.
bool is_batch(const at::Tensor& x);

/// Values per channel.
inline std::int64_t values(const at::Tensor& x) { return x.numel() / x.size(1); }

/// The type that the parameters beside x share, those that are defined: of x if there are none; nothing where they differ, or
/// where PyTorch does not take them beside x.
std::optional<at::ScalarType> parameter_type(const at::Tensor& x, std::initializer_list<const at::Tensor*> parameters);

/// A dense vector of one value per channel of x.
bool is_channel_vector(const at::Tensor& x, const at::Tensor& vector);

/// The same where it is defined.
inline bool is_optional_channel_vector(const at::Tensor& x, const at::Tensor& vector) {
  return !vector.defined() || is_channel_vector(x, vector);
}

/// The format in which PyTorch's own kernels write a tensor like x: that of x where x is dense, the first of several that fit;
/// otherwise the one that its strides suggest.
at::MemoryFormat format_like(const at::Tensor& x);

/// The same for the gradient, where dy may be laid out otherwise.
at::MemoryFormat format_like(const at::Tensor& x, const at::Tensor& dy);

/// The tensor itself where kernels that write the dense `memory_format` can read it in place, slices of a larger tensor
/// included; otherwise a copy in that format.
at::Tensor in_format(const at::Tensor& tensor, at::MemoryFormat memory_format);

}  // namespace batchnorm_torch
