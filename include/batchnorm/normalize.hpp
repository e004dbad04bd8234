// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/activation.hpp>
#include <batchnorm/moments.hpp>

namespace batchnorm {
inline namespace BATCHNORM_KERNELS {

/// y[n,c,s] = epilogue(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c])
///
///   x, y            [N, C, spatial...] or [N, spatial..., C], rank 2 to 5, same shape; y may be x itself, no other overlap
///   mean, variance  [C]
///   scale, bias     [C], each may be absent (1 and 0)
///
/// Reads x once, writes y once. Where variance + epsilon < 0 the channel is NaN.
/// @throws ShapeError, ValueError   as BatchNorm does; epsilon must be in (0, 1]
template <Element T, ParameterOf<T> P, Epilogue<T> E = Identity>
void normalize(TensorView<const T> x, Format format, std::type_identity_t<TensorView<const P>> mean,
               TensorView<const P> variance, std::type_identity_t<TensorView<const P>> scale,
               std::type_identity_t<TensorView<const P>> bias, double epsilon, std::type_identity_t<TensorView<T>> y,
               const E& epilogue = {}, const CallOptions& call = {});

/// The same with the moments of a batch (or of several, merged): keeps the digits of the mean that P cannot hold.
template <Element T, ParameterOf<T> P, Epilogue<T> E = Identity>
void normalize(TensorView<const T> x, Format format, const Moments& moments, TensorView<const P> scale,
               std::type_identity_t<TensorView<const P>> bias, double epsilon, std::type_identity_t<TensorView<T>> y,
               const E& epilogue = {}, const CallOptions& call = {});

// ----------------------------------------------------------------------------------------------------------------------------

namespace arguments {

/// The arguments of `normalize`, checked, in the form that the kernels take.
template <Element T, Epilogue<T> E>
struct NormalizeArguments {
  using Parts = batchnorm::detail::EpilogueParts<E>;
  using Output = cpu::Output<T, typename Parts::Activation, Parts::adds_residual>;

  cpu::Input<T> input;
  Output output;

  NormalizeArguments(Arguments& arguments, const TensorView<const T>& x, const TensorView<T>& y, const E& epilogue) {
    output.y = y.data();
    output.pitch = arguments.tensor("output_x", y);
    output.residual = nullptr;
    output.normalization.activation = Parts::activation(epilogue);
    if constexpr (Parts::adds_residual) {
      output.residual_pitch = arguments.tensor("residual", epilogue.residual);
      output.residual = epilogue.residual.data();
    }
    if (!arguments.empty()) input = input_of(arguments, x, y.data() == x.data());
  }
};

}  // namespace arguments

template <Element T, ParameterOf<T> P, Epilogue<T> E>
void normalize(TensorView<const T> x, Format format, std::type_identity_t<TensorView<const P>> mean,
               TensorView<const P> variance, std::type_identity_t<TensorView<const P>> scale,
               std::type_identity_t<TensorView<const P>> bias, double epsilon, std::type_identity_t<TensorView<T>> y,
               const E& epilogue, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::normalize";
  arguments::check_epsilon(name, epsilon);
  arguments::Arguments arguments(name, x, format);
  const arguments::NormalizeArguments<T, E> checked(arguments, x, y, epilogue);
  arguments.check_present("mean", mean.present(), "normalize needs it");
  arguments.check_present("variance", variance.present(), "normalize needs it");
  const P* mean_data = arguments.channel_vector("mean", mean);
  const P* variance_data = arguments.channel_vector("variance", variance);
  const P* scale_data = arguments.channel_vector("scale", scale);
  const P* bias_data = arguments.channel_vector("bias", bias);
  arguments.check_overlap();
  const cpu::Machine machine = arguments::machine_of(call);
  if (arguments.empty()) return;
  cpu::normalize_with(machine, checked.input, checked.output, [&](const cpu::Coefficients<compute_t<T>>& coefficients) {
    cpu::run(machine.isa, cpu::ConstantCoefficients<compute_t<T>, P>{mean_data, variance_data, scale_data, bias_data, epsilon,
                                                                     arguments.channels(), coefficients});
  });
}

template <Element T, ParameterOf<T> P, Epilogue<T> E>
void normalize(TensorView<const T> x, Format format, const Moments& moments, TensorView<const P> scale,
               std::type_identity_t<TensorView<const P>> bias, double epsilon, std::type_identity_t<TensorView<T>> y,
               const E& epilogue, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::normalize";
  arguments::check_epsilon(name, epsilon);
  arguments::Arguments arguments(name, x, format);
  const arguments::NormalizeArguments<T, E> checked(arguments, x, y, epilogue);
  cpu::ChannelArguments<P> channels;
  channels.scale = arguments.channel_vector("scale", scale);
  channels.bias = arguments.channel_vector("bias", bias);
  channels.epsilon = epsilon;
  arguments.check_overlap();
  arguments.check_moments(moments.channels(), moments.count);
  const cpu::Machine machine = arguments::machine_of(call);
  if (arguments.empty()) return;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, moments.channels(), 4);
  scratch.allocate();
  cpu::normalize_with(machine, checked.input, checked.output, [&](const cpu::Coefficients<compute_t<T>>& coefficients) {
    cpu::run(machine.isa, cpu::FinalizeChannels<compute_t<T>, P>{arguments::padded_copy(moments, part, scratch),
                                                                 moments.channels(), moments.count, channels, coefficients});
  });
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
