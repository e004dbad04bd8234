// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The arguments and outputs of calls by name, since several tensors of a call have one type:
///
///     norm({.x = x, .scale = scale, .bias = bias, .mean = mean, .variance = variance}, {.output_x = y});
///
/// These are views: what they are made from must live as long as they are used, so name no temporary in one that you keep.

#include <cstdint>

#include <batchnorm/element.hpp>
#include <batchnorm/statistic_view.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm {

/// What the operator reads; BatchNorm says what each is.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct InputViews {
  TensorView<const T> x;        ///< [N, C, spatial...] or [N, spatial..., C]
  TensorView<const P> scale{};  ///< [C], may be absent (1)
  TensorView<const P> bias{};   ///< [C], may be absent (0)
  StatisticView<P> mean{};      ///< [C] the running mean: read in inference, updated in training
  StatisticView<P> variance{};  ///< [C] the running variance, likewise
};

/// The caller's buffers for the five outputs; each but output_x may be absent.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct OutputViews {
  TensorView<T> output_x;           ///< may be x itself
  TensorView<P> batch_mean{};       ///< [C] training: batch mean; inference: copy of mean
  TensorView<P> batch_variance{};   ///< [C] training: biased batch variance; inference: copy of variance
  TensorView<P> reserve_space_1{};  ///< [C] what the gradient needs: the same mean
  TensorView<P> reserve_space_2{};  ///< [C] what the gradient needs: the same variance
  TensorView<std::uint8_t> mask{};  ///< [mask_bytes(shape of x)] which elements pass the activation, for backward
};

/// The parameters of an inference, each [C].
template <Element P>
struct InferenceParameters {
  TensorView<const P> scale{};     ///< may be absent: 1
  TensorView<const P> bias{};      ///< may be absent: 0
  TensorView<const P> mean{};      ///< the running mean
  TensorView<const P> variance{};  ///< the running variance
};

/// What gradients are computed from; batch_norm_backward() says what each is.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct GradientInputViews {
  TensorView<const T> dy;          ///< the shape of x
  TensorView<const T> x;           ///< [N, C, spatial...] or [N, spatial..., C]
  TensorView<const P> scale{};     ///< [C], may be absent (1)
  TensorView<const P> mean{};      ///< [C] training: reserve_space_1; inference: the running mean
  TensorView<const P> variance{};  ///< [C] training: reserve_space_2; inference: the running variance
};

/// The caller's buffers for the gradients. Each may be absent; what is absent is not computed.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct GradientViews {
  TensorView<T> dx{};      ///< the shape of x; may be dy itself
  TensorView<P> dscale{};  ///< [C]
  TensorView<P> dbias{};   ///< [C]

  /// The shape of x: the gradient of a residual that was added before the activation; may be dy itself.
  TensorView<T> dresidual{};
};

/// What double gradients are computed from; batch_norm_double_backward() says what each is.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct DoubleGradientInputViews {
  TensorView<const T> dy;          ///< the shape of x
  TensorView<const T> x;           ///< [N, C, spatial...] or [N, spatial..., C]
  TensorView<const P> scale{};     ///< [C], may be absent (1)
  TensorView<const P> mean{};      ///< [C] training: reserve_space_1; inference: the running mean
  TensorView<const P> variance{};  ///< [C] training: reserve_space_2; inference: the running variance
  TensorView<const T> ddx{};       ///< the shape of x, may be absent (0)
  TensorView<const P> ddscale{};   ///< [C], may be absent (0)
  TensorView<const P> ddbias{};    ///< [C], may be absent (0)
};

/// The caller's buffers for the gradients of a scalar that depends on the gradients of the operator. Each may be absent; what
/// is absent is not computed.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct DoubleGradientViews {
  TensorView<T> dx{};      ///< the shape of x
  TensorView<T> ddy{};     ///< the shape of x
  TensorView<P> dscale{};  ///< [C]
};

}  // namespace batchnorm
