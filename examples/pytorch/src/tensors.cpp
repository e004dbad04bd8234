// SPDX-License-Identifier: MIT
#include "tensors.hpp"

#include <ATen/TensorUtils.h>
#include <ATen/core/DimVector.h>

namespace batchnorm_torch {
namespace {

bool is_reduced(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

/// Axes merged into `shape`: the strides of that view, or nothing where a copy were needed.
std::optional<at::DimVector> strides_as(const at::Tensor& x, const at::DimVector& shape) {
  return at::detail::computeStride(x.sizes(), x.strides(), shape);
}

/// Each channel of an image is a run of adjacent values; the runs lie anywhere.
bool is_in_planes(const at::Tensor& x) {
  if (x.dim() == 2) return x.size(0) == 1 || x.stride(0) == 1;
  const std::int64_t positions = values(x) / x.size(0);
  const auto strides = strides_as(x, {x.size(0), x.size(1), positions});
  return strides && (positions == 1 || strides->back() == 1);
}

/// The channels of each position are a run of adjacent values; the runs lie at one distance.
bool is_in_rows(const at::Tensor& x) {
  const auto strides = strides_as(x.movedim(1, -1), {values(x), x.size(1)});
  return strides && strides->back() == 1;
}

/// The dense format that x has, if any.
std::optional<at::MemoryFormat> dense_format(const at::Tensor& x) {
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast3d, at::MemoryFormat::ChannelsLast}) {
    if (x.is_contiguous(format)) return format;
  }
  return std::nullopt;
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

at::MemoryFormat format_like(const at::Tensor& x) { return dense_format(x).value_or(x.suggest_memory_format()); }

at::MemoryFormat format_like(const at::Tensor& x, const at::Tensor& dy) {
  const at::MemoryFormat suggested = x.suggest_memory_format();
  return dense_format(dy) && dy.suggest_memory_format() == suggested ? format_like(x) : suggested;
}

at::Tensor in_format(const at::Tensor& tensor, at::MemoryFormat memory_format) {
  if (tensor.is_contiguous(memory_format)) return tensor;
  // A single channel has no rows.
  const bool rows = tensor.size(1) != 1 && (memory_format != at::MemoryFormat::Contiguous || values(tensor) == tensor.size(0));
  return (rows ? is_in_rows(tensor) : is_in_planes(tensor)) ? tensor : tensor.contiguous(memory_format);
}

}  // namespace batchnorm_torch
