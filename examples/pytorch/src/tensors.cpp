// SPDX-License-Identifier: MIT
#include "tensors.hpp"

#include <ATen/TensorUtils.h>
#include <ATen/core/DimVector.h>

namespace batchnorm_torch {
namespace {

bool is_reduced(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

/// Planes whose values lie next to each other, at any distance.
bool is_in_planes(const at::Tensor& x) {
  const auto strides =
      at::detail::computeStride(x.sizes(), x.strides(), at::DimVector{x.size(0), x.size(1), values(x) / x.size(0)});
  return strides && ((*strides)[2] == 1 || values(x) == x.size(0));
}

/// Rows of channels that lie next to each other, at one distance.
bool is_in_rows(const at::Tensor& x) {
  const at::Tensor last = x.movedim(1, -1);
  const auto strides = at::detail::computeStride(last.sizes(), last.strides(), at::DimVector{values(x), x.size(1)});
  return strides && ((*strides)[1] == 1 || x.size(1) == 1);
}

}  // namespace

bool is_batch(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  return x.device().is_cpu() && x.layout() == at::kStrided && (type == at::kFloat || type == at::kDouble || is_reduced(type)) &&
         x.dim() >= 2 && x.dim() <= 5 && x.numel() > 0;
}

std::optional<at::ScalarType> parameter_type(const at::Tensor& x, std::initializer_list<const at::Tensor*> parameters) {
  std::optional<at::ScalarType> type;
  for (const at::Tensor* parameter : parameters) {
    if (!parameter->defined()) continue;
    if (type.value_or(parameter->scalar_type()) != parameter->scalar_type()) return std::nullopt;
    type = parameter->scalar_type();
  }
  const at::ScalarType element = x.scalar_type();
  if (!type) return element;
  return type == element || (type == at::kFloat && is_reduced(element)) ? type : std::nullopt;
}

bool is_channel_vector(const at::Tensor& x, const at::Tensor& vector) {
  return vector.defined() && vector.device().is_cpu() && vector.layout() == at::kStrided && vector.dim() == 1 &&
         vector.size(0) == x.size(1) && vector.is_contiguous();
}

at::Tensor in_format(const at::Tensor& tensor, at::MemoryFormat memory_format) {
  if (tensor.is_contiguous(memory_format)) return tensor;
  const bool rows = tensor.dim() == 2 || memory_format != at::MemoryFormat::Contiguous;
  return (rows ? is_in_rows(tensor) : is_in_planes(tensor)) ? tensor : tensor.contiguous(memory_format);
}

}  // namespace batchnorm_torch
