// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Statistics per channel: computing them, merging those of parts of a batch, and what training makes of them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <batchnorm/call/arguments.hpp>
#include <batchnorm/call/forward.hpp>
#include <batchnorm/call/machine.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm {

namespace detail {

inline std::size_t channels_of_statistic(std::string_view name, std::int64_t channels) {
  if (channels >= 0 && channels <= most_elements) return static_cast<std::size_t>(channels);
  fail<ShapeError>(std::string(name) + ": the number of channels is " + std::to_string(channels) + ", it must be in [0, 2^53]");
}

}  // namespace detail

/// Per-channel statistics of `count` values: mean[c] + mean_low[c] is the mean, m2[c] the sum of squared deviations from it.
/// The mean is kept as an unevaluated pair, |mean_low| <= ulp(mean) / 2, so that an offset of the data costs no digits.
struct Moments {
  std::int64_t count = 0;        ///< values per channel
  std::vector<double> mean;      ///< [C] the mean, rounded to double
  std::vector<double> mean_low;  ///< [C] what the rounding left over
  std::vector<double> m2;        ///< [C] the sum of squared deviations from the mean

  /// Of no channels.
  Moments() = default;

  /// The moments of nothing: count 0, all sums 0.
  /// @throws ShapeError   channels not in [0, 2^53]
  /// @throws std::bad_alloc
  explicit Moments(std::int64_t channels)
      : mean(detail::channels_of_statistic("batchnorm::Moments", channels)), mean_low(mean.size()), m2(mean.size()) {}

  /// C
  std::int64_t channels() const noexcept { return static_cast<std::int64_t>(mean.size()); }

  /// Biased variance of channel c, m2 / count; 0 when count is 0.
  double variance(std::int64_t c) const noexcept {
    return count == 0 ? 0.0 : m2[static_cast<std::size_t>(c)] / static_cast<double>(count);
  }
};

/// Where `finalize` writes; each may be absent (the running ones both together).
template <Element P>
struct StatisticsViews {
  TensorView<P> batch_mean{};        ///< [C] mean
  TensorView<P> batch_variance{};    ///< [C] biased variance
  TensorView<P> running_mean{};      ///< [C] read and updated
  TensorView<P> running_variance{};  ///< [C] read and updated
};

inline namespace BATCHNORM_KERNELS {

/// The moments of x over all axes but the channels'.
///
///   x        [N, C, spatial...] or [N, spatial..., C], rank 2 to 5
///
/// Reads x once (double: twice, the second time from cache). float, half and bfloat16 are summed in double, in blocks of at
/// most 8192 values about the block's first value; double in two passes over blocks of 1024. Blocks are merged by Chan, Golub
/// and LeVeque's formula in blocks and an order that depend on shape, strides and type alone: the result is bitwise the same
/// for any number of threads. Where the sums are exact and the mean is a double, the mean is exact and mean_low 0. m2 of double
/// is Inf where it exceeds 1.8e308. An empty batch gives count 0 and zeros.
/// @throws ShapeError, ValueError   as BatchNorm does for x
template <Element T>
Moments moments(TensorView<const T> x, Format format, const CallOptions& call = {});

/// The same of whatever a TensorView is made of.
template <TensorLike X>
Moments moments(const X& x, Format format, const CallOptions& call = {}) {
  return moments<element_of<X>>(TensorView<const element_of<X>>(x), format, call);
}

/// Merges the moments of further values of the same channels, as if both had been computed at once (to rounding; a mean that is
/// a double is exact where the sums of both are). Merging is not commutative bit by bit: merge in a fixed order, such as rank
/// order.
/// @throws ShapeError   the numbers of channels differ, or the lengths of the vectors of one
/// @throws ValueError   a count is not in [0, 2^53]; BATCHNORM_ISA cannot be used
void merge(Moments& into, const Moments& from, const CallOptions& call = {});

/// Batch statistics and running update from moments:
///
///   batch_mean = mean, batch_variance = m2 / m, running = (1 - momentum) * running + momentum * batch
///
/// with the rules of `options` (running_variance, not_finite) and of `call.batch_number`. count 0 writes zeros and leaves the
/// running statistics as they are.
/// @throws ShapeError   a view is not [C], or the vectors of the moments differ in length
/// @throws ValueError   epsilon or momentum out of range, null data, overlapping views, one running statistic without the other
template <Element P>
void finalize(const Moments& moments, const Options& options, const StatisticsViews<P>& views, const CallOptions& call = {});

// ----------------------------------------------------------------------------------------------------------------------------

namespace arguments {

inline void check_whole(const Reporter& call, const Moments& moments) {
  check_statistic(call, "moments", {moments.mean.size(), moments.mean_low.size(), moments.m2.size()}, moments.count);
}

/// The factor that turns the biased variance into the one that enters the running variance.
inline double variance_factor(const Options& options, std::int64_t m) noexcept {
  if (options.running_variance == RunningVariance::biased) return 1.0;
  double factor = 1;
  cpu::in_default_mode([&] { factor = static_cast<double>(m) / static_cast<double>((std::max<std::int64_t>)(m - 1, 1)); });
  return factor;
}

}  // namespace arguments

template <Element T>
Moments moments(TensorView<const T> x, Format format, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::moments", call);
  const arguments::Arguments arguments(reporter, x, format);
  if (arguments::stops(reporter, call)) return {};
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  Moments result(arguments.channels());
  if (arguments.empty()) return result;
  cpu::collect_moments(machine, arguments.geometry(), arguments.x(x), result.mean.data(), result.mean_low.data(),
                       result.m2.data());
  result.count = arguments.geometry().values();
  return result;
}

inline void merge(Moments& into, const Moments& from, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::merge", call);
  arguments::check_whole(reporter, into);
  arguments::check_whole(reporter, from);
  if (into.channels() != from.channels()) {
    reporter.fail<ShapeError>("moments of " + std::to_string(from.channels()) + " channels cannot be merged into those of " +
                              std::to_string(into.channels()));
  }
  if (arguments::stops_on_this_thread(reporter)) return;
  const Isa isa = active_isa();
  if (from.count == 0) return;
  if (into.count == 0) {
    into = from;
    return;
  }
  cpu::in_default_mode([&] {
    cpu::run(isa, cpu::MergeMoments{{into.mean.data(), into.mean_low.data(), into.m2.data()},
                                    {from.mean.data(), from.mean_low.data(), from.m2.data()},
                                    into.channels(),
                                    static_cast<double>(into.count),
                                    static_cast<double>(from.count)});
  });
  into.count += from.count;
}

namespace arguments {

/// Moments in arrays that kernels may read in whole vectors.
inline cpu::MomentSums padded_copy(const Moments& moments, const cpu::ChannelScratch& to,
                                   const cpu::Scratch& scratch) noexcept {
  const cpu::MomentSums sums(to.in(scratch));
  std::fill_n(sums.mean, 4 * to.stride, 0.0);
  std::copy(moments.mean.begin(), moments.mean.end(), sums.mean);
  std::copy(moments.mean_low.begin(), moments.mean_low.end(), sums.mean_low);
  std::copy(moments.m2.begin(), moments.m2.end(), sums.m2);
  return sums;
}

}  // namespace arguments

template <Element P>
void finalize(const Moments& moments, const Options& options, const StatisticsViews<P>& views, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::finalize", call);
  arguments::check_options(reporter, options);
  arguments::check_whole(reporter, moments);
  arguments::Arguments arguments(reporter, moments.channels());
  cpu::ChannelArguments<P> to;
  to.batch_mean[0] = arguments.channel_vector("batch_mean", views.batch_mean);
  to.batch_variance[0] = arguments.channel_vector("batch_variance", views.batch_variance);
  to.running_mean = arguments.channel_vector("running_mean", views.running_mean);
  to.running_variance = arguments.channel_vector("running_variance", views.running_variance);
  arguments.check_together("running_mean", views.running_mean.present(), "running_variance", views.running_variance.present());
  arguments.check_overlap();
  to.epsilon = options.epsilon;
  to.momentum = arguments::momentum_of(reporter, options, call);
  if (arguments::stops_on_this_thread(reporter)) return;
  to.variance_factor = arguments::variance_factor(options, moments.count);
  to.keeps_if_not_finite = options.not_finite == NotFinite::keep;
  const Isa isa = active_isa();
  if (moments.count == 0) {
    to.write_empty_batch(moments.channels());
    return;
  }
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, moments.channels(), 4);
  scratch.allocate();
  cpu::in_default_mode([&] {
    cpu::run(isa, cpu::FinalizeChannels<double, P>{
                      arguments::padded_copy(moments, part, scratch), moments.channels(), moments.count, to, {}});
  });
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
