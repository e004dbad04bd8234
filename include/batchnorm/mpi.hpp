// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/batch_norm.hpp>
#include <batchnorm/mpi/exchange.hpp>

/// @file
/// Batch normalization whose batch is spread over the ranks of an MPI communicator. Not part of batchnorm.hpp, as it needs MPI
/// (and exceptions: without them an error handler must end the other ranks, too, as MPI_Abort does); with CMake:
///
///     find_package(batchnorm 0.1 CONFIG REQUIRED COMPONENTS mpi)
///     target_link_libraries(program PRIVATE batchnorm::mpi)
///
/// The ranks of the communicator are one group: they call the same functions in the same order, as for any collective operation
/// of MPI, each with its own part of the batch, of any size, 0 included, but with the same C and the same options. Smaller
/// groups are smaller communicators (MPI_Comm_split); an intercommunicator is refused. MPI is called by the calling thread
/// alone: MPI_THREAD_FUNNELED suffices for calls from the thread that initialized MPI, other threads need
/// MPI_THREAD_SERIALIZED.
///
/// What goes over the network: one MPI_Allreduce of 136 bytes, by which all ranks learn whether all can take part, so that all
/// throw or none does; then 3 C + 1 doubles of each rank (forward) or 2 C + 1 (backward), by one MPI_Allgather, or where there
/// are many ranks or channels in slices, by MPI_Alltoall and MPI_Allgather. They are merged in the order of the ranks:
/// statistics have the same bits everywhere, if all ranks run on the same instruction set (isa.hpp). docs/mpi.md says how that
/// scales.

/// Over the ranks of an MPI communicator.
namespace batchnorm::mpi {

/// Over whose values the gradients dscale and dbias are summed.
enum class ParameterGradients {
  of_batch,  ///< those of all ranks: the gradients of the whole batch, the same on every rank, not to be summed again
  of_rank    ///< those of the own rank, for training loops that sum the gradients of all parameters over the ranks themselves
};

inline namespace BATCHNORM_KERNELS {

/// Replaces the moments of the rank's own values by those of the values of all ranks, so that moments(), merge(), finalize()
/// and normalize() make up a forward pass. A rank without values brings Moments(C).
/// @throws ShapeError               the numbers of channels differ; on every rank
/// @throws ValueError               the communicator is null or an intercommunicator, MPI does not run, or this thread must not
///                                  call it; on every rank where one cannot use its BATCHNORM_ISA it throws this, the others
///                                  OtherRankError
/// @throws OtherRankError           another rank could not take part, its own error says why
/// @throws MpiError                 MPI failed, and the communicator's error handler returned
/// @throws std::bad_alloc
void merge(Moments& moments, MPI_Comm communicator);

/// The same for the sums of a gradient, between gradient_sums() and input_gradient(). All must be about the same mean.
void merge(GradientSums& sums, MPI_Comm communicator);

/// The operator, with the meaning of batch_norm() (batch_norm.hpp) for the batch of all ranks: in training mean and variance
/// are those of the values of all ranks, m is their number, and the running statistics, batch_mean, batch_variance and
/// reserve spaces are the same on every rank. In inference nothing is exchanged, and the communicator is not looked at.
///
///   communicator    the ranks that the batch is spread over
///   x, y, ...       this rank's part, as in batch_norm(); N = 0 where it has none
///
/// CallOptions::error takes what is wrong with this rank's arguments; the other ranks throw OtherRankError. What is wrong with
/// the communicator is thrown. check() looks at this rank's arguments alone, sends nothing, and says what batch_norm() would.
///
/// On one rank the result is that of batch_norm() bit by bit; on more it keeps the same promise of accuracy. Training reads x
/// twice, as no rank knows the statistics before all have read theirs.
///
/// @throws ShapeError, ValueError   as batch_norm() does, and on every rank where C or the options differ between ranks
/// @throws ValueError               in training: the communicator is null or an intercommunicator, MPI does not run, or this
///                                  thread must not call it
/// @throws OtherRankError           another rank's arguments are wrong, or its memory is short
/// @throws MpiError                 MPI failed, and the communicator's error handler returned
///
/// All ranks throw or none does (MpiError apart); then all outputs and running statistics are as they were. Where is_training
/// differs, the ranks in training wait for those that are not.
template <Element T, ParameterOf<T> P = parameter_t<T>, Epilogue<T> E = Identity>
void batch_norm(MPI_Comm communicator, Format format, const Options& options, std::type_identity_t<TensorView<const T>> x,
                std::type_identity_t<TensorView<const P>> scale, std::type_identity_t<TensorView<const P>> bias,
                std::type_identity_t<StatisticView<P>> mean, std::type_identity_t<StatisticView<P>> variance,
                const OutputViews<T, P>& out, const E& epilogue = {}, const CallOptions& call = {});

/// Its gradients, with the meaning of batch_norm_backward() (gradients.hpp) for the batch of all ranks.
///
///   mean, variance  [C], in training those of the whole batch, which the forward pass wrote; the same on every rank
///   dscale, dbias   sums over the values of all ranks or of this one, as `parameters` says
///
///   parameters      the same on every rank
///
/// In inference dx needs nothing from other ranks; of_batch exchanges the sums all the same, of_rank only agrees. The call is
/// collective in every mode, also in inference.
/// @throws ShapeError, ValueError, OtherRankError, MpiError   as batch_norm() does
template <Element T, ParameterOf<T> P = parameter_t<T>, GradientPath<T> G = Identity>
void batch_norm_backward(MPI_Comm communicator, Format format, const Options& options,
                         std::type_identity_t<TensorView<const T>> dy, std::type_identity_t<TensorView<const T>> x,
                         std::type_identity_t<TensorView<const P>> scale, std::type_identity_t<TensorView<const P>> mean,
                         std::type_identity_t<TensorView<const P>> variance, const GradientViews<T, P>& out,
                         const G& through = {}, const CallOptions& call = {},
                         ParameterGradients parameters = ParameterGradients::of_batch);

}  // namespace BATCHNORM_KERNELS

/// BatchNorm with these two calls: synchronised batch normalization, as others call it SyncBatchNorm.
template <Element T, Format F = Format::NCHW, ParameterOf<T> P = parameter_t<T>>
class SyncBatchNorm {
 public:
  /// The communicator stays the caller's, and must live as long as calls are made.
  /// @throws ValueError   epsilon not in (0, 1] or momentum not in [0, 1]
  BATCHNORM_INLINE explicit SyncBatchNorm(MPI_Comm communicator, const Options& options = {.is_training = true},
                                          ParameterGradients parameters = ParameterGradients::of_batch)
      : communicator_(communicator), options_(options), parameters_(parameters) {
    arguments::check_options("batchnorm::mpi::SyncBatchNorm", options);
  }

  const Options& options() const noexcept { return options_; }      ///< those it was made with
  MPI_Comm communicator() const noexcept { return communicator_; }  ///< the caller's

  /// All outputs that `out` names: mpi::batch_norm().
  /// @throws ShapeError, ValueError, OtherRankError, MpiError   as mpi::batch_norm() does
  template <Epilogue<T> E = Identity>
  BATCHNORM_INLINE void operator()(TensorView<const T> x, TensorView<const P> scale, TensorView<const P> bias,
                                   StatisticView<P> mean, StatisticView<P> variance, const OutputViews<T, P>& out,
                                   const E& epilogue = {}, const CallOptions& call = {}) const {
    mpi::batch_norm<T, P>(communicator_, F, options_, x, scale, bias, mean, variance, out, epilogue, call);
  }

  /// All gradients that `out` names: mpi::batch_norm_backward().
  /// @throws ShapeError, ValueError, OtherRankError, MpiError   as mpi::batch_norm() does
  template <GradientPath<T> G = Identity>
  BATCHNORM_INLINE void backward(TensorView<const T> dy, TensorView<const T> x, TensorView<const P> scale,
                                 TensorView<const P> mean, TensorView<const P> variance, const GradientViews<T, P>& out,
                                 const G& through = {}, const CallOptions& call = {}) const {
    mpi::batch_norm_backward<T, P>(communicator_, F, options_, dy, x, scale, mean, variance, out, through, call, parameters_);
  }

 private:
  MPI_Comm communicator_;
  Options options_;
  ParameterGradients parameters_;
};

// ----------------------------------------------------------------------------------------------------------------------------

inline namespace BATCHNORM_KERNELS {
namespace detail {

template <class Statistic>
void merge_over(Statistic& statistic, MPI_Comm communicator) {
  constexpr std::string_view name = "batchnorm::mpi::merge";
  Exchange<Statistic> exchange(communicator, name);
  arguments::check_whole(name, statistic);
  exchange.prepare(statistic.channels());
  statistic = exchange.merged(statistic, no_options);
}

/// The forward pass in training, once the arguments are right.
template <bool writes_mask, Element T, ParameterOf<T> P, Epilogue<T> E>
void forward(Exchange<Moments>& exchange, arguments::ForwardArguments<writes_mask, T, P, E>& given, const Options& options,
             const CallOptions& call) {
  const arguments::Arguments& arguments = given.arguments;
  const std::int64_t channels = arguments.channels();
  const batchnorm::cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  exchange.prepare(channels);
  Moments own(channels);
  batchnorm::cpu::Scratch scratch;
  const auto part = batchnorm::cpu::ChannelScratch::reserve(scratch, channels, 4);
  scratch.allocate();
  if (!arguments.empty()) {
    batchnorm::cpu::collect_moments(machine, arguments.geometry(), given.checked.work.in[0], own.mean.data(),
                                    own.mean_low.data(), own.m2.data());
    own.count = arguments.geometry().values();
  }
  const auto finish = [&](const batchnorm::cpu::NormalizationCoefficients<compute_t<T>>& coefficients) {
    Options common = options;
    common.momentum = given.channels.momentum;
    const Moments& moments = exchange.merged(own, common);
    if (moments.count == 0) return given.channels.write_empty_batch(channels);
    given.channels.variance_factor = arguments::variance_factor(options, moments.count);
    batchnorm::cpu::run(
        machine.isa, batchnorm::cpu::FinalizeChannels<compute_t<T>, P>{arguments::padded_copy(moments, part, scratch), channels,
                                                                       moments.count, given.channels, coefficients});
  };
  if (arguments.empty()) return batchnorm::cpu::in_default_mode([&] { finish({}); });
  batchnorm::cpu::sweep(machine, given.checked.work, finish);
  batchnorm::cpu::clear_after_last(given.mask, arguments.geometry().elements());
}

/// dscale and dbias of the rank's own values, kept until all ranks have arrived.
template <Element P>
class OwnParameterGradients {
 public:
  explicit OwnParameterGradients(const batchnorm::cpu::GradientArguments<P>& to, std::int64_t channels) : to_(to) {
    if (to.dscale != nullptr) dscale_.resize(static_cast<std::size_t>(channels));
    if (to.dbias != nullptr) dbias_.resize(static_cast<std::size_t>(channels));
  }

  /// The arguments with these in place of the caller's.
  batchnorm::cpu::GradientArguments<P> arguments() {
    auto own = to_;
    if (to_.dscale != nullptr) own.dscale = dscale_.data();
    if (to_.dbias != nullptr) own.dbias = dbias_.data();
    return own;
  }
  void write() const {
    std::copy(dscale_.begin(), dscale_.end(), to_.dscale);
    std::copy(dbias_.begin(), dbias_.end(), to_.dbias);
  }

 private:
  batchnorm::cpu::GradientArguments<P> to_;
  std::vector<P> dscale_, dbias_;
};

/// The gradients, once the arguments are right.
template <Element T, class Pass, Element P>
void backward(Exchange<GradientSums>& exchange, const arguments::Arguments& arguments,
              const batchnorm::cpu::GradientTensors<T, Pass>& tensors, const arguments::GivenVectors<P>& given,
              batchnorm::cpu::GradientArguments<P> to, const Options& options, const CallOptions& call,
              ParameterGradients parameters) {
  const std::int64_t channels = arguments.channels();
  const auto statistics = [&](const batchnorm::cpu::ChannelArrays& arrays) { return given.in(arrays, channels); };
  const bool keeps_own = parameters == ParameterGradients::of_rank;
  const bool needs_others = options.is_training || !keeps_own;
  GradientSums own(channels);
  if (!arguments.empty() && (needs_others || to.wants_sums())) {
    batchnorm::cpu::Scratch scratch;
    const auto part = batchnorm::cpu::ChannelScratch::reserve(scratch, channels, batchnorm::cpu::GivenStatistics::count);
    scratch.allocate();
    arguments::collect_sums(arguments::machine_of<T>(call, arguments.geometry()), tensors, statistics(part.in(scratch)), own);
  }
  const Options agreed{.is_training = options.is_training, .epsilon = options.epsilon, .momentum = 0};
  const auto agreed_parameters = static_cast<std::int64_t>(parameters);
  if (!needs_others) {
    return arguments::apply_sums<false>(arguments, call, tensors, to, statistics, [&]() -> const GradientSums& {
      exchange.agree(channels, agreed, agreed_parameters);
      return own;
    });
  }
  OwnParameterGradients<P> of_rank(to, channels);
  if (keeps_own) {
    auto only_sums = tensors;
    only_sums.dx = only_sums.dresidual = {};
    arguments::apply_sums<true>(arguments, call, only_sums, of_rank.arguments(), statistics,
                                [&]() -> const GradientSums& { return own; });
    to.dscale = to.dbias = nullptr;
  }
  const auto sums = [&]() -> const GradientSums& {
    const GradientSums& whole = exchange.merged(own, agreed, agreed_parameters);
    if (keeps_own) of_rank.write();
    return whole;
  };
  if (options.is_training) {
    arguments::apply_sums<true>(arguments, call, tensors, to, statistics, sums);
  } else {
    arguments::apply_sums<false>(arguments, call, tensors, to, statistics, sums);
  }
}

}  // namespace detail

template <Element T, ParameterOf<T> P, Epilogue<T> E>
void batch_norm(MPI_Comm communicator, Format format, const Options& options, std::type_identity_t<TensorView<const T>> x,
                std::type_identity_t<TensorView<const P>> scale, std::type_identity_t<TensorView<const P>> bias,
                std::type_identity_t<StatisticView<P>> mean, std::type_identity_t<StatisticView<P>> variance,
                const OutputViews<T, P>& out, const E& epilogue, const CallOptions& call) {
  constexpr std::string_view name = "batchnorm::mpi::SyncBatchNorm";
  const InputViews<T, P> in{x, scale, bias, mean, variance};
  if (!options.is_training || call.only_checks || detail::ranks_of(communicator, name) == 1) {
    return batchnorm::batch_norm<T, P>(format, options, in, out, epilogue, call);
  }
  detail::Exchange<Moments> exchange(communicator, name);
  const arguments::Reporter reporter(name, call);
  arguments::check_options(reporter, options);
  arguments::with_mask_or_without<E>(reporter, out.mask.present(), [&](auto writes_mask) {
    arguments::ForwardArguments<decltype(writes_mask)::value, T, P, E> given(reporter, format, options, in, out, epilogue,
                                                                             call);
    if (!arguments::stops(reporter, call)) detail::forward(exchange, given, options, call);
  });
}

template <Element T, ParameterOf<T> P, GradientPath<T> G>
void batch_norm_backward(MPI_Comm communicator, Format format, const Options& options,
                         std::type_identity_t<TensorView<const T>> dy, std::type_identity_t<TensorView<const T>> x,
                         std::type_identity_t<TensorView<const P>> scale, std::type_identity_t<TensorView<const P>> mean,
                         std::type_identity_t<TensorView<const P>> variance, const GradientViews<T, P>& out, const G& through,
                         const CallOptions& call, ParameterGradients parameters) {
  constexpr std::string_view name = "batchnorm::mpi::SyncBatchNorm::backward";
  if (call.only_checks || detail::ranks_of(communicator, name) == 1) {
    return batchnorm::batch_norm_backward<T, P>(format, options, dy, x, scale, mean, variance, out, through, call);
  }
  detail::Exchange<GradientSums> exchange(communicator, name);
  const arguments::Reporter reporter(name, call);
  arguments::check_options(reporter, options);
  arguments::Arguments arguments(reporter, x, format, arguments::Replaceable::no, arguments::gradient_replaces);
  const auto tensors = arguments::gradient_tensors(arguments, dy, x, out.dx, out.dresidual, through);
  const arguments::GivenVectors<P> given(arguments, mean, variance);
  const auto to = arguments::gradient_arguments(arguments, scale, out.dscale, out.dbias, options.epsilon);
  arguments.check_overlap();
  if (arguments::stops(reporter, call)) return;
  exchange.prepare(arguments.channels());
  detail::backward(exchange, arguments, tensors, given, to, options, call, parameters);
}

inline void merge(Moments& moments, MPI_Comm communicator) { detail::merge_over(moments, communicator); }
inline void merge(GradientSums& sums, MPI_Comm communicator) { detail::merge_over(sums, communicator); }

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm::mpi
