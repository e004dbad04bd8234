// SPDX-License-Identifier: MIT
#pragma once

#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "batchnorm_c.h"
#include "calls.hpp"
#include "gradient_calls.hpp"

// The calls of calls.hpp and gradient_calls.hpp as structures of the C interface.
namespace support {

template <class T>
inline constexpr std::int32_t c_type = std::is_same_v<T, float>             ? BATCHNORM_FLOAT
                                       : std::is_same_v<T, double>          ? BATCHNORM_DOUBLE
                                       : std::is_same_v<T, batchnorm::half> ? BATCHNORM_HALF
                                                                            : BATCHNORM_BFLOAT16;

inline batchnorm_options c_options(const batchnorm::Options& options) {
  batchnorm_options result = batchnorm_default_options();
  result.is_training = options.is_training;
  result.epsilon = options.epsilon;
  result.momentum = options.momentum;
  result.running_variance =
      options.running_variance == batchnorm::RunningVariance::biased ? BATCHNORM_BIASED : BATCHNORM_UNBIASED;
  result.not_finite =
      options.not_finite == batchnorm::NotFinite::keep ? BATCHNORM_NOT_FINITE_KEEPS : BATCHNORM_NOT_FINITE_UPDATES;
  return result;
}

/// What every structure of arguments begins with.
template <class T, class P, class Arguments>
void set_types_and_shape(Arguments& arguments, const Shape& shape, Format format) {
  arguments.type = c_type<T>;
  arguments.parameter_type = c_type<P>;
  arguments.format = format == Format::NHWC ? BATCHNORM_NHWC : BATCHNORM_NCHW;
  arguments.rank = shape.rank();
  arguments.shape = shape.extents().data();
}

template <class P>
batchnorm_vector c_vector(std::vector<P>& values) {
  return {values.data(), std::ssize(values)};
}
template <class P>
batchnorm_const_vector c_vector(const std::vector<P>& values) {
  return {values.data(), std::ssize(values)};
}
template <class P>
batchnorm_const_vector c_vector(const std::optional<std::vector<P>>& values) {
  return values ? c_vector(*values) : batchnorm_const_vector{};
}

/// A tensor in that memory, dense unless strides are given.
template <class T>
batchnorm_tensor c_tensor(std::vector<T>& memory, std::int64_t offset = 0, std::span<const std::int64_t> strides = {}) {
  return {memory.data(), std::ssize(memory), offset, strides.data(), std::ssize(strides)};
}
template <class T>
batchnorm_const_tensor c_tensor(const std::vector<T>& memory, std::int64_t offset = 0,
                                std::span<const std::int64_t> strides = {}) {
  return {memory.data(), std::ssize(memory), offset, strides.data(), std::ssize(strides)};
}
template <class T>
batchnorm_const_tensor c_tensor(const std::optional<std::vector<T>>& memory) {
  return memory ? c_tensor(*memory) : batchnorm_const_tensor{};
}

/// "" for BATCHNORM_OK, otherwise the status and its message.
inline std::string c_error(batchnorm_status status) {
  return status == BATCHNORM_OK ? "" : std::to_string(status) + ": " + batchnorm_last_error();
}

/// The call by batchnorm_forward() into prefilled buffers.
template <class T, class P>
Result<T, P> run_in_c(const Call<T, P>& call, batchnorm_thread_team* team = nullptr) {
  const auto channels = static_cast<std::size_t>(call.extents().c);
  const std::vector<P> blank(channels, element<P>(unwritten));
  Result<T, P> result{std::vector<T>(call.x.size(), element<T>(unwritten)), blank, blank, blank, blank, {}, {}};
  if (call.mean) result.mean = *call.mean;
  if (call.variance) result.variance = *call.variance;
  batchnorm_options options = c_options(call.options);
  options.team = team;
  batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();
  set_types_and_shape<T, P>(arguments, call.shape, call.format);
  arguments.x = c_tensor(call.x);
  arguments.scale = c_vector(call.scale);
  arguments.bias = c_vector(call.bias);
  if (call.mean) arguments.mean = c_vector(result.mean);
  if (call.variance) arguments.variance = c_vector(result.variance);
  arguments.output_x = c_tensor(result.y);
  arguments.batch_mean = c_vector(result.batch_mean);
  arguments.batch_variance = c_vector(result.batch_variance);
  arguments.reserve_space_1 = c_vector(result.reserve_space_1);
  arguments.reserve_space_2 = c_vector(result.reserve_space_2);
  EXPECT_EQ(c_error(batchnorm_forward(&options, &arguments)), "");
  return result;
}

/// The call by batchnorm_backward().
template <class T, class P>
GradientResult<T, P> run_in_c(const GradientCall<T, P>& call, batchnorm_thread_team* team = nullptr) {
  GradientResult<T, P> result = blank_result(call);
  batchnorm_options options = c_options(call.options);
  options.team = team;
  batchnorm_backward_arguments arguments = batchnorm_no_backward_arguments();
  set_types_and_shape<T, P>(arguments, call.shape, call.format);
  arguments.dy = c_tensor(call.dy);
  arguments.x = c_tensor(call.x);
  arguments.scale = c_vector(call.scale);
  arguments.mean = c_vector(call.mean);
  arguments.variance = c_vector(call.variance);
  arguments.dx = c_tensor(result.dx);
  arguments.dscale = c_vector(result.dscale);
  arguments.dbias = c_vector(result.dbias);
  EXPECT_EQ(c_error(batchnorm_backward(&options, &arguments)), "");
  return result;
}

/// The call by batchnorm_double_backward().
template <class T, class P>
DoubleGradientResult<T, P> run_in_c(const DoubleGradientCall<T, P>& call, batchnorm_thread_team* team = nullptr) {
  const GradientCall<T, P>& of = call.of;
  const std::vector<T> blank(of.x.size(), element<T>(unwritten));
  DoubleGradientResult<T, P> result{blank, blank,
                                    std::vector<P>(static_cast<std::size_t>(of.extents().c), element<P>(unwritten))};
  batchnorm_options options = c_options(of.options);
  options.team = team;
  batchnorm_double_backward_arguments arguments = batchnorm_no_double_backward_arguments();
  set_types_and_shape<T, P>(arguments, of.shape, of.format);
  arguments.x = c_tensor(of.x);
  arguments.dy = c_tensor(of.dy);
  arguments.scale = c_vector(of.scale);
  arguments.mean = c_vector(of.mean);
  arguments.variance = c_vector(of.variance);
  arguments.ddx = c_tensor(call.ddx);
  arguments.ddscale = c_vector(call.ddscale);
  arguments.ddbias = c_vector(call.ddbias);
  arguments.dx = c_tensor(result.dx);
  arguments.ddy = c_tensor(result.ddy);
  arguments.dscale = c_vector(result.dscale);
  EXPECT_EQ(c_error(batchnorm_double_backward(&options, &arguments)), "");
  return result;
}

}  // namespace support
