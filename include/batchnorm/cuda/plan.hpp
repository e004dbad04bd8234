// SPDX-License-Identifier: MIT
#pragma once

// How a call is cut into blocks: from the shape, the alignment and the device alone.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <numeric>

#include <batchnorm/cuda/resident.cuh>

namespace batchnorm::cuda {

/// What a plan needs to know of a device.
struct Device {
  int multiprocessors = 132;
  int shared_bytes = 227 << 10;  ///< that a block may have
  int shared_bytes_of_multiprocessor = 228 << 10;
  int largest_cluster = 8;  ///< 1 where there are no clusters
};

/// Tuning numbers of one kind of device; they change the time, and where they change slices, the last bits of a result.
struct Policy {
  int threads = 256;                         ///< of a block, but in resident training
  int resident_threads = 512;                ///< one channel's slice keeps so many busy
  int waves = 4;                             ///< blocks that a sum or a sweep is cut into, as a multiple of what runs at once
  int resident_blocks = 2;                   ///< of a multiprocessor: one reads while the other writes
  int across = 8;                            ///< threads side by side over channels: 128 bytes
  std::int64_t most_slice_chunks = 1 << 16;  ///< a slice has one pivot, which may cost log2 of its values in bits
  std::int64_t small_bytes = 1 << 20;        ///< below, one launch is best however few blocks it has
};

/// From compute capability (major * 10 + minor).
constexpr Policy policy_of(int capability) {
  Policy policy;
  if (capability < 80) policy.resident_threads = 256;  // 7.5 has 1024 threads a multiprocessor, not 2048
  if (capability == 86 || capability == 89 || capability >= 120) policy.resident_threads = 384;  // 1536
  return policy;
}

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

/// Where the chunks of these tensors lie; null ones do not matter. `exact`: the first chunk begins with the first element.
template <class T>
Alignment alignment_of(std::initializer_list<const T*> tensors, bool exact) {
  int shift = -1;
  for (const T* p : tensors) {
    if (p == nullptr) continue;
    const int own = static_cast<int>(reinterpret_cast<std::uintptr_t>(p) % 16 / sizeof(T));
    if (shift >= 0 && own != shift) return {0, false};
    shift = own;
  }
  if (shift > 0 && exact) return {0, false};
  return {std::max(shift, 0), true};
}

/// How sums are cut.
struct SumPlan {
  std::int64_t slices = 1;
  std::int64_t per_slice = 1;  ///< slots or rows
  int across = 1;
  std::int64_t tiles = 1;

  std::int64_t blocks() const { return slices * tiles; }
};

template <class T>
SumPlan plan_of_sums(const Geometry& g, const Alignment& alignment, const Device& device, const Policy& policy) {
  constexpr int size = chunk_size<T>;
  const std::int64_t wanted = std::int64_t{policy.waves} * device.multiprocessors * (2048 / policy.threads);
  SumPlan plan;
  std::int64_t all, least, most;  // of a slice
  if (g.channels_last) {
    const auto needed = static_cast<std::uint64_t>(divide_up(g.c, size));
    plan.across = static_cast<int>(std::min<std::uint64_t>(std::bit_ceil(needed), static_cast<unsigned>(policy.across)));
    plan.tiles = divide_up(g.c, plan.across * size);
    all = g.n;
    least = std::int64_t{policy.threads} / plan.across * 8;
    most = policy.most_slice_chunks * size;
  } else {
    plan.tiles = g.c;
    all = g.n * PlaneSlots::slots_of_plane(g.s, size, alignment);
    least = std::int64_t{policy.threads} * 8;
    most = policy.most_slice_chunks;
  }
  const std::int64_t slices = std::clamp<std::int64_t>(wanted / plan.tiles, 1, divide_up(all, least));
  plan.per_slice = std::min(divide_up(all, slices), most);
  if (plan.per_slice > 1) plan.per_slice = round_up(plan.per_slice, 2);  // not a single slot, which may be empty
  plan.slices = divide_up(all, plan.per_slice);
  return plan;
}

/// How training with one read is cut; cluster 0: it does not fit.
struct ResidentPlan {
  int cluster = 0, threads = 0, across = 1;
  std::int64_t per_slice = 0, blocks = 0;
  std::int64_t shared_bytes = 0;
};

template <class T>
ResidentPlan plan_resident(const Geometry& g, const Alignment& alignment, bool writes_mask, const Device& device,
                           const Policy& policy) {
  constexpr int size = chunk_size<T>;
  ResidentPlan best;
  const std::int64_t bytes = g.elements() * static_cast<std::int64_t>(sizeof(T));
  if (writes_mask && (g.channels_last ? g.c : g.s) % 8 != 0) return best;  // a byte would span two channels, or two rows
  const std::int64_t budget =
      std::min<std::int64_t>(device.shared_bytes, device.shared_bytes_of_multiprocessor / policy.resident_blocks - 1024);
  const auto consider = [&](int cluster, std::int64_t limit, int across) {
    ResidentPlan plan;
    plan.cluster = cluster;
    plan.across = across;
    if (g.channels_last) {
      const ResidentRows<T> body{{}, g, true, across, divide_up(g.n, cluster), {}};
      plan.threads = std::min(policy.threads, body.max_threads);
      plan.per_slice = body.rows;
      plan.shared_bytes = body.layout(plan.threads).bytes();
      plan.blocks = body.tiles() * cluster;
    } else {
      const std::int64_t all = g.n * PlaneSlots::slots_of_plane(g.s, size, alignment);
      plan.per_slice = round_up(divide_up(all, cluster), 8);
      plan.threads = static_cast<int>(std::min<std::int64_t>(policy.resident_threads, round_up(plan.per_slice, warp_size)));
      plan.shared_bytes = ResidentPlanes<T>{{}, g, {}, {1, plan.per_slice}, {}}.layout(plan.threads).bytes();
      plan.blocks = g.c * cluster;
    }
    const bool fits = plan.shared_bytes <= limit && plan.blocks <= INT32_MAX;
    const bool is_busy = 2 * plan.blocks >= device.multiprocessors || bytes <= policy.small_bytes;
    if (!fits || (best.cluster > 0 && best.blocks >= device.multiprocessors)) return;
    if (is_busy && plan.blocks > best.blocks) best = plan;
  };
  const int narrowest = std::max(1, std::min(8 / size, policy.across));
  for (const std::int64_t limit : {budget, std::int64_t{device.shared_bytes}}) {
    for (int cluster = 1; cluster <= device.largest_cluster; cluster *= 2) {
      if (!g.channels_last) {
        consider(cluster, limit, 1);
        continue;
      }
      const auto needed =
          static_cast<int>(std::bit_ceil(static_cast<std::uint64_t>(divide_up(std::min<std::int64_t>(g.c, 1 << 20), size))));
      for (int across = std::max(narrowest, std::min(needed, policy.across));
           across >= std::min(2, needed) && across >= narrowest; across /= 2) {
        consider(cluster, limit, across);
      }
    }
    if (best.cluster > 0) break;
  }
  return best;
}

/// Blocks of a sweep: channels last, if possible so many that a thread meets the same channels again.
inline std::int64_t blocks_of_sweep(const Geometry& g, std::int64_t chunks, int size, const Device& device,
                                    const Policy& policy) {
  const std::int64_t most = std::int64_t{policy.waves} * device.multiprocessors * (2048 / policy.threads);
  const std::int64_t blocks = std::clamp<std::int64_t>(divide_up(chunks, policy.threads), 1, most);
  if (!g.channels_last) return blocks;
  const std::int64_t period = g.c / std::gcd(g.c, std::int64_t{policy.threads} * size);
  return period <= blocks ? blocks / period * period : blocks;
}

}  // namespace batchnorm::cuda
