// SPDX-License-Identifier: MIT
#pragma once

#include <string>

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
const void* c_pointer(const std::optional<std::vector<P>>& values) {
  return values ? values->data() : nullptr;
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
  arguments.x = call.x.data();
  arguments.scale = c_pointer(call.scale);
  arguments.bias = c_pointer(call.bias);
  arguments.mean = call.mean ? result.mean.data() : nullptr;
  arguments.variance = call.variance ? result.variance.data() : nullptr;
  arguments.output_x = result.y.data();
  arguments.batch_mean = result.batch_mean.data();
  arguments.batch_variance = result.batch_variance.data();
  arguments.reserve_space_1 = result.reserve_space_1.data();
  arguments.reserve_space_2 = result.reserve_space_2.data();
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
  arguments.dy = call.dy.data();
  arguments.x = call.x.data();
  arguments.scale = c_pointer(call.scale);
  arguments.mean = call.mean.data();
  arguments.variance = call.variance.data();
  arguments.dx = result.dx.data();
  arguments.dscale = result.dscale.data();
  arguments.dbias = result.dbias.data();
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
  arguments.x = of.x.data();
  arguments.dy = of.dy.data();
  arguments.scale = c_pointer(of.scale);
  arguments.mean = of.mean.data();
  arguments.variance = of.variance.data();
  arguments.ddx = c_pointer(call.ddx);
  arguments.ddscale = c_pointer(call.ddscale);
  arguments.ddbias = c_pointer(call.ddbias);
  arguments.dx = result.dx.data();
  arguments.ddy = result.ddy.data();
  arguments.dscale = result.dscale.data();
  EXPECT_EQ(c_error(batchnorm_double_backward(&options, &arguments)), "");
  return result;
}

}  // namespace support
