// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Gradients and double gradients, and the sums and the merge for a batch that is spread.

#include <cstdint>
#include <string>
#include <vector>

#include <batchnorm/activation.hpp>
#include <batchnorm/call/gradient_arguments.hpp>
#include <batchnorm/moments.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/views.hpp>

namespace batchnorm {

/// What dy passes before it reaches the normalisation: nothing (Identity), or the activation of the forward pass, ThroughMask
/// or ThroughOutput (activation.hpp).
template <class G, class T>
concept GradientPath = detail::IsGradientPath<G, T>::value;

/// The gradients of the operator.
template <Element T, ParameterOf<T> P>
struct Gradients {
  Tensor<T> dx;      ///< the shape of x
  Tensor<P> dscale;  ///< [C]
  Tensor<P> dbias;   ///< [C]
};

/// The gradients of a scalar that depends on the gradients of the operator.
template <Element T, ParameterOf<T> P>
struct DoubleGradients {
  Tensor<T> dx;      ///< the shape of x
  Tensor<T> ddy;     ///< the shape of x
  Tensor<P> dscale;  ///< [C]
};

/// Sums over `count` values of each channel, in double: dy[c] = sum(dy), dy_x[c] = sum(dy * (x - mean)).
struct GradientSums {
  std::int64_t count = 0;    ///< values per channel
  std::vector<double> dy;    ///< [C] sum(dy)
  std::vector<double> dy_x;  ///< [C] sum(dy * (x - mean))

  /// Of no channels.
  GradientSums() = default;

  /// The sums of nothing.
  /// @throws ShapeError   channels not in [0, 2^53]
  /// @throws std::bad_alloc
  explicit GradientSums(std::int64_t channels)
      : dy(detail::channels_of_statistic("batchnorm::GradientSums", channels)), dy_x(dy.size()) {}

  /// C
  std::int64_t channels() const noexcept { return static_cast<std::int64_t>(dy.size()); }
};

inline namespace BATCHNORM_KERNELS {

/// The gradients of y = activation(batch norm of x [+ residual]), with m values per channel, xh = (x - mean) * r and
/// r = 1 / sqrt(variance + epsilon):
///
///   dz = dy through the activation        dresidual = dz
///   dbias = sum(dz)        dscale = sum(dz * xh)
///   training:  dx = scale * r * (dz - dbias / m - xh * dscale / m)
///   inference: dx = scale * r * dz
///
///     batch_norm_backward<float>(Format::NCHW, options,
///                                {.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance},
///                                {.dx = dx, .dscale = dscale, .dbias = dbias});
///
///   dy, x           [N, C, spatial...] or [N, spatial..., C], rank 2 to 5, of one memory layout; a dy that repeats elements
///                   along a row (stride 0, as of a sum) must be copied first
///   scale           [C], may be absent (1)
///   mean, variance  [C]; training: those of the batch, reserve_space_1 and _2 of the forward pass;
///                   inference: the running ones. They are used as given.
///   through         Identity, or the activation with the mask or the output of the forward pass
///
/// dx may be dy itself, dresidual may be dy itself; nothing else may overlap. Sums are carried in double, in the same blocks
/// whatever the number of threads. Training reads dy and x once (twice where a channel does not fit the cache), inference dy
/// once, and x only for dscale and dbias.
/// Empty batch: dx empty, dscale = dbias = 0. m == 1 in training: dx is 0 where x == mean. NaN and Inf stay within their
/// channel. `options`: is_training and epsilon count.
/// @throws ShapeError, ValueError   as BatchNorm does; nothing is written then
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
void batch_norm_backward(Format format, const Options& options, const GradientInputViews<T, P>& in,
                         const GradientViews<T, P>& out, const G& through = {}, const CallOptions& call = {});

/// The same with arguments in their places.
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
void batch_norm_backward(Format format, const Options& options, std::type_identity_t<TensorView<const T>> dy,
                         std::type_identity_t<TensorView<const T>> x, std::type_identity_t<TensorView<const P>> scale,
                         std::type_identity_t<TensorView<const P>> mean, std::type_identity_t<TensorView<const P>> variance,
                         const GradientViews<T, P>& out, const G& through = {}, const CallOptions& call = {}) {
  batch_norm_backward<T, P>(format, options, GradientInputViews<T, P>{dy, x, scale, mean, variance}, out, through, call);
}

/// The same with T from dy and P = parameter_t<T>.
template <TensorLike Dy, GradientPath<element_of<Dy>> G = Identity>
void batch_norm_backward(Format format, const Options& options, const Dy& dy, TensorView<const element_of<Dy>> x,
                         TensorView<const parameter_t<element_of<Dy>>> scale,
                         TensorView<const parameter_t<element_of<Dy>>> mean,
                         TensorView<const parameter_t<element_of<Dy>>> variance, const GradientViews<element_of<Dy>>& out,
                         const G& through = {}, const CallOptions& call = {}) {
  batch_norm_backward<element_of<Dy>>(format, options, {dy, x, scale, mean, variance}, out, through, call);
}

/// The gradients of sum(ddx * dx) + sum(ddscale * dscale) + sum(ddbias * dbias) by x, dy and scale, where dx, dscale and dbias
/// are those of batch_norm_backward. With g = ddx, M[.] the mean over a channel:
///
///   training:  ddy    = scale * r * (g - M[g] - xh * M[g xh]) + ddscale * xh + ddbias
///              dx     = scale * r^2 * (xh * (M[g] M[dy] - M[dy g] + 3 M[dy xh] M[g xh]) + M[g xh] (M[dy] - dy)
///                                      + M[dy xh] (M[g] - g)) + ddscale * r * (dy - M[dy] - xh M[dy xh])
///              dscale = sum(g * r * (dy - M[dy] - xh M[dy xh]))
///   inference: ddy = g * r * scale + ddscale * xh + ddbias        dx = ddscale * r * dy        dscale = sum(g * dy * r)
///
///   dy, x, ddx      [N, C, spatial...] or [N, spatial..., C], of one memory layout; ddx may be absent (0)
///   scale           [C], may be absent (1)
///   mean, variance  [C], used as given: dx in training is the derivative under d mean/dx = 1 / m and
///                   d variance/dx = 2 (x - mean) / m
///   ddscale, ddbias [C], each may be absent (0)
///
/// No output may overlap anything. Empty batch: dx and ddy empty, dscale = 0. Sums are carried in double.
/// @throws ShapeError, ValueError   as BatchNorm does; nothing is written then
template <Element T, ParameterOf<T> P = parameter_t<T>>
void batch_norm_double_backward(Format format, const Options& options, const DoubleGradientInputViews<T, P>& in,
                                const DoubleGradientViews<T, P>& out, const CallOptions& call = {});

/// The sums that the gradient in training needs, with dz in place of dy where it passes an activation.
///
///     GradientSums sums = gradient_sums<float>(Format::NCHW, {.dy = dy, .x = x, .mean = mean});
///
///   dy, x   as in batch_norm_backward
///   mean    [C]
///
/// What else `in` names is not looked at. Bitwise the same for any number of threads. An empty batch gives count 0 and zeros.
/// @throws ShapeError, ValueError   as BatchNorm does
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
GradientSums gradient_sums(Format format, const GradientInputViews<T, P>& in, const G& through = {},
                           const CallOptions& call = {});

/// The same about the mean of the forward pass's moments, with dy and x alone: an offset of the data costs no digits, as it
/// does where the mean was rounded to float.
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
GradientSums gradient_sums(Format format, const GradientInputViews<T, P>& in, const Moments& moments, const G& through = {},
                           const CallOptions& call = {});

/// Adds the sums over further values of the same channels, taken about the same mean. Merge in a fixed order, such as rank
/// order.
/// @throws ShapeError   the numbers of channels differ, or the lengths of the vectors of one
/// @throws ValueError   a count is not in [0, 2^53]
void merge(GradientSums& into, const GradientSums& from, const CallOptions& call = {});

/// dx in training, and what else `out` names, from the sums over the whole batch, of which dy and x may be a part:
/// dscale and dbias are those of the sums, m is their count.
/// @throws ShapeError, ValueError   as BatchNorm does; also where the sums are those of no values and x is not empty, or their
///                                  vectors differ in length
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
void input_gradient(Format format, const GradientInputViews<T, P>& in, const GradientSums& sums, double epsilon,
                    const GradientViews<T, P>& out, const G& through = {}, const CallOptions& call = {});

/// The same with the moments of the whole batch in place of mean and variance, which are not looked at.
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
void input_gradient(Format format, const GradientInputViews<T, P>& in, const GradientSums& sums, const Moments& moments,
                    double epsilon, const GradientViews<T, P>& out, const G& through = {}, const CallOptions& call = {});

// ----------------------------------------------------------------------------------------------------------------------------

namespace arguments {

inline void check_whole(const Reporter& call, const GradientSums& sums) {
  check_statistic(call, "sums", {sums.dy.size(), sums.dy_x.size()}, sums.count);
}

}  // namespace arguments

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void batch_norm_backward(Format format, const Options& options, const GradientInputViews<T, P>& in,
                         const GradientViews<T, P>& out, const G& through, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::BatchNorm::backward", call);
  arguments::check_options(reporter, options);
  arguments::Arguments arguments(reporter, in.x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, in.dy, in.x, out.dx, out.dresidual, through);
  const arguments::GivenVectors<P> given(arguments, in.mean, in.variance);
  const auto to = arguments::gradient_arguments(arguments, in.scale, out.dscale, out.dbias, options.epsilon);
  arguments.check_overlap();
  if (arguments::stops(reporter, call)) return;
  arguments::backward(arguments, call, tensors, given, to, options.is_training);
}

template <Element T, ParameterOf<T> P>
void batch_norm_double_backward(Format format, const Options& options, const DoubleGradientInputViews<T, P>& in,
                                const DoubleGradientViews<T, P>& out, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::BatchNorm::double_backward", call);
  arguments::check_options(reporter, options);
  arguments::Arguments arguments(reporter, in.x, format);
  arguments.fit(in.dy);
  arguments.fit(in.ddx);
  arguments.fit(out.dx);
  arguments.fit(out.ddy);
  cpu::DoubleGradientTensors<T> tensors;
  tensors.in[1] = arguments.tensor("dy", in.dy);
  tensors.in[2] = arguments.optional_tensor("ddx", in.ddx);
  const arguments::GivenVectors<P> given(arguments, in.mean, in.variance);
  cpu::DoubleGradientArguments<P> to;
  to.scale = arguments.channel_vector("scale", in.scale);
  to.ddscale = arguments.channel_vector("ddscale", in.ddscale);
  to.ddbias = arguments.channel_vector("ddbias", in.ddbias);
  to.epsilon = options.epsilon;
  tensors.dx = arguments.optional_tensor("dx", out.dx);
  tensors.ddy = arguments.optional_tensor("ddy", out.ddy);
  to.dscale = arguments.channel_vector("dscale", out.dscale);
  arguments.check_overlap();
  if (arguments::stops(reporter, call)) return;
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  if (arguments.empty()) {
    const cpu::OrderedAccesses ordered;
    if (to.dscale != nullptr) std::fill_n(to.dscale, arguments.channels(), P(0));
    return;
  }
  if (tensors.dx.data == nullptr && tensors.ddy.data == nullptr && to.dscale == nullptr) return;
  tensors.geometry = arguments.geometry();
  tensors.in[0] = arguments.x(in.x);
  to.values = tensors.geometry.values();
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  const auto zeros = scratch.reserve<T>(in.ddx.present() ? 0 : arguments::zeros_needed(tensors.geometry));
  scratch.allocate();
  if (!in.ddx.present()) tensors.in[2] = arguments::zeros(scratch[zeros], tensors.geometry);
  const cpu::GivenStatistics statistics = given.in(part.in(scratch), arguments.channels());
  if (options.is_training) {
    cpu::double_backward_training(machine, tensors, statistics, to);
  } else {
    cpu::double_backward_inference(machine, tensors, statistics, to);
  }
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
GradientSums gradient_sums(Format format, const GradientInputViews<T, P>& in, const G& through, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::gradient_sums", call);
  arguments::Arguments arguments(reporter, in.x, format);
  const auto tensors = arguments::gradient_tensors<T>(arguments, in.dy, in.x, {}, {}, through);
  arguments.check_present("mean", in.mean.present(), "it is subtracted from x");
  const P* mean = arguments.channel_vector("mean", in.mean);
  if (arguments::stops(reporter, call)) return {};
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  GradientSums result(arguments.channels());
  if (arguments.empty()) return result;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  scratch.allocate();
  arguments::collect_sums(machine, tensors, arguments::GivenVectors<P>(mean).in(part.in(scratch), arguments.channels()),
                          result);
  return result;
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
GradientSums gradient_sums(Format format, const GradientInputViews<T, P>& in, const Moments& moments, const G& through,
                           const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::gradient_sums", call);
  arguments::Arguments arguments(reporter, in.x, format);
  const auto tensors = arguments::gradient_tensors<T>(arguments, in.dy, in.x, {}, {}, through);
  arguments::check_whole(reporter, moments);
  arguments.check_moments(moments.channels(), moments.count);
  if (arguments::stops(reporter, call)) return {};
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  GradientSums result(arguments.channels());
  if (arguments.empty()) return result;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  scratch.allocate();
  arguments::collect_sums(machine, tensors, arguments::given_moments(moments, part.in(scratch)), result);
  return result;
}

inline void merge(GradientSums& into, const GradientSums& from, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::merge", call);
  arguments::check_whole(reporter, into);
  arguments::check_whole(reporter, from);
  if (into.channels() != from.channels()) {
    reporter.fail<ShapeError>("gradient sums of " + std::to_string(from.channels()) +
                              " channels cannot be merged into those of " + std::to_string(into.channels()));
  }
  if (reporter.stops()) return;
  cpu::in_default_mode([&] {
    for (std::size_t c = 0; c < into.dy.size(); ++c) {
      into.dy[c] += from.dy[c];
      into.dy_x[c] += from.dy_x[c];
    }
  });
  into.count += from.count;
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void input_gradient(Format format, const GradientInputViews<T, P>& in, const GradientSums& sums, double epsilon,
                    const GradientViews<T, P>& out, const G& through, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::input_gradient", call);
  arguments::check_epsilon(reporter, epsilon);
  arguments::Arguments arguments(reporter, in.x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, in.dy, in.x, out.dx, out.dresidual, through);
  const arguments::GivenVectors<P> given(arguments, in.mean, in.variance);
  const auto to = arguments::gradient_arguments(arguments, in.scale, out.dscale, out.dbias, epsilon);
  arguments.check_overlap();
  arguments::check_whole(reporter, sums);
  arguments.check_sums(sums.channels(), sums.count);
  if (arguments::stops(reporter, call)) return;
  arguments::apply_sums<true>(
      arguments, call, tensors, to, [&](const cpu::ChannelArrays& arrays) { return given.in(arrays, arguments.channels()); },
      [&]() -> const GradientSums& { return sums; });
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void input_gradient(Format format, const GradientInputViews<T, P>& in, const GradientSums& sums, const Moments& moments,
                    double epsilon, const GradientViews<T, P>& out, const G& through, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::input_gradient", call);
  arguments::check_epsilon(reporter, epsilon);
  arguments::Arguments arguments(reporter, in.x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, in.dy, in.x, out.dx, out.dresidual, through);
  const auto to = arguments::gradient_arguments(arguments, in.scale, out.dscale, out.dbias, epsilon);
  arguments.check_overlap();
  arguments::check_whole(reporter, moments);
  arguments.check_moments(moments.channels(), moments.count);
  arguments::check_whole(reporter, sums);
  arguments.check_sums(sums.channels(), sums.count);
  if (arguments::stops(reporter, call)) return;
  arguments::apply_sums<true>(
      arguments, call, tensors, to, [&](const cpu::ChannelArrays& arrays) { return arguments::given_moments(moments, arrays); },
      [&]() -> const GradientSums& { return sums; });
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm

#if BATCHNORM_USES_COMPILED
#include <batchnorm/compiled/gradients.hpp>
#endif
