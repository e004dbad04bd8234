// SPDX-License-Identifier: MIT
#pragma once

// What the ranks of a communicator tell each other: first whether all can take part, then their statistics.

#include <algorithm>
#include <array>
#include <bit>
#include <climits>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

// The C++ bindings of MPI 2 are not used, and not every installation has them.
#if !defined(OMPI_SKIP_MPICXX)
#define OMPI_SKIP_MPICXX 1
#endif
#if !defined(MPICH_SKIP_MPICXX)
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <batchnorm/gradients.hpp>

namespace batchnorm::mpi {

/// A call of MPI failed, on a communicator whose error handler returns; the message is MPI's.
class MpiError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Another rank could not take part in the call, for a reason that its own exception says.
class OtherRankError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline namespace BATCHNORM_KERNELS {
namespace detail {

inline void check(int code, std::string_view call, std::string_view function) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  batchnorm::detail::fail<MpiError>(std::string(call).append(": ").append(function).append(" failed: ").append(text.data()));
}

/// What MPI demands of a call before it may be given a communicator. Each answer is the same on all ranks of a correct program.
/// @throws ValueError   MPI does not run, this thread must not call it, or the communicator is null or an intercommunicator
inline void check_communicator(MPI_Comm communicator, std::string_view call) {
  const auto refuse = [&](std::string_view why) { batchnorm::detail::fail<ValueError>(std::string(call).append(why)); };
  int yes = 0;
  check(MPI_Initialized(&yes), call, "MPI_Initialized");
  if (yes == 0) refuse(": MPI is not initialized; call MPI_Init_thread first");
  check(MPI_Finalized(&yes), call, "MPI_Finalized");
  if (yes != 0) refuse(": MPI is already finalized");
  int provided = 0;
  check(MPI_Query_thread(&provided), call, "MPI_Query_thread");
  if (provided < MPI_THREAD_SERIALIZED) {
    check(MPI_Is_thread_main(&yes), call, "MPI_Is_thread_main");
    if (yes == 0) {
      refuse(
          ": this is not the thread that initialized MPI, and MPI was initialized for calls by that thread alone; ask "
          "MPI_Init_thread for MPI_THREAD_SERIALIZED");
    }
  }
  if (communicator == MPI_COMM_NULL) refuse(": the communicator is null");
  check(MPI_Comm_test_inter(communicator, &yes), call, "MPI_Comm_test_inter");
  if (yes != 0) {
    refuse(
        ": the communicator is an intercommunicator, expected an intracommunicator; MPI_Intercomm_merge makes one of its "
        "two groups");
  }
}

/// The number of ranks, once the communicator is known to be usable.
/// @throws ValueError   as check_communicator() does
inline int ranks_of(MPI_Comm communicator, std::string_view call) {
  check_communicator(communicator, call);
  int ranks = 0;
  check(MPI_Comm_size(communicator, &ranks), call, "MPI_Comm_size");
  return ranks;
}

/// What a call exchanges.
enum class Exchanged : std::int64_t { moments, gradient_sums };

/// Options where none counts: the ranks must agree on all of them.
inline constexpr Options no_options{.epsilon = 0, .momentum = 0};

/// All ranks arrive, or all throw: the maximum of every number, of its complement and of the failures, by one MPI_Allreduce of
/// 136 bytes. A rank that leaves the scope without having arrived has failed, and lets the others know. Until then nothing
/// here allocates: a rank without memory can still do that.
///
///   call   names the function in messages; its characters must outlive the object
class Agreement {
 public:
  Agreement(MPI_Comm communicator, std::string_view call, Exchanged exchanged)
      : communicator_(communicator), call_(call), exchanged_(exchanged) {
    check(MPI_Comm_rank(communicator, &rank_), call, "MPI_Comm_rank");
  }
  Agreement(const Agreement&) = delete;
  Agreement& operator=(const Agreement&) = delete;
  ~Agreement() {
    if (arrived_) return;
    Numbers numbers;
    numbers.fill(smallest);
    numbers.back() = rank_;
    reduce(numbers);
  }

  /// @throws ShapeError       the numbers of channels differ
  /// @throws ValueError       the options differ, or one rank goes forward and another backward
  /// @throws OtherRankError   another rank failed
  ///
  /// `parameters` is what the gradients of the parameters are summed over, 0 where there are none.
  void arrive(std::int64_t channels, const Options& options, std::int64_t parameters) {
    arrived_ = true;
    const std::array<std::int64_t, quantities> own = {static_cast<std::int64_t>(exchanged_),
                                                      channels,
                                                      options.is_training ? 1 : 0,
                                                      bits_of(options.epsilon),
                                                      bits_of(options.momentum),
                                                      static_cast<std::int64_t>(options.running_variance),
                                                      static_cast<std::int64_t>(options.not_finite),
                                                      parameters};
    Numbers numbers;
    for (std::size_t q = 0; q < quantities; ++q) numbers[2 * q] = own[q], numbers[2 * q + 1] = ~own[q];
    numbers.back() = smallest;
    check(reduce(numbers), call_, "MPI_Allreduce");
    if (numbers.back() != smallest) {
      batchnorm::detail::fail<OtherRankError>(std::string(call_) + ": rank " + std::to_string(numbers.back()) +
                                              " of the communicator could not take part, its own error says why");
    }
    for (std::size_t q = 0; q < quantities; ++q) {
      if (numbers[2 * q] != ~numbers[2 * q + 1]) refuse(q, channels, ~numbers[2 * q + 1], numbers[2 * q]);
    }
  }

 private:
  static constexpr std::size_t quantities = 8, of_channels = 1;
  static constexpr std::int64_t smallest = (std::numeric_limits<std::int64_t>::min)();
  /// Each quantity and its complement, whose maximum gives the minimum; at the end a rank that failed.
  using Numbers = std::array<std::int64_t, 2 * quantities + 1>;

  /// The bits of a number; those of 0 for -0, which means the same.
  static std::int64_t bits_of(double value) noexcept { return std::bit_cast<std::int64_t>(value == 0 ? 0.0 : value); }

  int reduce(Numbers& numbers) const noexcept {
    return MPI_Allreduce(MPI_IN_PLACE, numbers.data(), static_cast<int>(numbers.size()), MPI_INT64_T, MPI_MAX, communicator_);
  }

  [[noreturn]] void refuse(std::size_t quantity, std::int64_t channels, std::int64_t least, std::int64_t most) const {
    static constexpr std::array<std::string_view, quantities> names = {
        "the call: some go forward, some backward", "C", "is_training", "epsilon", "momentum", "running_variance", "not_finite",
        "parameters (ParameterGradients)"};
    std::string text = std::string(call_) + ": the ranks of the communicator disagree on ";
    text += names[quantity];
    if (quantity != of_channels) batchnorm::detail::fail<ValueError>(text);
    batchnorm::detail::fail<ShapeError>(text + ": it is " + std::to_string(channels) + " here, and from " +
                                        std::to_string(least) + " to " + std::to_string(most) + " on all");
  }

  MPI_Comm communicator_;
  std::string_view call_;
  Exchanged exchanged_;
  int rank_ = 0;
  bool arrived_ = false;
};

/// The arrays of a statistic, each with a number per channel. The mean of moments goes as a pair: what a double cannot hold of
/// it decides digits where the deviation is small beside it.
template <class Sums>
auto arrays_of(Sums& statistic) noexcept {
  if constexpr (std::same_as<std::remove_const_t<Sums>, Moments>) {
    return std::array{&statistic.mean, &statistic.mean_low, &statistic.m2};
  } else {
    return std::array{&statistic.dy, &statistic.dy_x};
  }
}

/// Replaces a statistic of one rank's values by that of all ranks'. Every channel is merged by batchnorm::merge in rank order,
/// in one of two ways, which give the same bits:
///
///   one MPI_Allgather, and every rank merges all channels;
///   in slices: MPI_Alltoall brings each rank all that concerns its slice of the channels, it merges them, and MPI_Allgather
///   brings the merged slices to all. A rank receives as much as two statistics, not as many as there are ranks.
///
/// A message is the count and then the arrays of a slice, as doubles.
template <class Statistic>
class Exchange {
 public:
  /// Begins the agreement: the other ranks hear of an exception from here on. `call` is as in Agreement.
  Exchange(MPI_Comm communicator, std::string_view call)
      : communicator_(communicator), call_(call), ranks_(ranks_of(communicator, call)), agreement_(communicator, call, kind) {}

  /// Does all that can fail before the ranks agree: takes the memory that is needed, and chooses the instruction set on which
  /// statistics are merged.
  /// @throws ShapeError       more channels than a message can hold
  /// @throws ValueError       BATCHNORM_ISA cannot be used
  /// @throws std::bad_alloc
  void prepare(std::int64_t channels) {
    active_isa();
    if (channels > (INT_MAX - 1) / arrays) {
      batchnorm::detail::fail<ShapeError>(std::string(call_) + ": C = " + std::to_string(channels) +
                                          " are too many for a message of MPI");
    }
    in_slices_ = ranks_ >= least_ranks && channels >= least_product / ranks_;
    width_ = in_slices_ ? (channels + ranks_ - 1) / ranks_ : channels;
    part_ = Statistic(width_);
    slice_ = Statistic(width_);
    if (in_slices_) whole_ = Statistic(channels);
    length_ = static_cast<int>(1 + arrays * width_);
    received_.resize(static_cast<std::size_t>(length_) * static_cast<std::size_t>(ranks_));
    sent_.resize(in_slices_ ? received_.size() : static_cast<std::size_t>(length_));
  }

  /// Agrees alone, where no statistics are needed.
  /// @throws ShapeError, ValueError, OtherRankError   as Agreement::arrive does, on every rank
  /// @throws MpiError
  void agree(std::int64_t channels, const Options& options, std::int64_t parameters) {
    agreement_.arrive(channels, options, parameters);
  }

  /// The statistic of all ranks' values, valid as long as this object.
  /// @throws ShapeError, ValueError, OtherRankError   as Agreement::arrive does, on every rank
  /// @throws MpiError
  const Statistic& merged(const Statistic& own, const Options& options, std::int64_t parameters = 0) {
    agree(own.channels(), options, parameters);
    if (!in_slices_) {
      pack(own, 0, sent_.data());
      gather();
      merge_received();
      return slice_;
    }
    for (int rank = 0; rank < ranks_; ++rank) pack(own, rank, sent_.data() + std::ptrdiff_t{rank} * length_);
    check(MPI_Alltoall(sent_.data(), length_, MPI_DOUBLE, received_.data(), length_, MPI_DOUBLE, communicator_), call_,
          "MPI_Alltoall");
    merge_received();
    pack(slice_, 0, sent_.data());
    gather();
    for (int rank = 0; rank < ranks_; ++rank) unpack(message_of(rank), whole_, rank);
    return whole_;
  }

 private:
  static constexpr Exchanged kind = std::same_as<Statistic, Moments> ? Exchanged::moments : Exchanged::gradient_sums;
  static constexpr std::int64_t arrays = std::same_as<Statistic, Moments> ? 3 : 2;
  /// Slices are worth their second message from about 2048 channels times ranks on (docs/mpi.md).
  static constexpr std::int64_t least_product = 2048, least_ranks = 4;

  const double* message_of(int rank) const noexcept { return received_.data() + std::ptrdiff_t{rank} * length_; }

  void gather() {
    check(MPI_Allgather(sent_.data(), length_, MPI_DOUBLE, received_.data(), length_, MPI_DOUBLE, communicator_), call_,
          "MPI_Allgather");
  }

  /// The channels of slice `index` of a statistic that has them, and how many these are: those after the last are 0.
  std::int64_t channels_in(const Statistic& statistic, std::int64_t index) const noexcept {
    return std::clamp<std::int64_t>(statistic.channels() - index * width_, 0, width_);
  }
  void pack(const Statistic& from, std::int64_t index, double* to) const noexcept {
    const std::int64_t some = channels_in(from, index);
    *to++ = static_cast<double>(from.count);
    for (const std::vector<double>* array : arrays_of(from)) {
      std::fill_n(std::copy_n(array->data() + (some > 0 ? index * width_ : 0), some, to), width_ - some, 0.0);
      to += width_;
    }
  }
  void unpack(const double* from, Statistic& to, std::int64_t index) const noexcept {
    const std::int64_t some = channels_in(to, index);
    to.count = static_cast<std::int64_t>(*from++);
    for (std::vector<double>* array : arrays_of(to)) {
      std::copy_n(from, some, array->data() + (some > 0 ? index * width_ : 0));
      from += width_;
    }
  }

  void merge_received() {
    for (int rank = 0; rank < ranks_; ++rank) {
      unpack(message_of(rank), part_, 0);
      batchnorm::merge(slice_, part_);
    }
  }

  MPI_Comm communicator_;
  std::string_view call_;
  int ranks_;
  bool in_slices_ = false;
  std::int64_t width_ = 0;
  int length_ = 0;
  Statistic part_, slice_, whole_;
  std::vector<double> sent_, received_;
  Agreement agreement_;  // last, so that it is gone first and nothing throws before it is there
};

}  // namespace detail
}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm::mpi
