// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Batch normalization on a CUDA device. Not part of batchnorm.hpp, as a program that calls it must link batchnorm::cuda;
/// docs/cuda.md says how.

#include <batchnorm/batch_norm.hpp>
#include <batchnorm/cuda/library.hpp>

/// On CUDA devices.
namespace batchnorm::cuda {

/// Device memory that a call works in, aligned to 16 bytes. The calls of one stream may share one; what it holds before and
/// after a call does not matter.
struct Workspace {
  void* data = nullptr;   ///< device memory; may be null where no bytes are needed
  std::size_t bytes = 0;  ///< its size, at least what workspace_bytes() says
};

namespace detail {

/// The same element as kernels see it.
template <Element T>
using DeviceElement =
    std::conditional_t<std::same_as<T, half>, Half, std::conditional_t<std::same_as<T, bfloat16>, BFloat16, T>>;

template <Element T>
const DeviceElement<T>* on_device(const T* p) noexcept {
  return reinterpret_cast<const DeviceElement<T>*>(p);
}
template <Element T>
DeviceElement<T>* on_device(T* p) noexcept {
  return reinterpret_cast<DeviceElement<T>*>(p);
}

/// The geometry of an x that may be empty.
inline Geometry geometry_of(const arguments::Arguments& arguments) noexcept {
  if (arguments.empty()) return {0, arguments.channels(), 1, false};
  const batchnorm::cpu::Geometry& g = arguments.geometry();
  return {g.n, g.c, g.s, g.channels_last};
}

/// The geometry of an x of that shape, as a call of that name takes it.
template <Element T>
Geometry geometry_of_shape(std::string_view call, Format format, const Shape& shape) {
  // Only the shape counts; the pointer is none that is read.
  alignas(16) static constexpr unsigned char anywhere[16] = {};
  const TensorView<const T> x(reinterpret_cast<const T*>(anywhere), shape);
  return geometry_of(arguments::Arguments(call, x, format));
}

template <class T>
T* dense(const arguments::Arguments& arguments, std::string_view name, const batchnorm::cpu::Operand<T>& operand) {
  const batchnorm::cpu::Geometry& g = arguments.geometry();
  const bool is_dense =
      !g.is_of_rows() && (g.n == 1 || operand.pitch.outer == g.c * g.s) && (g.c == 1 || operand.pitch.channel == g.s);
  if (operand.data != nullptr && !is_dense) {
    arguments.fail<ValueError>(std::string(name) + " has gaps or another order; on a CUDA device tensors must be dense");
  }
  return operand.data;
}
template <class R>
ActivationOf<R> activation_of(const Identity&) noexcept {
  return {};
}
template <class R>
ActivationOf<R> activation_of(const Relu&) noexcept {
  return {ActivationOf<R>::relu, 0};
}
template <class R>
ActivationOf<R> activation_of(const LeakyRelu& a) noexcept {
  return {ActivationOf<R>::leaky_relu, static_cast<R>(a.slope)};
}

template <class A>
concept OnDevice = requires(const A& a) {
  activation_of<float>(a);
};

inline void check_workspace(const arguments::Arguments& arguments, const Workspace& workspace, std::size_t needed) {
  if (workspace.bytes < needed) {
    arguments.fail<ValueError>("workspace has " + std::to_string(workspace.bytes) + " bytes, expected at least " +
                               std::to_string(needed) + " (workspace_bytes)");
  }
  if (needed > 0 && (workspace.data == nullptr || reinterpret_cast<std::uintptr_t>(workspace.data) % 16 != 0)) {
    arguments.fail<ValueError>("workspace must be device memory aligned to 16 bytes");
  }
}

template <Element T>
PassageOf<DeviceElement<T>> passage_of(const Identity&, const std::uint8_t*, const T*) noexcept {
  return {};
}
template <Element T, class A>
PassageOf<DeviceElement<T>> passage_of(const ThroughMask<A>& through, const std::uint8_t* bits, const T*) noexcept {
  using Passage = PassageOf<DeviceElement<T>>;
  return {Passage::mask, bits, nullptr, activation_of<compute_t<T>>(through.activation)};
}
template <Element T, class A>
PassageOf<DeviceElement<T>> passage_of(const ThroughOutput<T, A>& through, const std::uint8_t*, const T* y) noexcept {
  using Passage = PassageOf<DeviceElement<T>>;
  return {Passage::output, nullptr, on_device(y), activation_of<compute_t<T>>(through.activation)};
}

/// A forward pass, all its arguments checked.
template <Element T, Epilogue<T> E>
ForwardCall<DeviceElement<T>> forward_call(arguments::Arguments& arguments, const Options& options,
                                           const TensorView<const T>& x, const TensorView<const parameter_t<T>>& scale,
                                           const TensorView<const parameter_t<T>>& bias,
                                           const StatisticView<parameter_t<T>>& mean,
                                           const StatisticView<parameter_t<T>>& variance,
                                           const OutputViews<T, parameter_t<T>>& out, const E& epilogue) {
  using Parts = batchnorm::detail::EpilogueParts<E>;
  using P = parameter_t<T>;
  static_assert(OnDevice<typename Parts::Activation>, "on a CUDA device: Identity, Relu or LeakyRelu");
  const arguments::NormalizeArguments<T, E> checked(arguments, x, out.output_x, epilogue);
  ForwardCall<DeviceElement<T>> call;
  if (out.mask.present()) {
    if constexpr (!DifferentiableActivation<typename Parts::Activation>) {
      arguments.template fail<ValueError>("mask is given, but the epilogue has no activation that fills one");
    }
    arguments.check_trainable(checked.work.operation.activation.get());
    call.mask = arguments.mask(out.mask);
  }
  call.geometry = geometry_of(arguments);
  call.x = on_device(dense(arguments, "x", checked.work.in[0]));
  if constexpr (Parts::adds_residual) {
    call.residual = on_device(dense(arguments, "residual", checked.work.in[1]));
  }
  call.y = on_device(dense(arguments, "output_x", checked.work.out[0]));
  call.activation = activation_of<compute_t<T>>(Parts::activation(epilogue));
  call.is_training = options.is_training;
  ForwardChannels<P>& channels = call.channels;
  channels.scale = arguments.channel_vector("scale", scale);
  channels.bias = arguments.channel_vector("bias", bias);
  channels.mean[0] = arguments.channel_vector("batch_mean", out.batch_mean);
  channels.variance[0] = arguments.channel_vector("batch_variance", out.batch_variance);
  channels.mean[1] = arguments.channel_vector("reserve_space_1", out.reserve_space_1);
  channels.variance[1] = arguments.channel_vector("reserve_space_2", out.reserve_space_2);
  arguments.check_together("mean", mean.present(), "variance", variance.present());
  if (options.is_training) {
    channels.running_mean = arguments.updated_statistic("mean", mean);
    channels.running_variance = arguments.updated_statistic("variance", variance);
  } else {
    arguments.check_present("mean", mean.present(), "inference normalises with it");
    call.mean = arguments.channel_vector("mean", mean.values());
    call.variance = arguments.channel_vector("variance", variance.values());
  }
  channels.epsilon = options.epsilon;
  channels.momentum = options.momentum;
  channels.variance_factor = arguments::variance_factor(options, arguments.geometry().values());
  channels.keeps_if_not_finite = options.not_finite == NotFinite::keep;
  call.is_unbiased = options.running_variance == RunningVariance::unbiased;
  arguments.check_overlap();
  return call;
}

/// A backward pass, all its arguments checked.
template <Element T, GradientPath<T> G>
BackwardCall<DeviceElement<T>> backward_call(arguments::Arguments& arguments, const Options& options,
                                             const TensorView<const T>& dy, const TensorView<const T>& x,
                                             const TensorView<const parameter_t<T>>& scale,
                                             const TensorView<const parameter_t<T>>& mean,
                                             const TensorView<const parameter_t<T>>& variance,
                                             const GradientViews<T, parameter_t<T>>& out, const G& through) {
  using P = parameter_t<T>;
  const auto tensors = arguments::gradient_tensors(arguments, dy, x, out.dx, out.dresidual, through);
  BackwardCall<DeviceElement<T>> call;
  call.geometry = geometry_of(arguments);
  call.dy = on_device(dense(arguments, "dy", tensors.dy));
  call.x = on_device(dense(arguments, "x", tensors.x));
  call.dx = on_device(dense(arguments, "dx", tensors.dx));
  call.dz = on_device(dense(arguments, "dresidual", tensors.dresidual));
  call.passage = passage_of<T>(through, tensors.mask, dense(arguments, "y", tensors.y));
  BackwardChannels<P>& channels = call.channels;
  arguments.check_present("mean", mean.present(), "the gradient needs it");
  arguments.check_present("variance", variance.present(), "the gradient needs it");
  channels.mean = arguments.channel_vector("mean", mean);
  channels.variance = arguments.channel_vector("variance", variance);
  channels.scale = arguments.channel_vector("scale", scale);
  channels.dscale = arguments.channel_vector("dscale", out.dscale);
  channels.dbias = arguments.channel_vector("dbias", out.dbias);
  channels.epsilon = options.epsilon;
  channels.values = arguments.geometry().values();
  channels.is_training = options.is_training;
  arguments.check_overlap();
  return call;
}

}  // namespace detail

/// Bytes of the workspace of any call for x of that shape on the current device, forward or backward: some KB for each of a few
/// hundred blocks.
/// @throws ShapeError   rank not 2 to 5, or a negative extent
/// @throws CudaError    there is no device
template <Element T>
std::size_t workspace_bytes(Format format, const Shape& shape) {
  return library::workspace_bytes<detail::DeviceElement<T>>(
      detail::geometry_of_shape<T>("batchnorm::cuda::workspace_bytes", format, shape));
}

/// Batch normalization on the current CUDA device, with the meaning of BatchNorm (batch_norm.hpp) and these differences:
///
/// * All data pointers are those of device memory; tensors are dense; scale, bias and statistics are double for double, else
///   float. Eigen's half and bfloat16 have the bits of __half and __nv_bfloat16.
/// * The call enqueues kernels on `stream` and returns: it does not wait, it does not allocate, and it may be captured into a
///   graph. Buffers and workspace must live until the stream has come past it.
/// * Activations are Identity, Relu and LeakyRelu, with or without a residual.
/// * Sums: in double, or where a device adds doubles slowly in pairs of float, in an order that follows from shape, alignment
///   of the pointers and kind of device: the same call gives the same bits again.
/// * There is no CallOptions: who wants a cumulative average sets the momentum.
///
/// Alignment to 16 bytes is fastest, but not needed. y may be x itself, a residual may be y itself.
///
/// @throws ShapeError, ValueError   as BatchNorm does, or the workspace is too small; nothing is enqueued then
/// @throws CudaError                a call of the CUDA runtime failed; what was enqueued before it runs
template <Element T, Epilogue<T> E = Identity>
void batch_norm(Format format, const Options& options, std::type_identity_t<TensorView<const T>> x,
                std::type_identity_t<TensorView<const parameter_t<T>>> scale,
                std::type_identity_t<TensorView<const parameter_t<T>>> bias,
                std::type_identity_t<StatisticView<parameter_t<T>>> mean,
                std::type_identity_t<StatisticView<parameter_t<T>>> variance, const OutputViews<T, parameter_t<T>>& out,
                const E& epilogue, const Workspace& workspace, Stream stream) {
  constexpr std::string_view name = "batchnorm::cuda::BatchNorm";
  arguments::check_options(name, options);
  arguments::Arguments arguments(name, x, format, arguments::Replaceable::yes, arguments::output_replaces);
  const auto call = detail::forward_call<T>(arguments, options, x, scale, bias, mean, variance, out, epilogue);
  detail::check_workspace(arguments, workspace, library::workspace_bytes<detail::DeviceElement<T>>(call.geometry));
  library::forward(call, workspace.data, stream);
}

/// The gradients of cuda::batch_norm(), with the meaning of batch_norm_backward (gradients.hpp) and the differences above.
///
/// @throws ShapeError, ValueError, CudaError   as batch_norm does
template <Element T, GradientPath<T> G = Identity>
void batch_norm_backward(Format format, const Options& options, std::type_identity_t<TensorView<const T>> dy,
                         std::type_identity_t<TensorView<const T>> x,
                         std::type_identity_t<TensorView<const parameter_t<T>>> scale,
                         std::type_identity_t<TensorView<const parameter_t<T>>> mean,
                         std::type_identity_t<TensorView<const parameter_t<T>>> variance,
                         const GradientViews<T, parameter_t<T>>& out, const G& through, const Workspace& workspace,
                         Stream stream) {
  constexpr std::string_view name = "batchnorm::cuda::BatchNorm::backward";
  arguments::check_options(name, options);
  arguments::Arguments arguments(name, x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto call = detail::backward_call<T>(arguments, options, dy, x, scale, mean, variance, out, through);
  detail::check_workspace(arguments, workspace, library::workspace_bytes<detail::DeviceElement<T>>(call.geometry));
  library::backward(call, workspace.data, stream);
}

/// The operator on a CUDA device: BatchNorm with these two calls.
template <Element T, Format F = Format::NCHW>
class BatchNorm {
 public:
  using P = parameter_t<T>;  ///< of scale, bias and statistics

  /// Inference unless is_training is true; the options that have no place here have their defaults.
  /// @throws ValueError   epsilon not in (0, 1] or momentum not in [0, 1]
  explicit BatchNorm(bool is_training = false, double epsilon = 1e-5, double momentum = 0.1)
      : BatchNorm(Options{.is_training = is_training, .epsilon = epsilon, .momentum = momentum}) {}

  /// With all options.
  /// @throws ValueError   epsilon not in (0, 1] or momentum not in [0, 1]
  explicit BatchNorm(const Options& options) : options_(options) {
    arguments::check_options("batchnorm::cuda::BatchNorm", options);
  }

  const Options& options() const noexcept { return options_; }  ///< those it was made with

  /// Bytes of the workspace of any call for x of that shape, forward or backward: cuda::workspace_bytes().
  /// @throws ShapeError, CudaError   as cuda::workspace_bytes() does
  static std::size_t workspace_bytes(const Shape& shape) { return cuda::workspace_bytes<T>(F, shape); }

  /// All outputs that `out` names: cuda::batch_norm().
  /// @throws ShapeError, ValueError, CudaError   as cuda::batch_norm() does
  template <Epilogue<T> E = Identity>
  void operator()(TensorView<const T> x, TensorView<const P> scale, TensorView<const P> bias, StatisticView<P> mean,
                  StatisticView<P> variance, const OutputViews<T, P>& out, const E& epilogue, const Workspace& workspace,
                  Stream stream) const {
    cuda::batch_norm<T>(F, options_, x, scale, bias, mean, variance, out, epilogue, workspace, stream);
  }

  /// All gradients that `out` names: cuda::batch_norm_backward().
  /// @throws ShapeError, ValueError, CudaError   as cuda::batch_norm() does
  template <GradientPath<T> G = Identity>
  void backward(TensorView<const T> dy, TensorView<const T> x, TensorView<const P> scale, TensorView<const P> mean,
                TensorView<const P> variance, const GradientViews<T, P>& out, const G& through, const Workspace& workspace,
                Stream stream) const {
    cuda::batch_norm_backward<T>(F, options_, dy, x, scale, mean, variance, out, through, workspace, stream);
  }

 private:
  Options options_;
};

}  // namespace batchnorm::cuda
