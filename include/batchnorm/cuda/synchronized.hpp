// SPDX-License-Identifier: MIT
#pragma once

// Batch normalization of one batch in parts, each on the device of a rank. How ranks reach each other is a communicator's
// matter:
//
//   ranks(), rank()                      std::int64_t
//   all_gather(data, doubles, stream)    enqueues: every rank has the doubles of rank r at data[r * doubles], its own already
//   maximum(values, count)               waits: std::int64_t in host memory, each becomes the largest of all ranks

#include <exception>

#include <batchnorm/cuda.hpp>

namespace batchnorm::cuda::detail {

/// Bytes of what the ranks tell each other, at the front of a workspace; what the kernels of a rank need follows. Backward is
/// what they tell most in. More than any workspace has where that would overflow.
inline std::size_t bytes_of_sums(std::int64_t ranks, std::int64_t channels) noexcept {
  constexpr std::size_t most = std::size_t{1} << 63;
  const RankSums sums{nullptr, ranks, channels, rank_fields(BackwardCall<float>())};
  std::size_t bytes = 0;
  const bool overflows = __builtin_mul_overflow(sums.stride(), ranks, &bytes) ||
                         __builtin_mul_overflow(bytes, sizeof(double), &bytes) || bytes > most;
  return overflows ? most : (bytes + 15) / 16 * 16;
}

/// Of every call for that shape, forward or backward.
template <Element T>
std::size_t synchronized_bytes(Format format, const Shape& shape, std::int64_t ranks) {
  const Geometry g = geometry_of_shape<T>("batchnorm::cuda::SyncBatchNorm::workspace_bytes", format, shape);
  return bytes_of_sums(ranks, g.c) + library::workspace_bytes<DeviceElement<T>>(g);
}

/// A call whose arguments are right, but for the workspace.
template <class Communicator, class T, template <class> class Call>
void run_synchronized(const Communicator& communicator, const arguments::Arguments& arguments, const Call<T>& call,
                      const Workspace& workspace, Stream stream) {
  const RankSums sums{static_cast<double*>(workspace.data), communicator.ranks(), call.geometry.c, rank_fields(call)};
  const std::size_t in_front = bytes_of_sums(sums.ranks, sums.channels);
  check_workspace(arguments, workspace, in_front + library::workspace_bytes<T>(call.geometry));
  if (call.geometry.c == 0) return;
  void* const rest = static_cast<std::byte*>(workspace.data) + in_front;
  library::collect(call, sums, communicator.rank(), rest, stream);
  communicator.all_gather(sums.data, static_cast<std::size_t>(sums.stride()), stream);
  library::complete(call, sums, rest, stream);
}

template <Element T, class Communicator, Epilogue<T> E>
void synchronized_forward(const Communicator& communicator, Format format, const Options& options, const TensorView<const T>& x,
                          const TensorView<const parameter_t<T>>& scale, const TensorView<const parameter_t<T>>& bias,
                          const StatisticView<parameter_t<T>>& mean, const StatisticView<parameter_t<T>>& variance,
                          const OutputViews<T, parameter_t<T>>& out, const E& epilogue, const Workspace& workspace,
                          Stream stream) {
  if (!options.is_training) {
    return batch_norm<T>(format, options, x, scale, bias, mean, variance, out, epilogue, workspace, stream);
  }
  arguments::Arguments arguments("batchnorm::cuda::SyncBatchNorm", x, format, arguments::Replaceable::yes,
                                 arguments::output_replaces);
  const auto call = forward_call<T>(arguments, options, x, scale, bias, mean, variance, out, epilogue);
  run_synchronized(communicator, arguments, call, workspace, stream);
}

template <Element T, class Communicator, GradientPath<T> G>
void synchronized_backward(const Communicator& communicator, Format format, const Options& options,
                           const TensorView<const T>& dy, const TensorView<const T>& x,
                           const TensorView<const parameter_t<T>>& scale, const TensorView<const parameter_t<T>>& mean,
                           const TensorView<const parameter_t<T>>& variance, const GradientViews<T, parameter_t<T>>& out,
                           const G& through, const Workspace& workspace, Stream stream) {
  arguments::Arguments arguments("batchnorm::cuda::SyncBatchNorm::backward", x, format, arguments::Replaceable::no,
                                 arguments::gradient_replaces);
  const auto call = backward_call<T>(arguments, options, dy, x, scale, mean, variance, out, through);
  run_synchronized(communicator, arguments, call, workspace, stream);
}

/// Whether the ranks mean one batch. Every rank throws, or none does.
template <Element T, class Communicator>
void check_agreement(const Communicator& communicator, Format format, const Options& options, const Shape& shape) {
  constexpr std::string_view name = "batchnorm::cuda::SyncBatchNorm::check_agreement";
  std::exception_ptr own;
  std::int64_t channels = 0;
  try {
    channels = geometry_of_shape<T>(name, format, shape).c;
  } catch (...) {
    own = std::current_exception();
  }
  const std::int64_t training = options.is_training ? 1 : 0;
  std::int64_t largest[] = {own ? 1 : 0, channels, -channels, training, -training};
  communicator.maximum(largest, std::size(largest));
  if (own) std::rethrow_exception(own);
  const std::string called(name);
  if (largest[0] != 0) batchnorm::detail::fail<ShapeError>(called + ": the shape of another rank is refused there");
  if (largest[1] != -largest[2]) {
    batchnorm::detail::fail<ShapeError>(called + ": C is " + std::to_string(channels) + " here, but from " +
                                        std::to_string(-largest[2]) + " to " + std::to_string(largest[1]) + " among the ranks");
  }
  if (largest[3] != -largest[4]) {
    batchnorm::detail::fail<ValueError>(called + ": some ranks are in training, others in inference");
  }
}

}  // namespace batchnorm::cuda::detail
