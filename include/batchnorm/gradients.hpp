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

namespace batchnorm {

/// What dy passes before it reaches the normalisation: nothing (Identity), or the activation of the forward pass, ThroughMask
/// or ThroughOutput (activation.hpp).
template <class G, class T>
concept GradientPath = detail::IsGradientPath<G, T>::value;

/// What the gradients are computed from, by name: batch_norm_backward() says what each is. Name no temporary in one that you
/// keep: these are views.
template <Element T, ParameterOf<T> P>
struct GradientInputViews {
  TensorView<const T> dy;          ///< the shape of x
  TensorView<const T> x;           ///< [N, C, spatial...] or [N, spatial..., C]
  TensorView<const P> scale{};     ///< [C], may be absent (1)
  TensorView<const P> mean{};      ///< [C] training: reserve_space_1; inference: the running mean
  TensorView<const P> variance{};  ///< [C] training: reserve_space_2; inference: the running variance
};

/// What the double gradients are computed from, by name: batch_norm_double_backward() says what each is. In the order of
/// GradientInputViews, which is not that of the function's arguments: write the names.
template <Element T, ParameterOf<T> P>
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

/// The gradients of the operator.
template <Element T, ParameterOf<T> P>
struct Gradients {
  Tensor<T> dx;      ///< the shape of x
  Tensor<P> dscale;  ///< [C]
  Tensor<P> dbias;   ///< [C]
};

/// The caller's buffers for the gradients. Each may be absent; what is absent is not computed.
template <Element T, ParameterOf<T> P>
struct GradientViews {
  TensorView<T> dx{};      ///< the shape of x; may be dy itself
  TensorView<P> dscale{};  ///< [C]
  TensorView<P> dbias{};   ///< [C]

  /// The shape of x: the gradient of a residual that was added before the activation; may be dy itself.
  TensorView<T> dresidual{};
};

/// The gradients of a scalar that depends on the gradients of the operator.
template <Element T, ParameterOf<T> P>
struct DoubleGradients {
  Tensor<T> dx;      ///< the shape of x
  Tensor<T> ddy;     ///< the shape of x
  Tensor<P> dscale;  ///< [C]
};

/// The caller's buffers for the gradients of a scalar that depends on the gradients of the operator. Each may be absent; what
/// is absent is not computed.
template <Element T, ParameterOf<T> P>
struct DoubleGradientViews {
  TensorView<T> dx{};      ///< the shape of x
  TensorView<T> ddy{};     ///< the shape of x
  TensorView<P> dscale{};  ///< [C]
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
void batch_norm_backward(Format format, const Options& options, std::type_identity_t<TensorView<const T>> dy,
                         std::type_identity_t<TensorView<const T>> x, std::type_identity_t<TensorView<const P>> scale,
                         std::type_identity_t<TensorView<const P>> mean, std::type_identity_t<TensorView<const P>> variance,
                         const GradientViews<T, P>& out, const G& through = {}, const CallOptions& call = {});

/// The gradients of sum(ddx * dx) + sum(ddscale * dscale) + sum(ddbias * dbias) by x, dy and scale, where dx, dscale and dbias
/// are those of batch_norm_backward. With g = ddx, M[.] the mean over a channel:
///
///   training:  ddy    = scale * r * (g - M[g] - xh * M[g xh]) + ddscale * xh + ddbias
///              dx     = scale * r^2 * (xh * (M[g] M[dy] - M[dy g] + 3 M[dy xh] M[g xh]) + M[g xh] (M[dy] - dy)
///                                      + M[dy xh] (M[g] - g)) + ddscale * r * (dy - M[dy] - xh M[dy xh])
///              dscale = sum(g * r * (dy - M[dy] - xh M[dy xh]))
///   inference: ddy = g * r * scale + ddscale * xh + ddbias        dx = ddscale * r * dy        dscale = sum(g * dy * r)
///
///   x, dy, ddx      [N, C, spatial...] or [N, spatial..., C], of one memory layout; ddx may be absent (0)
///   scale           [C], may be absent (1)
///   mean, variance  [C], used as given: dx in training is the derivative under d mean/dx = 1 / m and
///                   d variance/dx = 2 (x - mean) / m
///   ddscale, ddbias [C], each may be absent (0)
///
/// No output may overlap anything. Empty batch: dx and ddy empty, dscale = 0. Sums are carried in double.
/// @throws ShapeError, ValueError   as BatchNorm does; nothing is written then
template <Element T, ParameterOf<T> P = parameter_t<T>>
void batch_norm_double_backward(Format format, const Options& options, std::type_identity_t<TensorView<const T>> x,
                                std::type_identity_t<TensorView<const T>> dy, std::type_identity_t<TensorView<const P>> scale,
                                std::type_identity_t<TensorView<const P>> mean,
                                std::type_identity_t<TensorView<const P>> variance,
                                std::type_identity_t<TensorView<const T>> ddx,
                                std::type_identity_t<TensorView<const P>> ddscale,
                                std::type_identity_t<TensorView<const P>> ddbias, const DoubleGradientViews<T, P>& out,
                                const CallOptions& call = {});

/// The sums that the gradient in training needs, with dz in place of dy where it passes an activation.
///
///   dy, x   as in batch_norm_backward
///   mean    [C]
///
/// Bitwise the same for any number of threads. An empty batch gives count 0 and zeros.
/// @throws ShapeError, ValueError   as BatchNorm does
template <Element T, ParameterOf<T> P, GradientPath<T> G = Identity>
GradientSums gradient_sums(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                           TensorView<const P> mean, const G& through = {}, const CallOptions& call = {});

/// The same about the mean of the forward pass's moments: an offset of the data costs no digits, as it does where the mean was
/// rounded to float.
template <Element T, GradientPath<T> G = Identity>
GradientSums gradient_sums(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                           const Moments& moments, const G& through = {}, const CallOptions& call = {});

/// Adds the sums over further values of the same channels, taken about the same mean. Merge in a fixed order, such as rank
/// order.
/// @throws ShapeError   the numbers of channels differ, or the lengths of the vectors of one
/// @throws ValueError   a count is not in [0, 2^53]
void merge(GradientSums& into, const GradientSums& from);

/// dx in training, and what else `out` names, from the sums over the whole batch, of which dy and x may be a part:
/// dscale and dbias are those of the sums, m is their count.
/// @throws ShapeError, ValueError   as BatchNorm does; also where the sums are those of no values and x is not empty, or their
///                                  vectors differ in length
template <Element T, ParameterOf<T> P, GradientPath<T> G = Identity>
void input_gradient(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                    const GradientSums& sums, TensorView<const P> mean, std::type_identity_t<TensorView<const P>> variance,
                    std::type_identity_t<TensorView<const P>> scale, double epsilon,
                    const std::type_identity_t<GradientViews<T, P>>& out, const G& through = {}, const CallOptions& call = {});

/// The same with the moments of the whole batch.
template <Element T, ParameterOf<T> P, GradientPath<T> G = Identity>
void input_gradient(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                    const GradientSums& sums, const Moments& moments, TensorView<const P> scale, double epsilon,
                    const std::type_identity_t<GradientViews<T, P>>& out, const G& through = {}, const CallOptions& call = {});

// ----------------------------------------------------------------------------------------------------------------------------

namespace arguments {

inline void check_whole(std::string_view call, const GradientSums& sums) {
  check_statistic(call, "sums", {sums.dy.size(), sums.dy_x.size()}, sums.count);
}

}  // namespace arguments

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void batch_norm_backward(Format format, const Options& options, std::type_identity_t<TensorView<const T>> dy,
                         std::type_identity_t<TensorView<const T>> x, std::type_identity_t<TensorView<const P>> scale,
                         std::type_identity_t<TensorView<const P>> mean, std::type_identity_t<TensorView<const P>> variance,
                         const GradientViews<T, P>& out, const G& through, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::BatchNorm::backward";
  arguments::check_options(name, options);
  arguments::Arguments arguments(name, x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, dy, x, out.dx, out.dresidual, through);
  const arguments::GivenVectors<P> given(arguments, mean, variance);
  const auto to = arguments::gradient_arguments(arguments, scale, out.dscale, out.dbias, options.epsilon);
  arguments.check_overlap();
  arguments::backward(arguments, call, tensors, given, to, options.is_training);
}

template <Element T, ParameterOf<T> P>
void batch_norm_double_backward(Format format, const Options& options, std::type_identity_t<TensorView<const T>> x,
                                std::type_identity_t<TensorView<const T>> dy, std::type_identity_t<TensorView<const P>> scale,
                                std::type_identity_t<TensorView<const P>> mean,
                                std::type_identity_t<TensorView<const P>> variance,
                                std::type_identity_t<TensorView<const T>> ddx,
                                std::type_identity_t<TensorView<const P>> ddscale,
                                std::type_identity_t<TensorView<const P>> ddbias, const DoubleGradientViews<T, P>& out,
                                const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::BatchNorm::double_backward";
  arguments::check_options(name, options);
  arguments::Arguments arguments(name, x, format);
  arguments.fit(dy);
  arguments.fit(ddx);
  arguments.fit(out.dx);
  arguments.fit(out.ddy);
  cpu::DoubleGradientTensors<T> tensors;
  tensors.in[1] = arguments.tensor("dy", dy);
  tensors.in[2] = arguments.optional_tensor("ddx", ddx);
  const arguments::GivenVectors<P> given(arguments, mean, variance);
  cpu::DoubleGradientArguments<P> to;
  to.scale = arguments.channel_vector("scale", scale);
  to.ddscale = arguments.channel_vector("ddscale", ddscale);
  to.ddbias = arguments.channel_vector("ddbias", ddbias);
  to.epsilon = options.epsilon;
  tensors.dx = arguments.optional_tensor("dx", out.dx);
  tensors.ddy = arguments.optional_tensor("ddy", out.ddy);
  to.dscale = arguments.channel_vector("dscale", out.dscale);
  arguments.check_overlap();
  const cpu::Machine machine = arguments::machine_of(call);
  if (arguments.empty()) {
    if (to.dscale != nullptr) std::fill_n(to.dscale, arguments.channels(), P(0));
    return;
  }
  if (tensors.dx.data == nullptr && tensors.ddy.data == nullptr && to.dscale == nullptr) return;
  tensors.geometry = arguments.geometry();
  tensors.in[0] = arguments.x(x);
  to.values = tensors.geometry.values();
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  const auto zeros = scratch.reserve<T>(ddx.present() ? 0 : arguments::zeros_needed(tensors.geometry));
  scratch.allocate();
  if (!ddx.present()) tensors.in[2] = arguments::zeros(scratch[zeros], tensors.geometry);
  const cpu::GivenStatistics statistics = given.in(part.in(scratch), arguments.channels());
  if (options.is_training) {
    cpu::double_backward_training(machine, tensors, statistics, to);
  } else {
    cpu::double_backward_inference(machine, tensors, statistics, to);
  }
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
GradientSums gradient_sums(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                           TensorView<const P> mean, const G& through, const CallOptions& call) {
  arguments::Arguments arguments("batchnorm::gradient_sums", x, format);
  const auto tensors = arguments::gradient_tensors<T>(arguments, dy, x, {}, {}, through);
  arguments.check_present("mean", mean.present(), "it is subtracted from x");
  const P* values = arguments.channel_vector("mean", mean);
  const cpu::Machine machine = arguments::machine_of(call);
  GradientSums result(arguments.channels());
  if (arguments.empty()) return result;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  scratch.allocate();
  arguments::collect_sums(machine, tensors, arguments::GivenVectors<P>(values).in(part.in(scratch), arguments.channels()),
                          result);
  return result;
}

template <Element T, GradientPath<T> G>
GradientSums gradient_sums(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                           const Moments& moments, const G& through, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::gradient_sums";
  arguments::Arguments arguments(name, x, format);
  const auto tensors = arguments::gradient_tensors<T>(arguments, dy, x, {}, {}, through);
  arguments::check_whole(name, moments);
  arguments.check_moments(moments.channels(), moments.count);
  const cpu::Machine machine = arguments::machine_of(call);
  GradientSums result(arguments.channels());
  if (arguments.empty()) return result;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  scratch.allocate();
  arguments::collect_sums(machine, tensors, arguments::given_moments(moments, part.in(scratch)), result);
  return result;
}

inline void merge(GradientSums& into, const GradientSums& from) {
  constexpr std::string_view name = "batchnorm::merge";
  arguments::check_whole(name, into);
  arguments::check_whole(name, from);
  if (into.channels() != from.channels()) {
    detail::fail<ShapeError>("batchnorm::merge: gradient sums of " + std::to_string(from.channels()) +
                             " channels cannot be merged into those of " + std::to_string(into.channels()));
  }
  cpu::in_default_mode([&] {
    for (std::size_t c = 0; c < into.dy.size(); ++c) {
      into.dy[c] += from.dy[c];
      into.dy_x[c] += from.dy_x[c];
    }
  });
  into.count += from.count;
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void input_gradient(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                    const GradientSums& sums, TensorView<const P> mean, std::type_identity_t<TensorView<const P>> variance,
                    std::type_identity_t<TensorView<const P>> scale, double epsilon,
                    const std::type_identity_t<GradientViews<T, P>>& out, const G& through, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::input_gradient";
  arguments::check_epsilon(name, epsilon);
  arguments::Arguments arguments(name, x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, dy, x, out.dx, out.dresidual, through);
  const arguments::GivenVectors<P> given(arguments, mean, variance);
  const auto to = arguments::gradient_arguments(arguments, scale, out.dscale, out.dbias, epsilon);
  arguments.check_overlap();
  arguments::check_whole(name, sums);
  arguments.check_sums(sums.channels(), sums.count);
  arguments::apply_sums<true>(
      arguments, call, tensors, to, [&](const cpu::ChannelArrays& arrays) { return given.in(arrays, arguments.channels()); },
      [&]() -> const GradientSums& { return sums; });
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void input_gradient(std::type_identity_t<TensorView<const T>> dy, TensorView<const T> x, Format format,
                    const GradientSums& sums, const Moments& moments, TensorView<const P> scale, double epsilon,
                    const std::type_identity_t<GradientViews<T, P>>& out, const G& through, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::input_gradient";
  arguments::check_epsilon(name, epsilon);
  arguments::Arguments arguments(name, x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, dy, x, out.dx, out.dresidual, through);
  const auto to = arguments::gradient_arguments(arguments, scale, out.dscale, out.dbias, epsilon);
  arguments.check_overlap();
  arguments::check_whole(name, moments);
  arguments.check_moments(moments.channels(), moments.count);
  arguments::check_whole(name, sums);
  arguments.check_sums(sums.channels(), sums.count);
  arguments::apply_sums<true>(
      arguments, call, tensors, to, [&](const cpu::ChannelArrays& arrays) { return arguments::given_moments(moments, arrays); },
      [&]() -> const GradientSums& { return sums; });
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm

#if BATCHNORM_USES_COMPILED
#include <batchnorm/compiled/gradients.hpp>
#endif
