// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The operator: BatchNorm, and batch_norm() for a format that is known only at run time.

#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include <batchnorm/activation.hpp>
#include <batchnorm/call/forward_arguments.hpp>
#include <batchnorm/check.hpp>
#include <batchnorm/executor.hpp>
#include <batchnorm/gradients.hpp>
#include <batchnorm/normalize.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/statistic_view.hpp>
#include <batchnorm/views.hpp>

namespace batchnorm {

/// The five outputs of the operator.
template <Element T, ParameterOf<T> P>
struct Outputs {
  Tensor<T> output_x;         ///< y, the shape of x
  Tensor<P> batch_mean;       ///< [C] training: batch mean; inference: copy of mean
  Tensor<P> batch_variance;   ///< [C] training: biased batch variance; inference: copy of variance
  Tensor<P> reserve_space_1;  ///< [C] what the gradient needs: the same mean
  Tensor<P> reserve_space_2;  ///< [C] what the gradient needs: the same variance (never an inverse deviation)
};

inline namespace BATCHNORM_KERNELS {
/// The operator with a format that is known only at run time; all else as in BatchNorm.
template <Element T, ParameterOf<T> P = parameter_t<T>, Epilogue<T> E = Identity>
void batch_norm(Format format, const Options& options, const InputViews<T, P>& in, const OutputViews<T, P>& out,
                const E& epilogue = {}, const CallOptions& call = {});

/// The same with arguments in their places.
template <Element T, ParameterOf<T> P = parameter_t<T>, Epilogue<T> E = Identity>
void batch_norm(Format format, const Options& options, std::type_identity_t<TensorView<const T>> x,
                std::type_identity_t<TensorView<const P>> scale, std::type_identity_t<TensorView<const P>> bias,
                std::type_identity_t<StatisticView<P>> mean, std::type_identity_t<StatisticView<P>> variance,
                const OutputViews<T, P>& out, const E& epilogue = {}, const CallOptions& call = {}) {
  batch_norm<T, P>(format, options, InputViews<T, P>{x, scale, bias, mean, variance}, out, epilogue, call);
}

/// The same with T from x and P = parameter_t<T>.
template <TensorLike X, Epilogue<element_of<X>> E = Identity>
void batch_norm(Format format, const Options& options, const X& x, TensorView<const parameter_t<element_of<X>>> scale,
                TensorView<const parameter_t<element_of<X>>> bias, StatisticView<parameter_t<element_of<X>>> mean,
                StatisticView<parameter_t<element_of<X>>> variance, const OutputViews<element_of<X>>& out,
                const E& epilogue = {}, const CallOptions& call = {}) {
  batch_norm<element_of<X>>(format, options, {x, scale, bias, mean, variance}, out, epilogue, call);
}

}  // namespace BATCHNORM_KERNELS

/// Batch normalization, with the meaning of mindspore.ops.BatchNorm:
///
///   y[n,c,s] = epilogue(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c])
///
///   x, y            NCHW: [N, C, spatial...], NHWC: [N, spatial..., C]; rank 2 to 5; rank 2 is [N, C] in both
///   scale, bias     [C], each may be absent (1 and 0)
///   mean, variance  [C], the running statistics. Inference normalises with them. Training normalises with the mean and the
///                   biased variance of the batch and updates them in place,
///                   running = (1 - momentum) * running + momentum * batch, the variance by default with the unbiased one;
///                   there they may be absent, both together. Constants serve inference alone.
///
/// y may be x itself, a residual may be y itself; nothing else may overlap. Statistics are carried in double. Reads x once
/// (twice where a channel does not fit the cache, and channels last), writes y once.
/// m == 1 value per channel: y == bias, running variance finite. Empty batch: outputs empty or zero, running statistics
/// untouched. A constant channel gives exactly bias. NaN and Inf stay within their channel.
/// Results do not depend on the number of threads, nor on the run, nor on any thread's floating-point mode, which stays as it
/// was (of a NaN they are NaN, with any sign and payload); between instruction sets they differ by rounding.
///
/// The operator is immutable: one object may be used by several threads at once. Its members are inlined, so that units with
/// other flags (vector/config.hpp) share the type and no code.
///
/// @throws ShapeError   rank or an extent does not fit; the message names the argument, what was expected and what was got
/// @throws ValueError   an option out of range, null or misaligned data, arguments that overlap, training with constant running
///                      statistics; BATCHNORM_ISA, BATCHNORM_NUM_THREADS or BATCHNORM_TUNING cannot be used
/// @throws std::bad_alloc
///
/// On every exception all outputs and running statistics are as they were.
template <Element T, Format F = Format::NCHW, ParameterOf<T> P = parameter_t<T>>
class BatchNorm {
 public:
  /// Inference unless is_training is true; the options that have no place here have their defaults.
  /// @throws ValueError   epsilon not in (0, 1] or momentum not in [0, 1]
  BATCHNORM_INLINE explicit BatchNorm(bool is_training = false, double epsilon = 1e-5, double momentum = 0.1)
      : BatchNorm(Options{.is_training = is_training, .epsilon = epsilon, .momentum = momentum}) {}

  /// With all options.
  /// @throws ValueError   epsilon not in (0, 1] or momentum not in [0, 1]
  BATCHNORM_INLINE explicit BatchNorm(const Options& options) : options_(options) {
    arguments::check_options("batchnorm::BatchNorm", options);
  }

  BatchNorm(std::floating_point auto, auto...) = delete;  ///< epsilon is not the first argument

  const Options& options() const noexcept { return options_; }  ///< those it was made with

  /// All five outputs, owned.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE Outputs<T, P> operator()(const InputViews<T, P>& in, const E& epilogue = {},
                                            const CallOptions& call = {}) const {
    const auto channels = arguments::channels_of(in.x, F, call);
    if (!channels) return {};
    Outputs<T, P> out{Tensor<T>(in.x.shape()), Tensor<P>({*channels}), Tensor<P>({*channels}), Tensor<P>({*channels}),
                      Tensor<P>({*channels})};
    (*this)(in, {out.output_x, out.batch_mean, out.batch_variance, out.reserve_space_1, out.reserve_space_2}, epilogue, call);
    if (arguments::has_stopped(call)) return {};
    return out;
  }

  /// All outputs that `out` names, into the caller's buffers.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE void operator()(const InputViews<T, P>& in, const OutputViews<T, P>& out, const E& epilogue = {},
                                   const CallOptions& call = {}) const {
    batch_norm<T, P>(F, options_, in, out, epilogue, call);
  }

  /// All five outputs, with the arguments of mindspore.ops.BatchNorm.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE Outputs<T, P> operator()(TensorView<const T> x, TensorView<const P> scale, TensorView<const P> bias,
                                            StatisticView<P> mean, StatisticView<P> variance, const E& epilogue = {},
                                            const CallOptions& call = {}) const {
    return (*this)(InputViews<T, P>{x, scale, bias, mean, variance}, epilogue, call);
  }

  /// All outputs that `out` names, with the arguments of mindspore.ops.BatchNorm.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE void operator()(TensorView<const T> x, TensorView<const P> scale, TensorView<const P> bias,
                                   StatisticView<P> mean, StatisticView<P> variance, const OutputViews<T, P>& out,
                                   const E& epilogue = {}, const CallOptions& call = {}) const {
    (*this)(InputViews<T, P>{x, scale, bias, mean, variance}, out, epilogue, call);
  }

  /// The short call: only y.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE Tensor<T> output_x(TensorView<const T> x, TensorView<const P> scale, TensorView<const P> bias,
                                      StatisticView<P> mean, StatisticView<P> variance, const E& epilogue = {},
                                      const CallOptions& call = {}) const {
    if (!arguments::channels_of(x, F, call)) return {};
    Tensor<T> y(x.shape());
    (*this)(InputViews<T, P>{x, scale, bias, mean, variance}, {.output_x = y}, epilogue, call);
    if (arguments::has_stopped(call)) return {};
    return y;
  }

  /// What is wrong with the same call, or nothing; no data is read or written.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE std::optional<Error> check(const InputViews<T, P>& in, const OutputViews<T, P>& out, const E& epilogue = {},
                                              const CallOptions& call = {}) const {
    std::optional<Error> error;
    (*this)(in, out, epilogue, arguments::checking(call, error));
    return error;
  }

  /// The gradients of y by x, scale and bias, owned: batch_norm_backward() says how. dy and x as in the forward pass, mean and
  /// variance its reserve_space_1 and _2:
  /// norm.backward({.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance}).
  template <GradientPath<T> G = Identity>
  BATCHNORM_INLINE Gradients<T, P> backward(const GradientInputViews<T, P>& in, const G& through = {},
                                            const CallOptions& call = {}) const {
    const auto channels = arguments::channels_of(in.x, F, call, "batchnorm::BatchNorm::backward");
    if (!channels) return {};
    Gradients<T, P> out{Tensor<T>(in.x.shape()), Tensor<P>({*channels}), Tensor<P>({*channels})};
    backward(in, {out.dx, out.dscale, out.dbias}, through, call);
    if (arguments::has_stopped(call)) return {};
    return out;
  }

  /// All gradients that `out` names, into the caller's buffers.
  template <GradientPath<T> G = Identity>
  BATCHNORM_INLINE void backward(const GradientInputViews<T, P>& in, const GradientViews<T, P>& out, const G& through = {},
                                 const CallOptions& call = {}) const {
    batch_norm_backward<T, P>(F, options_, in, out, through, call);
  }

  /// The gradients, owned, with arguments in their places: mind that dy and x are of one type, and so are scale, mean and
  /// variance.
  template <GradientPath<T> G = Identity>
  BATCHNORM_INLINE Gradients<T, P> backward(TensorView<const T> dy, TensorView<const T> x, TensorView<const P> scale,
                                            TensorView<const P> mean, TensorView<const P> variance, const G& through = {},
                                            const CallOptions& call = {}) const {
    return backward(GradientInputViews<T, P>{dy, x, scale, mean, variance}, through, call);
  }

  /// All gradients that `out` names, with arguments in their places.
  template <GradientPath<T> G = Identity>
  BATCHNORM_INLINE void backward(TensorView<const T> dy, TensorView<const T> x, TensorView<const P> scale,
                                 TensorView<const P> mean, TensorView<const P> variance, const GradientViews<T, P>& out,
                                 const G& through = {}, const CallOptions& call = {}) const {
    backward(GradientInputViews<T, P>{dy, x, scale, mean, variance}, out, through, call);
  }

  /// What is wrong with the same call of backward(), or nothing; no data is read or written.
  template <GradientPath<T> G = Identity>
  BATCHNORM_INLINE std::optional<Error> check_backward(const GradientInputViews<T, P>& in, const GradientViews<T, P>& out,
                                                       const G& through = {}, const CallOptions& call = {}) const {
    std::optional<Error> error;
    backward(in, out, through, arguments::checking(call, error));
    return error;
  }

  /// The gradients of sum(ddx * dx) + sum(ddscale * dscale) + sum(ddbias * dbias) by x, dy and scale, owned:
  /// batch_norm_double_backward() says how.
  BATCHNORM_INLINE DoubleGradients<T, P> double_backward(const DoubleGradientInputViews<T, P>& in,
                                                         const CallOptions& call = {}) const {
    const auto channels = arguments::channels_of(in.x, F, call, "batchnorm::BatchNorm::double_backward");
    if (!channels) return {};
    DoubleGradients<T, P> out{Tensor<T>(in.x.shape()), Tensor<T>(in.x.shape()), Tensor<P>({*channels})};
    double_backward(in, {out.dx, out.ddy, out.dscale}, call);
    if (arguments::has_stopped(call)) return {};
    return out;
  }

  /// All that `out` names, into the caller's buffers.
  BATCHNORM_INLINE void double_backward(const DoubleGradientInputViews<T, P>& in, const DoubleGradientViews<T, P>& out,
                                        const CallOptions& call = {}) const {
    batch_norm_double_backward<T, P>(F, options_, in, out, call);
  }

  /// What is wrong with the same call of double_backward(), or nothing; no data is read or written.
  BATCHNORM_INLINE std::optional<Error> check_double_backward(const DoubleGradientInputViews<T, P>& in,
                                                              const DoubleGradientViews<T, P>& out,
                                                              const CallOptions& call = {}) const {
    std::optional<Error> error;
    double_backward(in, out, arguments::checking(call, error));
    return error;
  }

 private:
  Options options_;
};

// ----------------------------------------------------------------------------------------------------------------------------

inline namespace BATCHNORM_KERNELS {

template <Element T, ParameterOf<T> P, Epilogue<T> E>
void batch_norm(Format format, const Options& options, const InputViews<T, P>& in, const OutputViews<T, P>& out,
                const E& epilogue, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::BatchNorm", call);
  arguments::check_options(reporter, options);
  arguments::with_mask_or_without<E>(reporter, out.mask.present(), [&](auto writes_mask) {
    arguments::ForwardArguments<decltype(writes_mask)::value, T, P, E> given(reporter, format, options, in, out, epilogue,
                                                                             call);
    if (!arguments::stops(reporter, call)) arguments::forward(given, options, call);
  });
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm

#if BATCHNORM_USES_COMPILED
#include <batchnorm/compiled/forward.hpp>
#endif
