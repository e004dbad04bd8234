// SPDX-License-Identifier: MIT
#pragma once

// From the operator's public call to the form that the kernels take.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include <batchnorm/call/machine.hpp>
#include <batchnorm/normalize.hpp>
#include <batchnorm/views.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// The number of channels of x, once x itself is found right: nothing is allocated for an x that is not. Nothing where an error
/// is reported.
template <Element T>
std::optional<std::int64_t> channels_of(const TensorView<const T>& x, Format format, const CallOptions& call,
                                        std::string_view name = "batchnorm::BatchNorm") {
  const Reporter reporter(name, call);
  const std::int64_t channels = Arguments(reporter, x, format).channels();
  if (reporter.failed()) return std::nullopt;
  return channels;
}

/// The statistics that an inference is given.
template <Element P>
struct Constants {
  const P* mean = nullptr;
  const P* variance = nullptr;
};

/// Inference: copies of the given statistics, and y.
template <class Checked, Element P>
void infer(const cpu::Machine& machine, const Arguments& arguments, const Checked& checked, const cpu::ChannelArguments<P>& to,
           const Constants<P>& given) {
  const auto copy_statistics = [&] {
    for (int k = 0; k < 2; ++k) {
      if (to.batch_mean[k] != nullptr) std::copy_n(given.mean, arguments.channels(), to.batch_mean[k]);
      if (to.batch_variance[k] != nullptr) std::copy_n(given.variance, arguments.channels(), to.batch_variance[k]);
    }
  };
  if (arguments.empty()) return cpu::in_default_mode(copy_statistics);
  cpu::sweep(machine, checked.work, [&](const auto& coefficients) {
    copy_statistics();
    using Compute = std::remove_reference_t<decltype(*coefficients.array[0])>;
    cpu::run(machine.isa, cpu::ConstantCoefficients<Compute, P>{given.mean, given.variance, to.scale, to.bias, to.epsilon,
                                                                arguments.channels(), coefficients});
  });
}

/// The arguments of the operator, checked: nothing is written yet.
template <bool writes_mask, Element T, ParameterOf<T> P, Epilogue<T> E>
struct ForwardArguments {
  Arguments arguments;
  NormalizeArguments<T, E, writes_mask> checked;
  unsigned char* mask = nullptr;
  cpu::ChannelArguments<P> channels;
  Constants<P> constants;

  ForwardArguments(const Reporter& reporter, Format format, const Options& options, const InputViews<T, P>& in,
                   const OutputViews<T, P>& out, const E& epilogue, const CallOptions& call)
      : arguments(reporter, in.x, format, Replaceable::yes, output_replaces), checked(arguments, in.x, out.output_x, epilogue) {
    if constexpr (writes_mask) {
      arguments.check_trainable(checked.work.operation.activation.get());
      mask = arguments.mask(out.mask);
      checked.work.bits = {nullptr, mask, arguments.geometry().elements()};
    }
    channels.scale = arguments.channel_vector("scale", in.scale);
    channels.bias = arguments.channel_vector("bias", in.bias);
    channels.batch_mean[0] = arguments.channel_vector("batch_mean", out.batch_mean);
    channels.batch_variance[0] = arguments.channel_vector("batch_variance", out.batch_variance);
    channels.batch_mean[1] = arguments.channel_vector("reserve_space_1", out.reserve_space_1);
    channels.batch_variance[1] = arguments.channel_vector("reserve_space_2", out.reserve_space_2);
    arguments.check_together("mean", in.mean.present(), "variance", in.variance.present());
    if (!options.is_training) arguments.check_present("mean", in.mean.present(), "inference normalises with it");
    if (options.is_training) {
      channels.running_mean = arguments.updated_statistic("mean", in.mean);
      channels.running_variance = arguments.updated_statistic("variance", in.variance);
    } else {
      constants.mean = arguments.channel_vector("mean", in.mean.values());
      constants.variance = arguments.channel_vector("variance", in.variance.values());
    }
    channels.epsilon = options.epsilon;
    channels.momentum = momentum_of(reporter, options, call);
    channels.keeps_if_not_finite = options.not_finite == NotFinite::keep;
    arguments.check_overlap();
  }
};

/// Calls f(std::true_type()) where the call is to write a mask, else f(std::false_type()).
/// @throws ValueError   a mask is given that the epilogue cannot fill
template <class E, class F>
void with_mask_or_without(const Reporter& reporter, bool is_given, const F& f) {
  if (!is_given) return f(std::false_type());
  if constexpr (DifferentiableActivation<typename batchnorm::detail::EpilogueParts<E>::Activation>) {
    f(std::true_type());
  } else {
    reporter.fail<ValueError>("mask is given, but the epilogue has no activation that fills one");
  }
}

/// The operator, with or without a mask to write.
template <bool writes_mask, Element T, ParameterOf<T> P, Epilogue<T> E>
void forward(ForwardArguments<writes_mask, T, P, E>& given, const Options& options, const CallOptions& call) {
  const Arguments& arguments = given.arguments;
  const cpu::Machine machine = machine_of<T>(call, arguments.geometry());
  if (options.is_training && arguments.empty()) {
    given.channels.write_empty_batch(arguments.channels());
  } else if (options.is_training) {
    given.channels.variance_factor = variance_factor(options, arguments.geometry().values());
    cpu::train(machine, given.checked.work, given.channels);
  } else {
    infer(machine, arguments, given.checked, given.channels, given.constants);
  }
  cpu::clear_after_last(given.mask, arguments.geometry().elements());
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
