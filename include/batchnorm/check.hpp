// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What is wrong with a call, as a value: for programs without exceptions, and for those that want to know before.

#include <concepts>
#include <optional>

#include <batchnorm/call/arguments.hpp>
#include <batchnorm/errors.hpp>
#include <batchnorm/options.hpp>

namespace batchnorm {
inline namespace BATCHNORM_KERNELS {

/// What is wrong with the arguments of a call, or nothing. It makes the call's checks and no more: nothing is written, and
/// nothing is read but what a check concerns (scale and bias of InPlaceBatchNorm, what folding computes from). `call` makes one
/// call with the options that it is given:
///
///     const auto error = batchnorm::check([&](const CallOptions& call) { moments<float>(x, Format::NCHW, call); });
///     if (error) return report(error->message);
///
/// BatchNorm, InPlaceBatchNorm and PreparedInference have check functions of their own, which do the same. Every call that
/// takes CallOptions can be checked, but not those on CUDA devices. Forms that return tensors allocate them to be checked. A
/// call may also check and go on in one step: CallOptions::error.
/// @throws std::bad_alloc
template <std::invocable<const CallOptions&> Call>
std::optional<Error> check(const Call& call, const CallOptions& options = {}) {
  std::optional<Error> error;
  call(arguments::checking(options, error));
  return error;
}

/// What is wrong with the options of a BatchNorm, or nothing: its constructor throws the same.
inline std::optional<Error> check(const Options& options) {
  std::optional<Error> error;
  arguments::check_options(arguments::Reporter("batchnorm::BatchNorm", CallOptions{.error = &error}), options);
  return error;
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
