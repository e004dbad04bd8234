// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Training that keeps one buffer instead of two: y in place of x, and gradients from y alone.

#include <cmath>
#include <limits>
#include <string>

#include <batchnorm/batch_norm.hpp>

namespace batchnorm {

namespace detail {

template <class A, class V>
concept InvertsVector = requires(const A& activation, const V& y) {
  { activation.inverse(y) } -> std::same_as<V>;
};

}  // namespace detail

/// An activation that can be undone: one with `inverse`, const, for the same vectors, and `least_slope`.
template <class A>
concept InvertibleActivation = DifferentiableActivation<A> && detail::InvertsVector<A, cpu::vec<float, 16>> &&
    detail::InvertsVector<A, cpu::vec<float, 32>> && detail::InvertsVector<A, cpu::vec<float, 64>> &&
    detail::InvertsVector<A, cpu::vec<double, 16>> && detail::InvertsVector<A, cpu::vec<double, 32>> &&
    detail::InvertsVector<A, cpu::vec<double, 64>> && requires(const A& activation) {
  { activation.least_slope() } -> std::convertible_to<double>;
};

/// Activated batch normalization that keeps one buffer for training: y takes the place of x, and backward recovers xh from y,
/// z = activation^-1(y), xh = (z - bias) / scale. Method: Rota Bulo, Porzi, Kontschieder, "In-place activated BatchNorm for
/// memory-optimized training of DNNs", 2018.
///
///   y = activation(scale * xh + bias)      xh = (x - mean) / sqrt(variance + epsilon)
///
/// What it costs: y was rounded, so the recovered xh is off by at most about 2 u (|xh| + |bias / scale|), u = 2^-24 for float,
/// 2^-11 for half, 2^-8 for bfloat16. What it needs: a scale away from 0. Each channel must have
///
///   |scale| >= |bias| / largest_ratio      and      |scale| * min(1, slope) >= the least normal number of T
///
/// (the second, so that small y keep their digits) or the call throws and x is as it was: use BatchNorm with a mask there. An
/// absent scale is 1, an absent bias 0.
/// Another activation than LeakyRelu may be given that has `inverse`, and `double least_slope() const`.
template <Element T, Format F = Format::NCHW, ParameterOf<T> P = parameter_t<T>, InvertibleActivation A = LeakyRelu>
class InPlaceBatchNorm {
 public:
  /// The default of largest_ratio: loses 10 of 24 digits of float, 3 of the 11 or 8 of the 16-bit types.
  static constexpr double usual_ratio = sizeof(T) == 2 ? 8 : 1024;

  /// Always in training, whatever options.is_training says; in inference BatchNorm may write y to x.
  /// @throws ValueError   an option out of range; an activation that cannot be undone (slope not above 0)
  BATCHNORM_INLINE explicit InPlaceBatchNorm(const Options& options = {}, const A& activation = {},
                                             double largest_ratio = usual_ratio)
      : options_(options), activation_(activation), largest_ratio_(largest_ratio) {
    options_.is_training = true;
    arguments::check_options(name, options_);
    if (!detail::is_above_0(activation.least_slope())) fail("the activation cannot be undone: its slope must be above 0");
    if (!detail::is_above_0(largest_ratio)) fail("largest_ratio must be above 0");
  }

  const Options& options() const noexcept { return options_; }  ///< those it was made with, in training

  /// y takes the place of x. mean and variance are the running statistics, absent or both updated; batch_mean and
  /// batch_variance receive those of the batch, each may be absent (backward needs the variance).
  /// @throws ShapeError, ValueError   as BatchNorm does, or a scale too small; then x is as it was
  BATCHNORM_INLINE void forward(TensorView<T> x, TensorView<const P> scale, TensorView<const P> bias, TensorView<P> mean,
                                TensorView<P> variance, TensorView<P> batch_mean, TensorView<P> batch_variance,
                                const CallOptions& call = {}) const {
    arguments::Arguments arguments(name, TensorView<const T>(x), F);
    const P* factors = arguments.channel_vector("scale", scale);
    const P* shifts = arguments.channel_vector("bias", bias);
    cpu::in_default_mode([&] { check_recoverable(arguments.channels(), factors, shifts); });
    batch_norm<T, P>(F, options_, x, scale, bias, mean, variance,
                     {.output_x = x, .batch_mean = batch_mean, .batch_variance = batch_variance}, activation_, call);
  }

  /// The gradients by x, scale and bias from y alone: those of batch_norm_backward with the recovered xh.
  ///
  ///   dy, y        [N, C, spatial...] or [N, spatial..., C]
  ///   scale, bias  [C], those of the forward pass; each may be absent (1 and 0)
  ///   variance     [C], the batch variance
  ///
  /// dx may be dy itself.
  /// @throws ShapeError, ValueError   as above
  BATCHNORM_INLINE void backward(TensorView<const T> dy, TensorView<const T> y, TensorView<const P> scale,
                                 TensorView<const P> bias, TensorView<const P> variance, const GradientViews<T, P>& out,
                                 const CallOptions& call = {}) const {
    constexpr std::string_view call_name = "batchnorm::InPlaceBatchNorm::backward";
    arguments::Arguments arguments(call_name, y, F, arguments::Replaceable::no, arguments::gradient_replaces, "y");
    const auto tensors = arguments::gradient_tensors(arguments, dy, y, out.dx, out.dresidual, arguments::Undo<A>{activation_});
    arguments.check_present("variance", variance.present(), "the gradient needs it");
    const P* shifts = arguments.channel_vector("bias", bias);
    const arguments::GivenVectors<P> given(shifts, arguments.channel_vector("variance", variance));
    auto to = arguments::gradient_arguments(arguments, scale, out.dscale, out.dbias, options_.epsilon);
    to.scale_inverts = true;
    arguments.check_overlap();
    cpu::in_default_mode([&] { check_recoverable(arguments.channels(), to.scale, shifts); });
    arguments::backward(arguments, call, tensors, given, to, true);
  }

 private:
  static constexpr std::string_view name = "batchnorm::InPlaceBatchNorm";

  [[noreturn]] static void fail(const std::string& what) { detail::fail<ValueError>(std::string(name) + ": " + what); }

  /// Of vectors that were found right; null where absent (1 and 0).
  void check_recoverable(std::int64_t channels, const P* scale, const P* bias) const {
    const double least = std::ldexp(1.0, least_exponent) / std::fmin(1.0, activation_.least_slope());
    for (std::int64_t c = 0; c < channels; ++c) {
      const double factor = scale == nullptr ? 1.0 : widened(scale[c]), s = std::abs(factor);
      const double b = bias == nullptr ? 0.0 : widened(bias[c]);
      if (s >= least && s * largest_ratio_ >= std::abs(b)) continue;
      fail("scale[" + std::to_string(c) + "] is " + arguments::to_string(factor) + ", with bias " + arguments::to_string(b) +
           " x could not be recovered from y; |scale| must be at least |bias| / " + arguments::to_string(largest_ratio_) +
           " and " + arguments::to_string(least));
    }
  }

  /// Of the least normal number of T; Eigen's limits of the 16-bit types are not constant expressions.
  static constexpr int least_exponent = std::same_as<T, double> ? -1022 : std::same_as<T, half> ? -14 : -126;

  Options options_;
  A activation_;
  double largest_ratio_;
};

}  // namespace batchnorm
