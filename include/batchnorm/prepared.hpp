// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Inference whose statistics stay as they are: everything that does not depend on x is computed once.

#include <optional>

#include <batchnorm/check.hpp>
#include <batchnorm/normalize.hpp>

namespace batchnorm {

namespace detail {

/// What a prepared inference keeps. One that was moved from has no channels.
template <class Compute>
struct PreparedState {
  Format format = Format::NCHW;
  double epsilon = 1e-5;
  std::int64_t channels = 0;
  std::int64_t length = 1;  ///< values of a plane that the coefficients of positions are for
  std::int64_t period = 0;  ///< positions after which those repeat
  Tensor<Compute> memory;   ///< coefficients of channels, then of positions

  PreparedState() = default;
  PreparedState(const PreparedState&) = default;
  PreparedState(PreparedState&& other) noexcept { swap(other); }
  PreparedState& operator=(const PreparedState& other) { return *this = PreparedState(other); }
  PreparedState& operator=(PreparedState&& other) noexcept {
    PreparedState taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~PreparedState() = default;

  void swap(PreparedState& other) noexcept {
    std::swap(format, other.format);
    std::swap(epsilon, other.epsilon);
    std::swap(channels, other.channels);
    std::swap(length, other.length);
    std::swap(period, other.period);
    std::swap(memory, other.memory);
  }
};

}  // namespace detail

inline namespace BATCHNORM_KERNELS {
namespace arguments {

template <Element T, ParameterOf<T> P>
batchnorm::detail::PreparedState<compute_t<T>> prepare(Format format, const InferenceParameters<P>& parameters, double epsilon,
                                                       const Shape& shape, const CallOptions& call = {});
template <Element T, ParameterOf<T> P>
void refresh(batchnorm::detail::PreparedState<compute_t<T>>& state, const InferenceParameters<P>& parameters);
template <Element T, ParameterOf<T> P>
void check_refresh(const batchnorm::detail::PreparedState<compute_t<T>>& state, const InferenceParameters<P>& parameters,
                   const CallOptions& call);
template <Element T, Epilogue<T> E>
void infer_prepared(const batchnorm::detail::PreparedState<compute_t<T>>& state, const TensorView<const T>& x,
                    const TensorView<T>& y, const E& epilogue, const CallOptions& call);

}  // namespace arguments
}  // namespace BATCHNORM_KERNELS

/// Batch normalization in inference, prepared once for any number of calls:
///
///   y[n,c,s] = epilogue(scale[c] * (x[n,c,s] - mean[c]) / sqrt(variance[c] + epsilon) + bias[c])
///
///     const PreparedInference<float> layer(Format::NHWC, {.scale = scale, .bias = bias, .mean = mean, .variance = variance});
///     layer(x, y);
///
/// The results are those of BatchNorm, bit for bit, on the instruction set that was active when the object was made or
/// refreshed. A call computes no root and no quotient. It allocates only where planes of less than 64 bytes do not lie as those
/// of a dense tensor of the shape that the constructor was given, and where it is the first to need the default team of
/// threads.
///
/// The object keeps a copy of what it needs, so the parameters may change or go. Nothing but refresh() changes it: one object
/// may be used by several threads at once. It copies and moves; one that was moved from has no channels.
template <Element T, ParameterOf<T> P = parameter_t<T>>
class PreparedInference {
 public:
  /// Reads the parameters. C is the number of channels of mean.
  ///
  ///   shape   of x, where it is known; x may have another one, of as many channels
  ///
  /// @throws ShapeError   a parameter is not of shape [C]; `shape` is not of rank 2 to 5, or not of C channels
  /// @throws ValueError   mean or variance is absent; null or misaligned data; epsilon not in (0, 1]; BATCHNORM_ISA cannot be
  ///                      used
  /// @throws std::bad_alloc
  BATCHNORM_INLINE explicit PreparedInference(Format format, const InferenceParameters<P>& parameters, double epsilon = 1e-5,
                                              const Shape& shape = {})
      : state_(arguments::prepare<T, P>(format, parameters, epsilon, shape)) {}

  /// Reads other parameters of as many channels; format, epsilon and shape stay. No call may be running.
  /// @throws ShapeError, ValueError   as the constructor does; then everything stays
  BATCHNORM_INLINE void refresh(const InferenceParameters<P>& parameters) { arguments::refresh<T, P>(state_, parameters); }

  /// y from x: [N, C, spatial...] or [N, spatial..., C] by the format, rank 2 to 5, same shape. y may be x itself, or the
  /// residual of the epilogue; no other overlap.
  /// @throws ShapeError, ValueError   as BatchNorm does; x has another number of channels
  /// @throws std::bad_alloc           only where a call allocates, and before anything is written
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE void operator()(TensorView<const T> x, TensorView<T> y, const E& epilogue = {},
                                   const CallOptions& call = {}) const {
    arguments::infer_prepared<T>(state_, x, y, epilogue, call);
  }

  /// What the constructor would throw, or nothing.
  BATCHNORM_INLINE static std::optional<Error> check(Format format, const InferenceParameters<P>& parameters,
                                                     double epsilon = 1e-5, const Shape& shape = {}) {
    std::optional<Error> error;
    arguments::prepare<T, P>(format, parameters, epsilon, shape, arguments::checking({}, error));
    return error;
  }

  /// What refresh() would throw, or nothing.
  BATCHNORM_INLINE std::optional<Error> check_refresh(const InferenceParameters<P>& parameters) const {
    std::optional<Error> error;
    arguments::check_refresh<T, P>(state_, parameters, arguments::checking({}, error));
    return error;
  }

  /// What is wrong with the same call of operator(), or nothing; no data is read or written.
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE std::optional<Error> check(TensorView<const T> x, TensorView<T> y, const E& epilogue = {},
                                              const CallOptions& call = {}) const {
    std::optional<Error> error;
    (*this)(x, y, epilogue, arguments::checking(call, error));
    return error;
  }

  Format format() const noexcept { return state_.format; }            ///< the order of the axes of x and y
  std::int64_t channels() const noexcept { return state_.channels; }  ///< C
  double epsilon() const noexcept { return state_.epsilon; }          ///< what is added to the variance

 private:
  detail::PreparedState<compute_t<T>> state_;
};

// ----------------------------------------------------------------------------------------------------------------------------

inline namespace BATCHNORM_KERNELS {
namespace arguments {

inline constexpr std::string_view name_of_prepared = "batchnorm::PreparedInference";

/// What the kernels take: coefficients of normalization, 3 arrays over channels, then 3 over positions.
struct PreparedArrays {
  static constexpr int count = 3;

  std::int64_t channels, positions;  // elements of each array

  /// Those of a period and of the line after it.
  template <class Compute>
  static std::int64_t positions_of(const batchnorm::detail::PreparedState<Compute>& state) noexcept {
    return state.period + 64;
  }

  template <class Compute>
  explicit PreparedArrays(const batchnorm::detail::PreparedState<Compute>& state) noexcept
      : channels(cpu::padded(state.channels)), positions(cpu::padded(positions_of(state))) {}

  std::int64_t elements() const noexcept { return count * (channels + positions); }

  template <class Compute>
  cpu::PreparedCoefficients in(const batchnorm::detail::PreparedState<Compute>& state) const noexcept {
    // The kernels' arrays are not constant, though they only read them.
    auto* const memory = const_cast<Compute*>(state.memory.data());
    cpu::PreparedCoefficients result;
    for (int k = 0; k < count; ++k) {
      result.of_channels[static_cast<std::size_t>(k)] = memory + k * channels;
      result.of_positions[static_cast<std::size_t>(k)] = memory + count * channels + k * positions;
    }
    result.length = state.length;
    result.period = state.period;
    return result;
  }
};

/// The elements of a shape; 0 where it cannot have as many, which is reported.
inline std::int64_t prepared_elements(const Reporter& reporter, const Shape& shape, std::string_view name) {
  const std::int64_t elements = counted(reporter, shape, name);
  if (elements <= batchnorm::detail::most_elements) return elements;
  reporter.fail<ShapeError>(std::string(name) + " has more than 2^53 elements or channels");
  return 0;
}

/// Values of a plane of that shape where planes are so short that coefficients are kept for positions, otherwise 1.
template <Element T>
std::int64_t prepared_length(const Reporter& reporter, const Shape& shape, Format format, std::int64_t channels) {
  if (shape.rank() == 0) return 1;
  const auto refuse = [&](std::string_view number, std::int64_t value, std::string_view expected) {
    reporter.fail<ShapeError>("shape has " + std::string(number) + std::to_string(value) + std::string(expected));
  };
  if (shape.rank() < 2 || shape.rank() > 5) return refuse("rank ", shape.rank(), ", expected 2 to 5"), 1;
  const std::int64_t elements = prepared_elements(reporter, shape, "x"), given = shape[cpu::channel_axis(shape, format)];
  if (given != channels) refuse("", given, " channels, expected C = " + std::to_string(channels));
  if (elements == 0 || reporter.failed()) return 1;
  const std::int64_t length = cpu::dense_geometry(shape, elements, format).s;
  return length * static_cast<std::int64_t>(sizeof(T)) < 64 ? length : 1;
}

/// The parameters, checked; null where absent.
template <Element P>
struct PreparedParameters {
  const P *scale, *bias, *mean, *variance;

  PreparedParameters(const Reporter& reporter, std::int64_t channels, const InferenceParameters<P>& parameters) {
    Arguments arguments(reporter, channels);
    arguments.check_present("mean", parameters.mean.present(), "inference normalises with it");
    arguments.check_present("variance", parameters.variance.present(), "inference normalises with it");
    mean = arguments.channel_vector("mean", parameters.mean);
    variance = arguments.channel_vector("variance", parameters.variance);
    scale = arguments.channel_vector("scale", parameters.scale);
    bias = arguments.channel_vector("bias", parameters.bias);
  }
};

template <Element P, class Compute>
void compute(batchnorm::detail::PreparedState<Compute>& state, const PreparedParameters<P>& given) {
  const Isa isa = active_isa();
  if (state.channels == 0) return;
  const cpu::PreparedCoefficients arrays = PreparedArrays(state).in(state);
  cpu::in_default_mode([&] {
    cpu::run(isa, cpu::ConstantCoefficients<Compute, P>{given.mean, given.variance, given.scale, given.bias, state.epsilon,
                                                        state.channels,
                                                        cpu::NormalizationCoefficients<Compute>(arrays.of_channels)});
  });
  cpu::expand<Compute>(arrays.of_channels, PreparedArrays::count, state.channels, state.length, arrays.of_positions,
                       PreparedArrays::positions_of(state));
}

template <Element T, ParameterOf<T> P>
batchnorm::detail::PreparedState<compute_t<T>> prepare(Format format, const InferenceParameters<P>& parameters, double epsilon,
                                                       const Shape& shape, const CallOptions& call) {
  const Reporter reporter(name_of_prepared, call);
  check_epsilon(reporter, epsilon);
  batchnorm::detail::PreparedState<compute_t<T>> state;
  state.format = format;
  state.epsilon = epsilon;
  if (parameters.mean.present()) state.channels = prepared_elements(reporter, parameters.mean.shape(), "mean");
  const PreparedParameters<P> given(reporter, state.channels, parameters);
  state.length = prepared_length<T>(reporter, shape, format, state.channels);
  if (stops_on_this_thread(reporter)) return {};
  state.period = cpu::flat_period(state.channels * state.length);
  state.memory = Tensor<compute_t<T>>(Shape{PreparedArrays(state).elements()});
  compute(state, given);
  return state;
}

template <Element T, ParameterOf<T> P>
void refresh(batchnorm::detail::PreparedState<compute_t<T>>& state, const InferenceParameters<P>& parameters) {
  compute(state, PreparedParameters<P>(name_of_prepared, state.channels, parameters));
}

template <Element T, ParameterOf<T> P>
void check_refresh(const batchnorm::detail::PreparedState<compute_t<T>>& state, const InferenceParameters<P>& parameters,
                   const CallOptions& call) {
  const Reporter reporter(name_of_prepared, call);
  const PreparedParameters<P> given(reporter, state.channels, parameters);
  static_cast<void>(given);
  stops_on_this_thread(reporter);
}

/// The number of elements in the plain case that needs no further check: x and y are of one shape, without gaps, of that many
/// channels, in memory that the two share wholly or not at all. Otherwise 0.
template <Element T>
std::int64_t plain_elements(const TensorView<const T>& x, const TensorView<T>& y, Format format,
                            std::int64_t channels) noexcept {
  const Shape& shape = x.shape();
  if (!x.present() || shape.rank() < 2 || shape.rank() > 5 || y.shape() != shape) return 0;
  if (x.data() == nullptr || y.data() == nullptr || shape[cpu::channel_axis(shape, format)] != channels) return 0;
  std::int64_t elements = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    const auto i = static_cast<std::size_t>(axis);
    if (x.strides()[i] != elements || y.strides()[i] != elements || shape[axis] <= 0) return 0;
    if (__builtin_mul_overflow(elements, shape[axis], &elements)) return 0;
  }
  if (elements > batchnorm::detail::most_elements) return 0;
  const std::uintptr_t from = address(x.data()), to = address(y.data());
  const auto bytes = static_cast<std::uintptr_t>(elements) * sizeof(T);
  if ((from | to) % alignof(T) != 0 || from + bytes < from || to + bytes < to) return 0;
  return from == to || from + bytes <= to || to + bytes <= from ? elements : 0;
}

template <Element T, Epilogue<T> E>
void infer_prepared(const batchnorm::detail::PreparedState<compute_t<T>>& state, const TensorView<const T>& x,
                    const TensorView<T>& y, const E& epilogue, const CallOptions& call) {
  using Checked = NormalizeArguments<T, E>;
  typename Checked::Work work{};
  const Reporter reporter(name_of_prepared, call);
  bool is_empty = false;
  const std::int64_t elements = Checked::Parts::adds_residual ? 0 : plain_elements(x, y, state.format, state.channels);
  if (elements > 0) {
    work.operation.activation = Checked::Parts::activation(epilogue);
    work.geometry = cpu::dense_geometry(x.shape(), elements, state.format);
    work.in[0] = {x.data(), cpu::dense_pitch(work.geometry)};
    work.out[0] = {y.data(), cpu::dense_pitch(work.geometry)};
  } else {
    Arguments arguments(reporter, x, state.format, Replaceable::yes, output_replaces);
    arguments.check_channels(state.channels);
    work = Checked(arguments, x, y, epilogue).work;
    arguments.check_overlap();
    is_empty = arguments.empty();
  }
  if (stops(reporter, call)) return;
  const cpu::Machine machine = machine_of<T>(call, work.geometry);
  if (!is_empty) cpu::sweep_prepared(machine, work, PreparedArrays(state).in(state));
}

}  // namespace arguments
}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
