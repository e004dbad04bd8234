// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Training that keeps one buffer instead of two: y in place of x, and gradients from y alone.

#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include <batchnorm/batch_norm.hpp>

namespace batchnorm {

namespace detail {

template <class A, class V>
concept InvertsVector = requires(const A& activation, const V& y) {
  { activation.inverse(y) } -> std::same_as<V>;
};

}  // namespace detail

/// What InPlaceBatchNorm::forward() reads and writes.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct InPlaceViews {
  TensorView<T> x;                 ///< [N, C, spatial...] or [N, spatial..., C]; y takes its place
  TensorView<const P> scale{};     ///< [C], may be absent (1)
  TensorView<const P> bias{};      ///< [C], may be absent (0)
  TensorView<P> mean{};            ///< [C] the running mean; absent with variance, or updated
  TensorView<P> variance{};        ///< [C] the running variance, likewise
  TensorView<P> batch_mean{};      ///< [C] receives the mean of the batch; may be absent
  TensorView<P> batch_variance{};  ///< [C] receives the variance of the batch, which backward() needs; may be absent
};

/// What InPlaceBatchNorm::backward() reads.
template <Element T, ParameterOf<T> P = parameter_t<T>>
struct InPlaceGradientInputViews {
  TensorView<const T> dy;          ///< the shape of y
  TensorView<const T> y;           ///< [N, C, spatial...] or [N, spatial..., C], of the forward pass
  TensorView<const P> scale{};     ///< [C], that of the forward pass, may be absent (1)
  TensorView<const P> bias{};      ///< [C], that of the forward pass, may be absent (0)
  TensorView<const P> variance{};  ///< [C], the batch variance
};

/// An activation that can be undone: one with `inverse`, const, for the same vectors, and `least_slope`.
template <class A>
concept InvertibleActivation = DifferentiableActivation<A> && detail::InvertsVector<A, cpu::vec<float, 16>> &&
    detail::InvertsVector<A, cpu::vec<float, 32>> && detail::InvertsVector<A, cpu::vec<float, 64>> &&
    detail::InvertsVector<A, cpu::vec<double, 16>> && detail::InvertsVector<A, cpu::vec<double, 32>> &&
    detail::InvertsVector<A, cpu::vec<double, 64>> && requires(const A& activation) {
  { activation.least_slope() } -> std::convertible_to<double>;
};

inline namespace BATCHNORM_KERNELS {
namespace arguments {

/// Refuses a scale from which x could not be recovered. The vectors were found right; null where absent (1 and 0). After an
/// error that is reported they are not looked at.
template <Element T, Element P>
void check_recoverable(const Reporter& reporter, std::int64_t channels, const P* scale, const P* bias, double least_slope,
                       double largest_ratio) {
  if (reporter.failed()) return;
  // Of the least normal number of T; Eigen's limits of the 16-bit types are not constant expressions.
  constexpr int least_exponent = std::same_as<T, double> ? -1022 : std::same_as<T, half> ? -14 : -126;
  cpu::in_default_mode([&] {
    const double least = std::ldexp(1.0, least_exponent) / std::fmin(1.0, least_slope);
    for (std::int64_t c = 0; c < channels; ++c) {
      const double factor = scale == nullptr ? 1.0 : widened(scale[c]), s = std::abs(factor);
      const double b = bias == nullptr ? 0.0 : widened(bias[c]);
      if (s >= least && s * largest_ratio >= std::abs(b)) continue;
      return reporter.fail<ValueError>("scale[" + std::to_string(c) + "] is " + to_string(factor) + ", with bias " +
                                       to_string(b) + " x could not be recovered from y; |scale| must be at least |bias| / " +
                                       to_string(largest_ratio) + " and " + to_string(least));
    }
  });
}

}  // namespace arguments
}  // namespace BATCHNORM_KERNELS

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
    const arguments::Reporter reporter(name);
    if (!detail::is_above_0(activation.least_slope())) {
      reporter.fail<ValueError>("the activation cannot be undone: its slope must be above 0");
    }
    if (!detail::is_above_0(largest_ratio)) reporter.fail<ValueError>("largest_ratio must be above 0");
  }

  const Options& options() const noexcept { return options_; }  ///< those it was made with, in training

  /// y takes the place of x:
  ///
  ///     layer.forward({.x = x, .scale = scale, .bias = bias, .mean = mean, .variance = variance, .batch_variance = v});
  ///
  /// @throws ShapeError, ValueError   as BatchNorm does, or a scale too small; then x is as it was
  BATCHNORM_INLINE void forward(const InPlaceViews<T, P>& of, const CallOptions& call = {}) const {
    const arguments::Reporter reporter(name, call);
    arguments::Arguments arguments(reporter, TensorView<const T>(of.x), F);
    const P* scale = arguments.channel_vector("scale", of.scale);
    const P* bias = arguments.channel_vector("bias", of.bias);
    arguments::check_recoverable<T>(reporter, arguments.channels(), scale, bias, activation_.least_slope(), largest_ratio_);
    if (reporter.failed()) return;
    batch_norm<T, P>(F, options_, {.x = of.x, .scale = of.scale, .bias = of.bias, .mean = of.mean, .variance = of.variance},
                     {.output_x = of.x, .batch_mean = of.batch_mean, .batch_variance = of.batch_variance}, activation_, call);
  }

  /// What is wrong with the same call of forward(), or nothing; nothing is written.
  BATCHNORM_INLINE std::optional<Error> check_forward(const InPlaceViews<T, P>& of, const CallOptions& call = {}) const {
    std::optional<Error> error;
    forward(of, arguments::checking(call, error));
    return error;
  }

  /// The gradients by x, scale and bias from y alone: those of batch_norm_backward with the recovered xh. dx may be dy itself.
  ///
  ///     layer.backward({.dy = dy, .y = y, .scale = scale, .bias = bias, .variance = v}, {.dx = dx});
  ///
  /// @throws ShapeError, ValueError   as above
  BATCHNORM_INLINE void backward(const InPlaceGradientInputViews<T, P>& in, const GradientViews<T, P>& out,
                                 const CallOptions& call = {}) const {
    const arguments::Reporter reporter("batchnorm::InPlaceBatchNorm::backward", call);
    arguments::Arguments arguments(reporter, in.y, F, arguments::Replaceable::no, arguments::gradient_replaces, "y");
    const auto tensors =
        arguments::gradient_tensors(arguments, in.dy, in.y, out.dx, out.dresidual, arguments::Undo<A>{activation_});
    arguments.check_present("variance", in.variance.present(), "the gradient needs it");
    const P* bias = arguments.channel_vector("bias", in.bias);
    const arguments::GivenVectors<P> given(bias, arguments.channel_vector("variance", in.variance));
    auto to = arguments::gradient_arguments(arguments, in.scale, out.dscale, out.dbias, options_.epsilon);
    to.scale_inverts = true;
    arguments.check_overlap();
    arguments::check_recoverable<T>(reporter.as(name), arguments.channels(), to.scale, bias, activation_.least_slope(),
                                    largest_ratio_);
    if (arguments::stops(reporter, call)) return;
    arguments::backward(arguments, call, tensors, given, to, true);
  }

  /// What is wrong with the same call of backward(), or nothing; nothing is written.
  BATCHNORM_INLINE std::optional<Error> check_backward(const InPlaceGradientInputViews<T, P>& in,
                                                       const GradientViews<T, P>& out, const CallOptions& call = {}) const {
    std::optional<Error> error;
    backward(in, out, arguments::checking(call, error));
    return error;
  }

 private:
  static constexpr std::string_view name = "batchnorm::InPlaceBatchNorm";

  Options options_;
  A activation_;
  double largest_ratio_;
};

}  // namespace batchnorm
