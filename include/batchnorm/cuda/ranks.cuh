// SPDX-License-Identifier: MIT
#pragma once

// Between the ranks of a synchronised call: each packs the sums of its slices into its place of RankSums, and merges those of
// all ranks once they are gathered. What a rank merges is the same everywhere, and so are the bits that follow. An empty rank
// has count 0 and zeros.

#include <batchnorm/cuda/channels.cuh>

namespace batchnorm::cuda {

/// A warp for each channel merges its slices into the moments of the rank.
struct PackMoments {
  static constexpr int max_threads = 256;
  enum Field { mean_field, mean_low_field, m2_field };

  Partials partials;
  std::int64_t values;
  RankSums to;
  std::int64_t rank;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    const WarpPlace place = WarpPlace::of(a);
    const std::int64_t c = a.block_rank() * place.warps + place.warp;
    if (c >= partials.channels) return;
    const ChannelMoments moments = merge_moments<double>(a, partials.slices, values,
                                                         [&](int f, std::int64_t b) -> double { return partials.at(f, b, c); });
    if (place.lane != 0) return;
    to.at(mean_field, rank, c) = moments.mean.high;
    to.at(mean_low_field, rank, c) = moments.mean.low;
    to.at(m2_field, rank, c) = moments.m2;
    if (c == 0) to.count(rank) = static_cast<double>(values);
  }
};

/// A warp for each channel adds the sums of its slices into those of the rank.
struct PackGradients {
  static constexpr int max_threads = 256;

  Partials partials;
  std::int64_t values;
  RankSums to;
  std::int64_t rank;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    using G = GradientStatistic<double>;
    const WarpPlace place = WarpPlace::of(a);
    const std::int64_t c = a.block_rank() * place.warps + place.warp;
    if (c >= partials.channels) return;
    const ChannelGradients sums =
        merge_gradients<double>(a, partials.slices, [&](int f, std::int64_t b) -> double { return partials.at(f, b, c); });
    if (place.lane != 0) return;
    to.at(G::sum_field, rank, c) = sums.dz.high;
    to.at(G::sum_low_field, rank, c) = sums.dz.low;
    to.at(G::product_field, rank, c) = sums.dz_x.high;
    to.at(G::product_low_field, rank, c) = sums.dz_x.low;
    if (c == 0) to.count(rank) = static_cast<double>(values);
  }
};

/// The number of values of a channel in all ranks, on a whole warp; exact.
template <class Accelerator>
BATCHNORM_DEVICE std::int64_t total_count(Accelerator& a, const RankSums& from) {
  PairSum<double> sum;
  for (std::int64_t r = WarpPlace::of(a).lane; r < from.ranks; r += warp_size) sum.add(from.count(r), 0);
  return static_cast<std::int64_t>(total_of(a, sum).high);
}

/// A warp for each channel merges the moments of all ranks, as if each were a slice whose pivot is its mean. An empty rank has
/// the pivot of the first that is not, and an infinite mean is no pivot, but what is added to it.
template <class R>
struct MergeMoments {
  static constexpr int max_threads = 256;

  RankSums from;
  bool is_unbiased;  ///< the variance that enters the running one
  ForwardChannels<R> to;
  Coefficients<R> coefficients;  ///< null where this rank has no values

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    using M = MomentStatistic<R>;
    const WarpPlace place = WarpPlace::of(a);
    const std::int64_t c = a.block_rank() * place.warps + place.warp;
    if (c >= from.channels) return;
    const std::int64_t values = total_count(a, from);
    ForwardChannels<R> own = to;
    if (values == 0) {
      own.momentum = 0;
      if (place.lane == 0) write_statistics(own, c, {{0, 0}, 0, 0});
      return;
    }
    std::int64_t first = 0;
    while (from.count(first) == 0) ++first;
    const ChannelMoments moments = merge_moments<R>(a, from.ranks, values, [&](int f, std::int64_t r) -> double {
      const double count = from.count(r), mean = from.at(PackMoments::mean_field, count == 0 ? first : r, c);
      const bool is_pivot = is_finite(mean);
      switch (f) {
        case M::count_field: return count;
        case M::pivot_field: return is_pivot ? mean : 0;
        case M::delta_field: return is_pivot || count == 0 ? from.at(PackMoments::mean_low_field, r, c) : mean;
        case M::m2_field: return from.at(PackMoments::m2_field, r, c);
        default: return 0;
      }
    });
    if (place.lane != 0) return;
    own.variance_factor = is_unbiased && values > 1 ? static_cast<double>(values) / static_cast<double>(values - 1) : 1;
    write_statistics(own, c, moments);
    if (coefficients.data != nullptr) write_coefficients(own, c, moments, coefficients, c);
  }
};

/// A warp for each channel adds the sums of all ranks.
template <class R>
struct MergeGradients {
  static constexpr int max_threads = 256;

  RankSums from;
  BackwardChannels<R> to;
  Coefficients<R> coefficients;  ///< null where they are not needed

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    const WarpPlace place = WarpPlace::of(a);
    const std::int64_t c = a.block_rank() * place.warps + place.warp;
    if (c >= from.channels) return;
    BackwardChannels<R> own = to;
    own.values = total_count(a, from);
    const ChannelGradients sums =
        merge_gradients<R>(a, from.ranks, [&](int f, std::int64_t r) -> double { return from.at(f, r, c); });
    if (place.lane != 0) return;
    if (own.values == 0) {
      if (own.dbias != nullptr) own.dbias[c] = 0;
      if (own.dscale != nullptr) own.dscale[c] = 0;
    } else {
      finish_gradient(own, coefficients, c, sums);
    }
  }
};

}  // namespace batchnorm::cuda
