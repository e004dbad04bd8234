// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <batchnorm/call/arguments.hpp>
#include <batchnorm/errors.hpp>
#include <batchnorm/options.hpp>

namespace batchnorm {

/// @file
/// The options of other frameworks as ours. Their "momentum" weighs the new statistic or the old one, and the variance that
/// enters the running one is divided by m - 1 or by m:
///
///   framework                       weighs    default and epsilon   running variance
///   PyTorch, cuDNN, mindspore.ops   new       0.1     1e-5          unbiased
///   mindspore.nn                    old       0.9     1e-5          unbiased
///   ONNX BatchNormalization-15      old       0.9     1e-5          biased
///   Keras 3                         old       0.99    1e-3          biased
///   Flax                            old       0.99    1e-5          biased
///   PaddlePaddle on the CPU         old       0.9     1e-5          biased
///   TensorFlow FusedBatchNormV3     new       1       1e-4          unbiased
///   oneDNN                          no running statistics           -
///   Caffe                           old       0.999   1e-5          unbiased; the weight changes from step to step
///   Darknet                         inference only    1e-6          epsilon is outside of the root
///
/// With one value per channel (m == 1), where some of these refuse the batch, ignore it or give NaN, ours stays finite: the
/// variance 0 enters.
///
/// Each function takes what the framework is given and returns what BatchNorm is given, for training unless told otherwise:
///
///   const BatchNorm<float> norm{from_keras(0.95)};
///
/// A bool is no weight: from_keras(true) would mean momentum 1, so it does not compile.
///
/// ONNX, PaddlePaddle and Caffe store a weight as float and subtract it from 1 in the type of the data: 1 - 0.9F is
/// 0.10000002384185791, which differs from 0.1 by four units in the last place of a float. Theirs are floats here too.
///
/// @throws ValueError   a weight that is not in [0, 1], under the framework's own name; BatchNorm checks epsilon

inline namespace BATCHNORM_KERNELS {
namespace arguments {

/// A weight of the new or of the old statistic, in [0, 1].
inline double checked_weight(std::string_view call, std::string_view name, double value) {
  if (detail::is_from_0_to_1(value)) return value;
  batchnorm::detail::fail<ValueError>(std::string(call) + ": " + std::string(name) + " is " + to_string(value) +
                                      ", it must be in [0, 1]");
}

/// An epsilon that is added to the root: its square is to be a normal double, and an epsilon of ours.
inline void check_outside_epsilon(std::string_view call, double epsilon) {
  if (detail::is_from_0_to_1(epsilon) && epsilon >= 1e-150) return;
  batchnorm::detail::fail<ValueError>(std::string(call) + ": epsilon is " + to_string(epsilon) + ", it must be in [1e-150, 1]");
}

}  // namespace arguments

/// torch.nn.BatchNorm1d, 2d, 3d and torch.nn.functional.batch_norm. momentum=None there is the cumulative average: give each
/// call CallOptions::batch_number, which is num_batches_tracked once it has counted the batch.
inline Options from_pytorch(double momentum = 0.1, double epsilon = 1e-5, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = arguments::checked_weight("batchnorm::from_pytorch", "momentum", momentum)};
}

/// mindspore.ops.BatchNorm: our own meaning.
inline Options from_mindspore_ops(double momentum = 0.1, double epsilon = 1e-5, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = arguments::checked_weight("batchnorm::from_mindspore_ops", "momentum", momentum)};
}

/// mindspore.nn.BatchNorm1d, 2d, 3d and SyncBatchNorm: momentum weighs the old.
inline Options from_mindspore_nn(double momentum = 0.9, double epsilon = 1e-5, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = 1 - arguments::checked_weight("batchnorm::from_mindspore_nn", "momentum", momentum)};
}

/// cudnnBatchNormalizationForwardTraining: exponentialAverageFactor weighs the new (cuDNN has no default of it). Its users'
/// 1 / (1 + n) in call n = 0, 1, ... is the cumulative average: CallOptions::batch_number = n + 1. What it saves for the
/// gradient is not a variance: variance_of_inverse_deviation().
inline Options from_cudnn(double exponential_average_factor = 0.1, double epsilon = 1e-5, bool is_training = true) {
  return {
      .is_training = is_training,
      .epsilon = epsilon,
      .momentum = arguments::checked_weight("batchnorm::from_cudnn", "exponentialAverageFactor", exponential_average_factor)};
}

/// ONNX BatchNormalization, opset 15; is_training is its training_mode.
inline Options from_onnx(float momentum = 0.9F, float epsilon = 1e-5F, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = 1 - arguments::checked_weight("batchnorm::from_onnx", "momentum", momentum),
          .running_variance = RunningVariance::biased};
}

/// keras.layers.BatchNormalization of Keras 3.
inline Options from_keras(double momentum = 0.99, double epsilon = 1e-3, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = 1 - arguments::checked_weight("batchnorm::from_keras", "momentum", momentum),
          .running_variance = RunningVariance::biased};
}

/// flax.linen.BatchNorm and flax.nnx.BatchNorm; is_training is not use_running_average.
inline Options from_flax(double momentum = 0.99, double epsilon = 1e-5, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = 1 - arguments::checked_weight("batchnorm::from_flax", "momentum", momentum),
          .running_variance = RunningVariance::biased};
}

/// paddle.nn.BatchNorm1D, 2D, 3D as they are on the CPU; on GPUs they call cuDNN, whose running variance is unbiased.
inline Options from_paddle(float momentum = 0.9F, float epsilon = 1e-5F, bool is_training = true) {
  return {.is_training = is_training,
          .epsilon = epsilon,
          .momentum = 1 - arguments::checked_weight("batchnorm::from_paddle", "momentum", momentum),
          .running_variance = RunningVariance::biased};
}

/// tf.raw_ops.FusedBatchNormV3: the default factor 1 stores the statistics of the batch.
inline Options from_tensorflow(double exponential_avg_factor = 1, double epsilon = 1e-4, bool is_training = true) {
  return {
      .is_training = is_training,
      .epsilon = epsilon,
      .momentum = arguments::checked_weight("batchnorm::from_tensorflow", "exponential_avg_factor", exponential_avg_factor)};
}

/// oneDNN's batch normalization keeps no running statistics: those given in training stay as they are, and may as well be
/// absent. What it puts out as variance is the biased one, our batch_variance. is_training is not use_global_stats. oneDNN has
/// no default epsilon, this is ours.
inline Options from_onednn(double epsilon = 1e-5, bool is_training = true) {
  return {.is_training = is_training, .epsilon = epsilon, .momentum = 0, .running_variance = RunningVariance::biased};
}

Options from_pytorch(std::same_as<bool> auto, auto...) = delete;        ///< a bool is no weight
Options from_mindspore_ops(std::same_as<bool> auto, auto...) = delete;  ///< a bool is no weight
Options from_mindspore_nn(std::same_as<bool> auto, auto...) = delete;   ///< a bool is no weight
Options from_cudnn(std::same_as<bool> auto, auto...) = delete;          ///< a bool is no weight
Options from_onnx(std::same_as<bool> auto, auto...) = delete;           ///< a bool is no weight
Options from_keras(std::same_as<bool> auto, auto...) = delete;          ///< a bool is no weight
Options from_flax(std::same_as<bool> auto, auto...) = delete;           ///< a bool is no weight
Options from_paddle(std::same_as<bool> auto, auto...) = delete;         ///< a bool is no weight
Options from_tensorflow(std::same_as<bool> auto, auto...) = delete;     ///< a bool is no weight
Options from_onednn(std::same_as<bool> auto, auto...) = delete;         ///< a bool is no weight

// ---- Caffe

/// Caffe's BatchNorm layer stores sums, not averages, and their weight in a third blob. A training step computes
///
///   weight = 1 + fraction * weight        blob = batch statistic + fraction * blob
///
/// and blob / weight is the running statistic: our momentum of that step is 1 / weight. A training loop:
///
///   batchnorm::CaffeAverage average{.weight = third_blob};
///   ... BatchNorm<float>{from_caffe(average)}(x, scale, bias, mean, variance) ...
///   average.weight = average.next_weight();
struct CaffeAverage {
  float fraction = 0.999F;  ///< moving_average_fraction, in [0, 1]
  double weight = 0;        ///< the third blob; 0 before the first step

  /// The weight of the next training step: 1 + fraction * weight.
  double next_weight() const noexcept { return std::fma(static_cast<double>(fraction), weight, 1.0); }
};

/// Options of the next training step.
/// @throws ValueError   also where the weight is negative or not finite
inline Options from_caffe(const CaffeAverage& average = {}, float epsilon = 1e-5F, bool is_training = true) {
  arguments::checked_weight("batchnorm::from_caffe", "moving_average_fraction", average.fraction);
  if (!detail::is_finite_from_0(average.weight)) {
    detail::fail<ValueError>("batchnorm::from_caffe: weight is " + arguments::to_string(average.weight) +
                             ", it must be a finite number from 0");
  }
  return {.is_training = is_training, .epsilon = epsilon, .momentum = 1 / average.next_weight()};
}

/// Running mean or variance from Caffe's first or second blob and the weight, its third: blob / weight, and zeros where the
/// weight is 0, as Caffe takes them then.
/// @throws ValueError   the weight is negative or not finite
template <std::floating_point P>
std::vector<P> caffe_statistic(std::type_identity_t<std::span<const P>> blob, P weight) {
  if (!detail::is_finite_from_0(static_cast<double>(weight))) {
    detail::fail<ValueError>("batchnorm::caffe_statistic: weight is " + arguments::to_string(static_cast<double>(weight)) +
                             ", it must be a finite number from 0");
  }
  std::vector<P> statistic(blob.size());
  for (std::size_t c = 0; weight > 0 && c < blob.size(); ++c) statistic[c] = blob[c] / weight;
  return statistic;
}

// ---- epsilon outside of the root

/// Darknet's inference on the CPU divides by sqrt(variance) + epsilon, not by sqrt(variance + epsilon). As the square of the
/// former is the sum of
///
///   our epsilon = epsilon^2        our variance = variance + 2 * epsilon * sqrt(variance)
///
/// the two are the same map with these:
///
///   const std::vector<float> variance = darknet_variance<float>(rolling_variance);
///   const BatchNorm<float> norm{from_darknet()};   // inference, with rolling_mean and this variance
///
/// Our epsilon must be that small: with 1e-5 a channel of variance 0 would need the variance 1e-12 - 1e-5, which no float is
/// near enough to (1 / deviation is off by 7 %). There is no such form for training, where the variance is the batch's.
/// @throws ValueError   epsilon is not in [1e-150, 1]: its square is no normal number or beyond 1
inline Options from_darknet(double epsilon = 1e-6) {
  arguments::check_outside_epsilon("batchnorm::from_darknet", epsilon);
  return {.is_training = false, .epsilon = epsilon * epsilon};
}

Options from_darknet(std::same_as<bool> auto) = delete;  ///< a bool is no epsilon

/// The variance that stands for Darknet's rolling variance beside from_darknet(epsilon). NaN where the variance is below 0, as
/// Darknet's y is.
/// @throws ValueError   as from_darknet
template <std::floating_point P>
std::vector<P> darknet_variance(std::type_identity_t<std::span<const P>> rolling_variance, double epsilon = 1e-6) {
  arguments::check_outside_epsilon("batchnorm::darknet_variance", epsilon);
  std::vector<P> variance(rolling_variance.size());
  for (std::size_t c = 0; c < variance.size(); ++c) {
    const double v = static_cast<double>(rolling_variance[c]);
    variance[c] = static_cast<P>(std::fma(2 * epsilon, std::sqrt(v), v));
  }
  return variance;
}

// ---- saved statistics

/// cuDNN and PyTorch save 1 / sqrt(variance + epsilon) for the gradient where we save the (biased) variance. `epsilon` is the
/// one that it was saved with, and the one that our gradient must be given. In double; beside a variance far below epsilon the
/// result may be negative by a rounding, variance + epsilon is right all the same.
/// @throws ValueError   inverse exceeds 1 / sqrt(epsilon) by more than a rounding (0.5 %): it was saved with another epsilon or
///                      one outside the root, and variance + epsilon would lose every digit of a float
inline double variance_of_inverse_deviation(double inverse, double epsilon) {
  const double most = 1 / std::sqrt(epsilon);
  if (std::abs(inverse) > 1.005 * most) {
    detail::fail<ValueError>("batchnorm::variance_of_inverse_deviation: inverse is " + arguments::to_string(inverse) +
                             ", 1 / sqrt(epsilon) = " + arguments::to_string(most) +
                             " is the most of a variance from 0; was it saved with another epsilon?");
  }
  const double deviation = 1 / inverse;
  return std::fma(deviation, deviation, -epsilon);
}

/// 1 / sqrt(variance + epsilon)
inline double inverse_deviation_of_variance(double variance, double epsilon) noexcept {
  return 1 / std::sqrt(variance + epsilon);
}

// ---- by name

/// What from_NAME() returns with the framework's defaults. The names are those of the functions above. Caffe has none, since
/// its momentum is another in each step, nor Darknet, whose variance is to be converted as well.
/// @throws ValueError   any other name; the message lists the known ones
inline Options parse_convention(std::string_view name, bool is_training = true) {
  struct Convention {
    std::string_view name;
    Options options;
  };
  const Convention conventions[] = {{"pytorch", from_pytorch()},
                                    {"mindspore_ops", from_mindspore_ops()},
                                    {"mindspore_nn", from_mindspore_nn()},
                                    {"cudnn", from_cudnn()},
                                    {"onnx", from_onnx()},
                                    {"keras", from_keras()},
                                    {"flax", from_flax()},
                                    {"paddle", from_paddle()},
                                    {"tensorflow", from_tensorflow()},
                                    {"onednn", from_onednn()}};
  std::string known;
  for (Convention convention : conventions) {
    convention.options.is_training = is_training;
    if (convention.name == name) return convention.options;
    known.append(known.empty() ? "" : ", ").append(convention.name);
  }
  detail::fail<ValueError>("batchnorm: unknown convention '" + std::string(name) + "', known are " + known);
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
