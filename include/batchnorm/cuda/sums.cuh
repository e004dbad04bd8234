// SPDX-License-Identifier: MIT
#pragma once

// The sums of slices of channels. The order of additions: a thread adds its chunks in ascending order, the lanes of a warp are
// halved, then its warps, then slices in ascending order (channels.cuh). It follows from the shape, the alignment and the plan
// alone; there are no atomics.

#include <batchnorm/cuda/statistic.cuh>

namespace batchnorm::cuda {

/// The place of a thread in its warp, and of its warp in the block.
struct WarpPlace {
  int lane, warp, warps;

  template <class Accelerator>
  BATCHNORM_DEVICE static WarpPlace of(Accelerator& a) {
    return {a.thread_rank() % warp_size, a.thread_rank() / warp_size, a.block_size() / warp_size};
  }
};

/// Thread 0 gets the sums of all threads of the block. `shared` has room for two sums a warp, which are free again after the
/// block's next barrier.
template <class Accelerator, class Sum>
BATCHNORM_DEVICE void add_threads(Accelerator& a, Sum (&sum)[2], Sum* shared) {
  const WarpPlace place = WarpPlace::of(a);
  for (int j = 0; j < 2; ++j) {
    add_lanes(a, sum[j]);
    if (place.lane == 0) shared[2 * place.warp + j] = sum[j];
  }
  a.sync();
  if (place.warp != 0) return;
  for (int j = 0; j < 2; ++j) {
    sum[j] = place.lane < place.warps ? shared[2 * place.lane + j] : Sum{};
    add_lanes(a, sum[j]);
  }
}

/// Elements of a channel in its slots before `slot`.
template <class T>
BATCHNORM_DEVICE std::int64_t elements_before(const Geometry& g, const Alignment& alignment, std::int64_t per_plane,
                                              std::int64_t channel, std::int64_t slot) {
  const std::int64_t image = slot / per_plane;
  if (image >= g.n) return g.n * g.s;
  const Slot place = slot_of<T>(g, alignment, channel, image, slot % per_plane);
  const std::int64_t plane = (image * g.c + channel) * g.s;
  return image * g.s + (place.begin < plane + g.s ? place.begin - plane : g.s);
}

/// The first element of a channel from `slot` on, of those that have one.
template <class T>
BATCHNORM_DEVICE std::int64_t first_element(const Geometry& g, const Alignment& alignment, std::int64_t per_plane,
                                            std::int64_t channel, std::int64_t slot) {
  const std::int64_t before = elements_before<T>(g, alignment, per_plane, channel, slot);
  const std::int64_t image = before / g.s;
  return (image * g.c + channel) * g.s + before % g.s;
}

/// Channels first: a block sums a slice of a channel.
template <class T, class Statistic>
struct SumPlanes {
  static constexpr int max_threads = 256, least_blocks = 2;
  static constexpr int unroll = sizeof(typename Statistic::Inputs) > 16 ? 2 : 4;

  Statistic statistic;
  Geometry geometry;
  Alignment alignment;
  PlaneSlots slots;
  Partials partials;

  static int shared_bytes(int threads) { return threads / warp_size * 2 * 16; }

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    using Sum = SumOf<T, Accelerator>;
    constexpr int size = chunk_size<T>;
    const Geometry g = geometry;
    const std::int64_t channel = a.block_rank() % g.c, slice = a.block_rank() / g.c;
    const std::int64_t begin = slice * slots.per_slice, all = g.n * slots.per_plane;
    const std::int64_t end = begin + slots.per_slice < all ? begin + slots.per_slice : all;
    const std::int64_t before = elements_before<T>(g, alignment, slots.per_plane, channel, begin);
    const std::int64_t count = elements_before<T>(g, alignment, slots.per_plane, channel, end) - before;
    const auto constant =
        count == 0 ? 0 : statistic.constant(channel, first_element<T>(g, alignment, slots.per_plane, channel, begin));
    Sum sum[2];
    const int threads = a.block_size();
    SlotWalk walk(begin + a.thread_rank(), threads, slots.per_plane);
    for (std::int64_t q = begin + a.thread_rank(); q < end; q += unroll * threads) {
      Slot slot[unroll];
      typename Statistic::Inputs in[unroll];
      BATCHNORM_UNROLLED
      for (int u = 0; u < unroll; ++u) {
        slot[u] = {0, 0, 0};
        if (q + u * threads < end) {
          slot[u] = walk.template slot<T>(g, alignment, channel);
          in[u] = statistic.load(a, slot[u].first, slot[u].begin, slot[u].end, alignment.aligned);
          walk.step();
        }
      }
      BATCHNORM_UNROLLED
      for (int u = 0; u < unroll; ++u) {
        BATCHNORM_UNROLLED
        for (int k = 0; k < size; ++k) {
          const std::int64_t i = slot[u].first + k;
          if (i >= slot[u].begin && i < slot[u].end) statistic.add(sum, in[u], k, constant);
        }
      }
    }
    add_threads(a, sum, reinterpret_cast<Sum*>(a.shared()));
    if (a.thread_rank() != 0) return;
    Statistic::store({&partials.at(0, slice, channel), partials.slices * partials.channels}, count, sum, constant);
  }
};

/// The sums of the threads of a warp that stand below each other, `across` side by side, to sum k of column c of warp w at
/// shared[((w * across + c) * size + k) * 2].
template <class Accelerator, class Sum, int size>
BATCHNORM_DEVICE void add_rows(Accelerator& a, Sum (&sum)[size][2], Sum* shared, int across) {
  const WarpPlace place = WarpPlace::of(a);
  BATCHNORM_UNROLLED
  for (int k = 0; k < size; ++k) {
    for (int j = 0; j < 2; ++j) {
      add_lanes(a, sum[k][j], across);
      if (place.lane < across) shared[((place.warp * across + place.lane) * size + k) * 2 + j] = sum[k][j];
    }
  }
}

/// The sums of channel e of `width`, warp after warp.
template <class Sum>
BATCHNORM_DEVICE void total_of_warps(const Sum* shared, int warps, int width, int e, Sum (&total)[2]) {
  for (int warp = 0; warp < warps; ++warp) {
    for (int j = 0; j < 2; ++j) total[j].add(shared[(warp * width + e) * 2 + j]);
  }
}

/// Channels last: a block sums a slice of rows of a tile of channels, `across` threads side by side.
template <class T, class Statistic>
struct SumRows {
  static constexpr int max_threads = 256, least_blocks = sizeof(typename Statistic::Inputs) > 16 ? 1 : 2;
  static constexpr int size = chunk_size<T>;

  Statistic statistic;
  Geometry geometry;
  bool aligned;       ///< each row begins with a chunk
  int across;         ///< a power of two, at most 32
  std::int64_t rows;  ///< of a slice
  Partials partials;

  static int shared_bytes(int threads, int across) { return threads / warp_size * across * size * 2 * 16; }
  BATCHNORM_HOST_DEVICE std::int64_t tiles() const { return (geometry.c + across * size - 1) / (across * size); }

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    using Sum = SumOf<T, Accelerator>;
    const Geometry g = geometry;
    const std::int64_t tile = a.block_rank() % tiles(), slice = a.block_rank() / tiles();
    const int column = a.thread_rank() % across, down = a.thread_rank() / across, step = a.block_size() / across;
    const std::int64_t first_channel = tile * across * size, own = first_channel + column * size;
    const std::int64_t begin = slice * rows, end = begin + rows < g.n ? begin + rows : g.n;

    typename Statistic::Constant constant[size];
    Sum sum[size][2];
    BATCHNORM_UNROLLED
    for (int k = 0; k < size; ++k) constant[k] = own + k < g.c ? statistic.constant(own + k, begin * g.c + own + k) : 0;
    if (own < g.c) {
      for (std::int64_t row = begin + down; row < end; row += step) {
        const std::int64_t first = row * g.c + own;
        const auto in = statistic.load(a, first, first, (row + 1) * g.c, aligned);
        BATCHNORM_UNROLLED
        for (int k = 0; k < size; ++k) {
          if (own + k < g.c) statistic.add(sum[k], in, k, constant[k]);
        }
      }
    }

    auto* shared = reinterpret_cast<Sum*>(a.shared());
    add_rows(a, sum, shared, across);
    a.sync();
    for (int e = a.thread_rank(); e < across * size; e += a.block_size()) {
      if (first_channel + e >= g.c) break;
      Sum total[2];
      total_of_warps(shared, a.block_size() / warp_size, across * size, e, total);
      const std::int64_t channel = first_channel + e;
      Statistic::store({&partials.at(0, slice, channel), partials.slices * partials.channels}, end - begin, total,
                       statistic.constant(channel, begin * g.c + channel));
    }
  }
};

}  // namespace batchnorm::cuda
