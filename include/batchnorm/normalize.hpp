// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Normalisation by given statistics.

#include <batchnorm/activation.hpp>
#include <batchnorm/moments.hpp>
#include <batchnorm/views.hpp>

namespace batchnorm {
inline namespace BATCHNORM_KERNELS {

/// y[n,c,s] = epilogue(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c])
///
///     normalize<float>(Format::NCHW, {.x = x, .scale = scale, .bias = bias, .mean = mean, .variance = variance}, 1e-5, y);
///
///   x, y            [N, C, spatial...] or [N, spatial..., C], rank 2 to 5, same shape; y may be x itself, no other overlap
///   mean, variance  [C], constant or not; nothing is written to them
///   scale, bias     [C], each may be absent (1 and 0)
///
/// Reads x once, writes y once. Where variance + epsilon < 0 the channel is NaN.
/// @throws ShapeError, ValueError   as BatchNorm does; epsilon must be in (0, 1]
template <Element T, ParameterOf<T> P = parameter_t<T>, Epilogue<T> E = Identity>
void normalize(Format format, const InputViews<T, P>& in, double epsilon, std::type_identity_t<TensorView<T>> y,
               const E& epilogue = {}, const CallOptions& call = {});

/// The same with the moments of a batch (or of several, merged) in place of mean and variance, which are not looked at: keeps
/// the digits of the mean that P cannot hold.
template <Element T, ParameterOf<T> P = parameter_t<T>, Epilogue<T> E = Identity>
void normalize(Format format, const InputViews<T, P>& in, const Moments& moments, double epsilon,
               std::type_identity_t<TensorView<T>> y, const E& epilogue = {}, const CallOptions& call = {});

// ----------------------------------------------------------------------------------------------------------------------------

namespace arguments {

/// x and y, checked, and how one becomes the other: y = epilogue(normalised x), with the mask that is asked for.
template <Element T, Epilogue<T> E, bool writes_mask = false>
struct NormalizeArguments {
  using Parts = batchnorm::detail::EpilogueParts<E>;
  using Work = cpu::Elementwise<T, cpu::Normalization<T, typename Parts::Activation, Parts::adds_residual, writes_mask>>;

  Work work{};

  NormalizeArguments(Arguments& arguments, const TensorView<const T>& x, const TensorView<T>& y, const E& epilogue) {
    work.operation.activation = Parts::activation(epilogue);
    arguments.fit(y);
    if constexpr (Parts::adds_residual) arguments.fit(epilogue.residual);
    work.out[0] = arguments.tensor("output_x", y);
    if constexpr (Parts::adds_residual) work.in[1] = arguments.tensor("residual", epilogue.residual, Replaceable::yes);
    if (arguments.empty()) return;
    work.geometry = arguments.geometry();
    work.in[0] = arguments.x(x);
  }
};

inline constexpr std::string_view output_replaces = "output_x in place of x or of the residual";

}  // namespace arguments

template <Element T, ParameterOf<T> P, Epilogue<T> E>
void normalize(Format format, const InputViews<T, P>& in, double epsilon, std::type_identity_t<TensorView<T>> y,
               const E& epilogue, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::normalize", call);
  arguments::check_epsilon(reporter, epsilon);
  arguments::Arguments arguments(reporter, in.x, format, arguments::Replaceable::yes, arguments::output_replaces);
  const arguments::NormalizeArguments<T, E> checked(arguments, in.x, y, epilogue);
  arguments.check_present("mean", in.mean.present(), "normalize needs it");
  arguments.check_present("variance", in.variance.present(), "normalize needs it");
  const P* mean = arguments.channel_vector("mean", in.mean.values());
  const P* variance = arguments.channel_vector("variance", in.variance.values());
  const P* scale = arguments.channel_vector("scale", in.scale);
  const P* bias = arguments.channel_vector("bias", in.bias);
  arguments.check_overlap();
  if (arguments::stops(reporter, call)) return;
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  if (arguments.empty()) return;
  cpu::sweep(machine, checked.work, [&](const cpu::NormalizationCoefficients<compute_t<T>>& coefficients) {
    cpu::run(machine.isa, cpu::ConstantCoefficients<compute_t<T>, P>{mean, variance, scale, bias, epsilon, arguments.channels(),
                                                                     coefficients});
  });
}

template <Element T, ParameterOf<T> P, Epilogue<T> E>
void normalize(Format format, const InputViews<T, P>& in, const Moments& moments, double epsilon,
               std::type_identity_t<TensorView<T>> y, const E& epilogue, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::normalize", call);
  arguments::check_epsilon(reporter, epsilon);
  arguments::Arguments arguments(reporter, in.x, format, arguments::Replaceable::yes, arguments::output_replaces);
  const arguments::NormalizeArguments<T, E> checked(arguments, in.x, y, epilogue);
  cpu::ChannelArguments<P> channels;
  channels.scale = arguments.channel_vector("scale", in.scale);
  channels.bias = arguments.channel_vector("bias", in.bias);
  channels.epsilon = epsilon;
  arguments.check_overlap();
  arguments::check_whole(reporter, moments);
  arguments.check_moments(moments.channels(), moments.count);
  if (arguments::stops(reporter, call)) return;
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  if (arguments.empty()) return;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, moments.channels(), 4);
  scratch.allocate();
  cpu::sweep(machine, checked.work, [&](const cpu::NormalizationCoefficients<compute_t<T>>& coefficients) {
    cpu::run(machine.isa, cpu::FinalizeChannels<compute_t<T>, P>{arguments::padded_copy(moments, part, scratch),
                                                                 moments.channels(), moments.count, channels, coefficients});
  });
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
