// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace batchnorm_torch {

using Tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// The arguments of aten::native_batch_norm; an optional one that is absent is undefined.
struct Forward {
  const at::Tensor& x;
  const at::Tensor& weight;
  const at::Tensor& bias;
  const at::Tensor& running_mean;
  const at::Tensor& running_variance;
  bool training;
  double momentum;
  double epsilon;
};

/// The arguments of aten::native_batch_norm_backward.
struct Backward {
  const at::Tensor& dy;
  const at::Tensor& x;
  const at::Tensor& weight;
  const at::Tensor& running_mean;
  const at::Tensor& running_variance;
  const at::Tensor& saved_mean;
  const at::Tensor& saved_inverse_deviation;
  bool training;
  double epsilon;
  std::array<bool, 3> wanted;  ///< the gradients by x, weight and bias
};

/// y, and in training the batch mean and 1 / sqrt(variance + epsilon) of the batch, both empty in inference: what PyTorch's own
/// kernel returns, in its types and memory format. Updates the running statistics in place.
/// Nothing, and nothing written, where the kernels do not take these arguments: PyTorch's own says then what they mean.
std::optional<Tensors> forward(const Forward& call);

/// The gradients by x, weight and bias; one that is not wanted is undefined. Nothing where the kernels do not take these
/// arguments.
std::optional<Tensors> backward(const Backward& call);

}  // namespace batchnorm_torch
