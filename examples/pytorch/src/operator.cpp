// SPDX-License-Identifier: MIT
#include "operator.hpp"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>

#include "executor.hpp"
#include "kernels.hpp"
#include "tensors.hpp"

namespace batchnorm_torch {
namespace {

using batchnorm::parameter_t;

/// How the kernels run for a result of that size. The C library returns blocks above 32 MB to the system when they are freed,
/// so a result that large lies in pages that the system has just zeroed, and that are in the cache: stores past it would lose.
batchnorm::CallOptions options_for(const at::Tensor& result) {
  static TorchExecutor executor;
  static const batchnorm::Tuning through_cache = [] {
    batchnorm::Tuning tuning = batchnorm::machine_tuning();
    tuning.inference_stream_share = tuning.training_stream_share = std::numeric_limits<double>::infinity();
    return tuning;
  }();
  constexpr std::size_t largest_kept = std::size_t{32} << 20;  // glibc: the most that its threshold for mmap grows to
  const bool is_new = result.defined() && result.nbytes() > largest_kept;
  return {.executor = &executor, .tuning = is_new ? &through_cache : nullptr};
}

/// A channel vector in the type of the kernels' parameters: itself, or a copy where it is half or bfloat16.
template <class P>
at::Tensor widened(const at::Tensor& vector) {
  return vector.defined() ? vector.to(scalar_type<P>()) : vector;
}

template <class P>
at::Tensor new_channel_vector(const at::Tensor& x) {
  return at::empty({x.size(1)}, x.options().dtype(scalar_type<P>()));
}

/// Replaces each value, in double.
template <class P, class F>
void transform(const at::Tensor& vector, const F& function) {
  P* const values = static_cast<P*>(vector.mutable_data_ptr());
  for (std::int64_t c = 0; c < vector.numel(); ++c) values[c] = static_cast<P>(function(static_cast<double>(values[c])));
}

bool updates_running_statistics(const Forward& call) { return call.training && call.running_mean.defined(); }

/// What is updated in place lies apart from all else. The library would find it out, but not of vectors that are widened.
bool running_statistics_are_apart(const Forward& call) {
  const auto apart = [&](const at::Tensor& written, std::initializer_list<const at::Tensor*> vectors) {
    for (const at::Tensor* vector : vectors) {
      if (vector->defined() && at::get_overlap_status(written, *vector) != at::MemOverlapStatus::No) return false;
    }
    return !written.is_alias_of(call.x);
  };
  return apart(call.running_mean, {&call.running_variance, &call.weight, &call.bias}) &&
         apart(call.running_variance, {&call.weight, &call.bias});
}

/// The type of the parameters where the kernels compute what PyTorch's own do.
std::optional<at::ScalarType> accepted(const Forward& call) {
  if (!is_batch(call.x)) return std::nullopt;
  for (const at::Tensor* vector : {&call.weight, &call.bias, &call.running_mean, &call.running_variance}) {
    if (!is_optional_channel_vector(call.x, *vector)) return std::nullopt;
  }
  if (call.running_mean.defined() != call.running_variance.defined()) return std::nullopt;
  // One value per channel makes PyTorch's running variance NaN.
  if (call.training ? values(call.x) == 1 : !call.running_mean.defined()) return std::nullopt;
  if (updates_running_statistics(call) && !running_statistics_are_apart(call)) return std::nullopt;
  return parameter_type(call.x, {&call.weight, &call.bias, &call.running_mean, &call.running_variance});
}

template <class T>
Tensors run(const Forward& call, at::ScalarType parameter) {
  using P = parameter_t<T>;
  const at::MemoryFormat memory_format = format_like(call.x);
  const at::Tensor x = in_format(call.x, memory_format);
  const at::Tensor y = at::empty(x.sizes(), x.options(), memory_format);
  const at::Tensor scale = widened<P>(call.weight), bias = widened<P>(call.bias);
  const at::Tensor mean = widened<P>(call.running_mean), variance = widened<P>(call.running_variance);
  batchnorm::OutputViews<T, P> out{.output_x = view<T>(y)};
  at::Tensor batch_mean, batch_variance;
  if (call.training) {
    batch_mean = new_channel_vector<P>(x), batch_variance = new_channel_vector<P>(x);
    out.batch_mean = view<P>(batch_mean), out.batch_variance = view<P>(batch_variance);
  }
  const batchnorm::Options options{
      .is_training = call.training, .epsilon = call.epsilon, .momentum = updates_running_statistics(call) ? call.momentum : 0};
  batchnorm::batch_norm<T, P>(batchnorm::Format::NCHW, options, view<const T>(x), view<const P>(scale), view<const P>(bias),
                              view<P>(mean), view<P>(variance), out, {}, options_for(y));
  if (!call.training) {
    const auto empty = [&] { return at::empty({0}, x.options().dtype(parameter)); };
    return {y, empty(), empty()};
  }
  if (updates_running_statistics(call) && parameter != scalar_type<P>()) {
    call.running_mean.copy_(mean), call.running_variance.copy_(variance);
  }
  transform<P>(batch_variance, [&](double v) { return batchnorm::inverse_deviation_of_variance(v, call.epsilon); });
  return {y, batch_mean.to(parameter), batch_variance.to(parameter)};
}

const at::Tensor& mean_of(const Backward& call) { return call.training ? call.saved_mean : call.running_mean; }

/// The vector that the variance is taken from.
const at::Tensor& spread_of(const Backward& call) {
  return call.training ? call.saved_inverse_deviation : call.running_variance;
}

/// The type of the parameters where the kernels compute what PyTorch's own do.
std::optional<at::ScalarType> accepted(const Backward& call) {
  if (!is_batch(call.x) || (call.training && values(call.x) == 1)) return std::nullopt;
  if (!is_batch(call.dy) || call.dy.scalar_type() != call.x.scalar_type() || call.dy.sizes() != call.x.sizes()) {
    return std::nullopt;
  }
  if (!is_channel_vector(call.x, mean_of(call)) || !is_channel_vector(call.x, spread_of(call)) ||
      !is_optional_channel_vector(call.x, call.weight)) {
    return std::nullopt;
  }
  return parameter_type(
      call.x, {&call.weight, &call.running_mean, &call.running_variance, &call.saved_mean, &call.saved_inverse_deviation});
}

/// The variance from which the inverse deviation was computed that the forward pass has saved; in inference the running one.
template <class P>
at::Tensor variance_of(const Backward& call) {
  if (!call.training) return widened<P>(call.running_variance);
  const at::Tensor variance = call.saved_inverse_deviation.to(scalar_type<P>(), /*non_blocking=*/false, /*copy=*/true);
  transform<P>(variance, [&](double inverse) { return batchnorm::variance_of_inverse_deviation(inverse, call.epsilon); });
  return variance;
}

template <class T>
Tensors run(const Backward& call, at::ScalarType parameter) {
  using P = parameter_t<T>;
  const at::MemoryFormat memory_format = format_like(call.x, call.dy);
  const at::Tensor x = in_format(call.x, memory_format), dy = in_format(call.dy, memory_format);
  const at::Tensor scale = widened<P>(call.weight), mean = widened<P>(mean_of(call)), variance = variance_of<P>(call);
  at::Tensor dx, dscale, dbias;
  if (call.wanted[0]) dx = at::empty(x.sizes(), x.options(), memory_format);
  if (call.wanted[1]) dscale = new_channel_vector<P>(x);
  if (call.wanted[2]) dbias = new_channel_vector<P>(x);
  const batchnorm::Options options{.is_training = call.training, .epsilon = call.epsilon};
  batchnorm::batch_norm_backward<T, P>(
      batchnorm::Format::NCHW, options, view<const T>(dy), view<const T>(x), view<const P>(scale), view<const P>(mean),
      view<const P>(variance), {.dx = view<T>(dx), .dscale = view<P>(dscale), .dbias = view<P>(dbias)}, {}, options_for(dx));
  const auto in_type = [&](const at::Tensor& gradient) { return gradient.defined() ? gradient.to(parameter) : gradient; };
  return {dx, in_type(dscale), in_type(dbias)};
}

/// Runs a call that is accepted. What the library itself refuses, before it writes anything, is not taken either: epsilon or
/// momentum out of range, memory that is not aligned.
template <class Call>
std::optional<Tensors> attempt(const Call& call) {
  const std::optional<at::ScalarType> parameter = accepted(call);
  if (!parameter) return std::nullopt;
  // The tensors are the kernel's own: neither autograd nor the counters of in-place changes may see what is done with them.
  const at::AutoDispatchBelowADInplaceOrView below;
  try {
    return dispatch(call.x.scalar_type(), [&]<class T>() { return run<T>(call, *parameter); });
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

}  // namespace

std::optional<Tensors> forward(const Forward& call) { return attempt(call); }

std::optional<Tensors> backward(const Backward& call) { return attempt(call); }

}  // namespace batchnorm_torch
