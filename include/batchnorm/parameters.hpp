// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What one layer learns and keeps.

#include <algorithm>
#include <cstdint>

#include <batchnorm/tensor.hpp>

namespace batchnorm {

/// What one batch-normalization layer learns and keeps, owned. Its tensors go straight into the operator's calls:
///
///     Parameters<float> layer(64);
///     auto outputs = training(x, layer.scale, layer.bias, layer.mean, layer.variance);
///     ++layer.batches;
///
/// Copies and moves as its tensors do. checkpoint.hpp writes it to files and reads it from there.
template <Element P>
struct Parameters {
  Tensor<P> scale;           ///< [C] learnt, 1 at first
  Tensor<P> bias;            ///< [C] learnt, 0 at first
  Tensor<P> mean;            ///< [C] running mean, 0 at first
  Tensor<P> variance;        ///< [C] running variance, 1 at first
  std::int64_t batches = 0;  ///< batches that the running statistics have seen; counted by the caller, the operator keeps none

  /// A layer that has seen nothing, of C >= 0 channels.
  /// @throws ShapeError   C is negative
  /// @throws std::bad_alloc
  explicit Parameters(std::int64_t channels)
      : scale(Shape{channels}), bias(Shape{channels}), mean(Shape{channels}), variance(Shape{channels}) {
    reset();
  }

  std::int64_t channels() const noexcept { return scale.size(); }  ///< C

  /// Everything as it was at first: what is learnt, the running statistics and their count.
  void reset() noexcept {
    std::ranges::fill(scale, P(1));
    std::ranges::fill(bias, P(0));
    reset_statistics();
  }

  /// The running statistics and their count as they were at first; scale and bias stay.
  void reset_statistics() noexcept {
    std::ranges::fill(mean, P(0));
    std::ranges::fill(variance, P(1));
    batches = 0;
  }
};

}  // namespace batchnorm
