// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the operator and its calls are set to.

#include <cstdint>
#include <optional>

#include <batchnorm/errors.hpp>

namespace batchnorm {

class Executor;
struct Tuning;

/// Which variance enters the running variance.
enum class RunningVariance {
  unbiased,  ///< the sum of squared deviations divided by max(m - 1, 1), m values per channel
  biased     ///< the sum of squared deviations divided by m
};

/// What a channel whose batch mean or variance is NaN or infinite in the type of the parameters does to its running statistics.
/// It is the variance that enters the running one: the unbiased one may overflow where the biased one does not.
enum class NotFinite {
  update,  ///< they take it in, as the formula says
  keep     ///< they stay as they were: a mixed-precision training step that overflowed is skipped
};

/// What a BatchNorm is set to for its lifetime.
struct Options {
  /// Training normalises with the statistics of the batch and updates the running ones; inference uses the running ones.
  bool is_training = false;

  /// Added to the variance under the root. In (0, 1].
  double epsilon = 1e-5;

  /// Weight of the NEW statistic: running = (1 - momentum) * running + momentum * batch. In [0, 1].
  /// 0 leaves the running statistics bitwise as they are, 1 replaces them whatever they were.
  double momentum = 0.1;

  /// Which variance enters the running variance; the batch's own, by which training normalises, is always the biased one.
  RunningVariance running_variance = RunningVariance::unbiased;

  /// What a channel whose batch mean or variance is NaN or infinite does to its running statistics.
  NotFinite not_finite = NotFinite::update;
};

/// What one call is given beside its tensors.
struct CallOptions {
  /// Runs the blocks of the call; null means default_executor(). It changes the time, never the result.
  Executor* executor = nullptr;

  /// Cumulative average: the number of this batch, counted from 1. The momentum of this call is then 1 / batch_number, so
  /// that after n batches the running statistics are the plain average of n. 0 means the momentum of the options.
  std::int64_t batch_number = 0;

  /// Cache sizes and thresholds for experiments; null means those of this machine. They change the time, never the result.
  const Tuning* tuning = nullptr;

  /// Where an error in the arguments goes instead of being thrown: the call then returns at once, what it returns is empty, and
  /// nothing else is written. After a call without an error it holds nothing. Null: errors are thrown. Memory that cannot be
  /// had is std::bad_alloc in any case.
  std::optional<Error>* error = nullptr;

  /// Whether the call ends when its arguments are found right: nothing is written. check() sets it.
  bool only_checks = false;
};

}  // namespace batchnorm
