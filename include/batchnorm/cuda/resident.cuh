// SPDX-License-Identifier: MIT
#pragma once

// Training that reads x once: a channel (a tile of channels) lies in the shared memory of a cluster of blocks between its sums
// and the operation on each element.

#include <batchnorm/cuda/sweep.cuh>

namespace batchnorm::cuda {

/// The shared memory of a block: `chunks` chunks, the sums of its warps (of `sums` of them), the fields and coefficients of
/// `channels` channels.
struct ResidentLayout {
  std::int64_t chunks;
  int sums, channels;

  static constexpr int fields = MomentStatistic<double>::fields, coefficients = Normalization<double>::coefficients;

  BATCHNORM_HOST_DEVICE constexpr std::int64_t sums_at() const { return chunks * 16; }
  BATCHNORM_HOST_DEVICE constexpr std::int64_t fields_at() const { return sums_at() + sums * 16; }
  BATCHNORM_HOST_DEVICE constexpr std::int64_t coefficients_at() const { return fields_at() + channels * fields * 8; }
  BATCHNORM_HOST_DEVICE constexpr std::int64_t bytes() const { return coefficients_at() + channels * coefficients * 8; }
};

BATCHNORM_HOST_DEVICE constexpr ResidentLayout layout_of_planes(std::int64_t per_slice, int threads) {
  return {per_slice, threads / warp_size * 2, 1};
}
template <class T>
BATCHNORM_HOST_DEVICE constexpr ResidentLayout layout_of_rows(std::int64_t rows, int across, int threads) {
  const int width = across * chunk_size<T>;
  return {rows * across, threads / warp_size * width * 2, width};
}

/// A cluster.
struct ClusterTeam {
  template <class Accelerator>
  BATCHNORM_DEVICE std::int64_t number(Accelerator& a) const {
    return a.block_rank() / a.cluster_size();
  }
  template <class Accelerator>
  BATCHNORM_DEVICE std::int64_t rank(Accelerator& a) const {
    return a.cluster_rank();
  }
  template <class Accelerator>
  BATCHNORM_DEVICE std::int64_t size(Accelerator& a) const {
    return a.cluster_size();
  }
  template <class Accelerator>
  BATCHNORM_DEVICE void sync(Accelerator& a) const {
    a.cluster_sync();
  }
  /// Where this block puts the fields of the channel that is number `own` of its own, `channel` of the tensor; `fields` are in
  /// its shared memory.
  template <class Accelerator>
  BATCHNORM_DEVICE PartialView fields(Accelerator&, const Partials& fields, std::int64_t own, std::int64_t) const {
    return {&fields.at(0, 0, own), fields.channels};
  }
  /// Field f of block `rank` of the team.
  template <class Accelerator>
  BATCHNORM_DEVICE double field(Accelerator& a, const Partials& fields, int f, std::int64_t rank, std::int64_t own,
                                std::int64_t) const {
    return *a.cluster_shared(&fields.at(f, 0, own), static_cast<int>(rank));
  }
};

/// Blocks side by side of a cooperative grid.
struct GridTeam {
  Partials partials;  ///< a slice for each block of a team

  template <class Accelerator>
  BATCHNORM_DEVICE std::int64_t number(Accelerator& a) const {
    return a.block_rank() / partials.slices;
  }
  template <class Accelerator>
  BATCHNORM_DEVICE std::int64_t rank(Accelerator& a) const {
    return a.block_rank() % partials.slices;
  }
  template <class Accelerator>
  BATCHNORM_DEVICE std::int64_t size(Accelerator&) const {
    return partials.slices;
  }
  template <class Accelerator>
  BATCHNORM_DEVICE void sync(Accelerator& a) const {
    a.grid_sync();
  }
  template <class Accelerator>
  BATCHNORM_DEVICE PartialView fields(Accelerator& a, const Partials&, std::int64_t, std::int64_t channel) const {
    return {&partials.at(0, rank(a), channel), partials.slices * partials.channels};
  }
  template <class Accelerator>
  BATCHNORM_DEVICE double field(Accelerator&, const Partials&, int f, std::int64_t rank, std::int64_t,
                                std::int64_t channel) const {
    return partials.at(f, rank, channel);
  }
};

/// Channels first: a team for each channel, a slice of its slots for each block.
template <class T, class Team>
struct ResidentPlanes {
  static constexpr int max_threads = 384, least_blocks = 2;
  static constexpr int size = chunk_size<T>;
  using R = Compute<T>;
  using Statistic = MomentStatistic<T>;

  Normalization<T> operation;
  Geometry geometry;
  Alignment alignment;
  PlaneSlots slots;  ///< per_slice a multiple of 8: what a byte of the mask covers stays in one warp
  ForwardChannels<Parameter<T>> channels;
  Team team;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    using Sum = SumOf<T, Accelerator>;
    const Geometry g = geometry;
    const ResidentLayout layout = layout_of_planes(slots.per_slice, a.block_size());
    auto* chunks = reinterpret_cast<Chunk*>(a.shared());
    auto* sums = reinterpret_cast<Sum*>(a.shared() + layout.sums_at());
    const Partials fields{reinterpret_cast<double*>(a.shared() + layout.fields_at()), 1, 1};
    auto* shared_coefficients = reinterpret_cast<R*>(a.shared() + layout.coefficients_at());

    const std::int64_t channel = team.number(a), slice = team.rank(a);
    const int threads = a.block_size();
    const std::int64_t all = g.n * slots.per_plane, unbounded = slice * slots.per_slice;
    const std::int64_t begin = unbounded < all ? unbounded : all;
    const std::int64_t end = begin + slots.per_slice < all ? begin + slots.per_slice : all;
    const std::int64_t before = elements_before<T>(g, alignment, slots.per_plane, channel, begin);
    const std::int64_t count = elements_before<T>(g, alignment, slots.per_plane, channel, end) - before;
    const Statistic statistic{operation.x};
    R pivot = 0;
    if (count > 0) pivot = statistic.constant(channel, first_element<T>(g, alignment, slots.per_plane, channel, begin));

    Sum sum[2];
    SlotWalk walk(begin + a.thread_rank(), threads, slots.per_plane);
    for (std::int64_t q = begin + a.thread_rank(); q < end; q += threads) {
      const Slot slot = walk.template slot<T>(g, alignment, channel);
      const Elements<T> in = load_elements<T, true>(a, operation.x, slot.first, slot.begin, slot.end, alignment.aligned);
      chunks[q - begin] = in.chunk();
      BATCHNORM_UNROLLED
      for (int k = 0; k < size; ++k) {
        if (slot.first + k >= slot.begin && slot.first + k < slot.end) statistic.add(sum, in, k, pivot);
      }
      walk.step();
    }
    add_threads(a, sum, sums);
    if (a.thread_rank() == 0) Statistic::store(team.fields(a, fields, 0, channel), count, sum, pivot);

    team.sync(a);  // the fields of all slices are there
    if (a.thread_rank() < warp_size) {
      const ChannelMoments moments = merge_moments<T>(a, team.size(a), g.values(), [&](int f, std::int64_t b) -> double {
        return team.field(a, fields, f, b, 0, channel);
      });
      if (a.thread_rank() == 0) {
        if (slice == 0) write_statistics(channels, channel, moments);
        write_coefficients(channels, channel, moments, Coefficients<R>{shared_coefficients, 1}, 0);
      }
    }
    team.sync(a);  // and read: a block may end; the coefficients are there

    R coefficient[Normalization<T>::coefficients];
    for (int k = 0; k < Normalization<T>::coefficients; ++k) coefficient[k] = shared_coefficients[k];
    const int lane = a.thread_rank() % warp_size;
    SlotWalk again(begin + a.thread_rank(), threads, slots.per_plane);
    for (std::int64_t q = begin + a.thread_rank(); q - lane < end; q += threads) {  // whole warps
      Slot slot{0, 0, 0};
      typename Normalization<T>::Inputs in;
      if (q < end) {
        slot = again.template slot<T>(g, alignment, channel);
        in.x = Elements<T>::of(chunks[q - begin]);
        operation.load_rest(a, in, slot.first, slot.begin, slot.end, alignment.aligned);
      }
      typename Normalization<T>::Outputs out;
      BATCHNORM_UNROLLED
      for (int k = 0; k < size; ++k) {
        if (slot.first + k >= slot.begin && slot.first + k < slot.end) operation.apply(in, k, coefficient, out);
      }
      operation.store(a, out, slot.first, slot.begin, slot.end, alignment.aligned);
      again.step();
    }
  }
};

/// Channels last: a team for each tile of channels, `across` threads side by side, a slice of rows for each block.
template <class T, class Team>
struct ResidentRows {
  static constexpr int max_threads = 256, least_blocks = 2;
  static constexpr int size = chunk_size<T>, count = Normalization<T>::coefficients;
  using R = Compute<T>;
  using Statistic = MomentStatistic<T>;

  Normalization<T> operation;
  Geometry geometry;
  bool aligned;       ///< each row begins with a chunk
  int across;         ///< a power of two, at most 32
  std::int64_t rows;  ///< of a block
  ForwardChannels<Parameter<T>> channels;
  Team team;

  BATCHNORM_HOST_DEVICE int width() const { return across * size; }

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    using Sum = SumOf<T, Accelerator>;
    const Geometry g = geometry;
    const ResidentLayout layout = layout_of_rows<T>(rows, across, a.block_size());
    auto* chunks = reinterpret_cast<Chunk*>(a.shared());
    auto* sums = reinterpret_cast<Sum*>(a.shared() + layout.sums_at());
    const Partials fields{reinterpret_cast<double*>(a.shared() + layout.fields_at()), 1, width()};
    const Coefficients<R> coefficients{reinterpret_cast<R*>(a.shared() + layout.coefficients_at()), width()};

    const std::int64_t first_channel = team.number(a) * width(), unbounded = team.rank(a) * rows;
    const std::int64_t begin = unbounded < g.n ? unbounded : g.n;
    const std::int64_t end = begin + rows < g.n ? begin + rows : g.n;
    const int column = a.thread_rank() % across, down = a.thread_rank() / across, step = a.block_size() / across;
    const std::int64_t own = first_channel + column * size;
    const Statistic statistic{operation.x};
    const auto pivot_of = [&](std::int64_t channel) -> R {
      return begin < end && channel < g.c ? statistic.constant(channel, begin * g.c + channel) : 0;
    };

    R pivot[size];
    Sum sum[size][2];
    BATCHNORM_UNROLLED
    for (int k = 0; k < size; ++k) pivot[k] = pivot_of(own + k);
    for (std::int64_t row = begin + down; row < end && own < g.c; row += step) {
      const std::int64_t first = row * g.c + own;
      const Elements<T> in = load_elements<T, true>(a, operation.x, first, first, (row + 1) * g.c, aligned);
      chunks[(row - begin) * across + column] = in.chunk();
      BATCHNORM_UNROLLED
      for (int k = 0; k < size; ++k) {
        if (own + k < g.c) statistic.add(sum[k], in, k, pivot[k]);
      }
    }
    add_rows(a, sum, sums, across);
    a.sync();
    const WarpPlace place = WarpPlace::of(a);
    for (int e = a.thread_rank(); e < width(); e += a.block_size()) {
      if (first_channel + e >= g.c) break;
      Sum total[2];
      total_of_warps(sums, place.warps, width(), e, total);
      const std::int64_t channel = first_channel + e;
      Statistic::store(team.fields(a, fields, e, channel), end - begin, total, pivot_of(channel));
    }

    team.sync(a);  // the fields of all slices are there
    for (int e = place.warp; e < width() && first_channel + e < g.c; e += place.warps) {
      const std::int64_t channel = first_channel + e;
      const ChannelMoments moments = merge_moments<T>(
          a, team.size(a), g.n, [&](int f, std::int64_t b) -> double { return team.field(a, fields, f, b, e, channel); });
      if (place.lane != 0) continue;
      if (team.rank(a) == 0) write_statistics(channels, channel, moments);
      write_coefficients(channels, channel, moments, coefficients, e);
    }
    team.sync(a);  // and read: a block may end; the coefficients are there

    R coefficient[size][count];
    BATCHNORM_UNROLLED
    for (int k = 0; k < size; ++k) {
      for (int j = 0; j < count; ++j) coefficient[k][j] = own + k < g.c ? coefficients.at(j, column * size + k) : 0;
    }
    for (std::int64_t some = begin; some < end; some += step) {  // whole warps
      const std::int64_t row = some + down, first = row * g.c + own;
      const bool is_inside = row < end && own < g.c;
      const std::int64_t last = is_inside ? (row + 1) * g.c : first;
      typename Normalization<T>::Inputs in;
      typename Normalization<T>::Outputs out;
      if (is_inside) {
        in.x = Elements<T>::of(chunks[(row - begin) * across + column]);
        operation.load_rest(a, in, first, first, last, aligned);
        BATCHNORM_UNROLLED
        for (int k = 0; k < size; ++k) {
          if (own + k < g.c) operation.apply(in, k, coefficient[k], out);
        }
      }
      operation.store(a, out, first, first, last, aligned);
    }
  }
};

}  // namespace batchnorm::cuda
