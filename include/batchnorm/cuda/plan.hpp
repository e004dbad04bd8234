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
  bool cooperates = true;   ///< takes cooperative launches
};

/// Tuning numbers of one kind of device; they change the time, and where they change slices, the last bits of a result.
struct Policy {
  int threads = 256;                         ///< of a block, but in resident training
  int resident_threads = 384;                ///< two such blocks share the registers of a multiprocessor
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

/// Chunks of a row, rounded up to a power of two.
template <class T>
std::int64_t padded_chunks(std::int64_t channels) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(divide_up(channels, chunk_size<T>))));
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
    plan.across = static_cast<int>(std::min<std::int64_t>(padded_chunks<T>(g.c), policy.across));
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

/// How training with one read is cut.
struct ResidentPlan {
  enum Team { none, cluster, grid };  ///< none: it does not fit, or leaves too much of the device idle

  Team team = none;
  int size = 1;  ///< blocks of a team
  int threads = 0, across = 1;
  std::int64_t per_slice = 0, blocks = 0, shared_bytes = 0;
};

/// Cut among teams of that size.
template <class T>
ResidentPlan cut_resident(const Geometry& g, const Alignment& alignment, ResidentPlan::Team team, int size, int across,
                          const Policy& policy) {
  ResidentPlan plan{team, size, policy.threads, across};
  if (g.channels_last) {
    plan.per_slice = divide_up(g.n, size);
    plan.blocks = divide_up(g.c, across * chunk_size<T>) * size;
    plan.shared_bytes = layout_of_rows<T>(plan.per_slice, across, plan.threads).bytes();
  } else {
    const std::int64_t all = g.n * PlaneSlots::slots_of_plane(g.s, chunk_size<T>, alignment);
    plan.per_slice = round_up(divide_up(all, size), 8);
    plan.threads = static_cast<int>(std::min<std::int64_t>(policy.resident_threads, round_up(plan.per_slice, warp_size)));
    plan.blocks = g.c * size;
    plan.shared_bytes = layout_of_planes(plan.per_slice, plan.threads).bytes();
  }
  return plan;
}

/// Blocks of a team of a cooperative grid: one block for each multiprocessor, so that all are resident at once.
template <class T>
int grid_team_size(const Geometry& g, const Device& device, const Policy& policy) {
  const std::int64_t teams =
      g.channels_last ? divide_up(g.c, std::min<std::int64_t>(padded_chunks<T>(g.c), policy.across) * chunk_size<T>) : g.c;
  return device.cooperates ? static_cast<int>(device.multiprocessors / std::max<std::int64_t>(teams, 1)) : 0;
}

/// A cluster, the smaller the better, as long as half of the multiprocessors have a block; for what leaves them idle, a
/// cooperative grid.
template <class T>
ResidentPlan plan_resident(const Geometry& g, const Alignment& alignment, bool writes_mask, const Device& device,
                           const Policy& policy) {
  if (writes_mask && (g.channels_last ? g.c : g.s) % 8 != 0) return {};  // a byte would span two channels, or two rows
  const bool is_small = g.elements() * static_cast<std::int64_t>(sizeof(T)) <= policy.small_bytes;
  // Threads side by side have whole bytes of a mask, and a sector of memory (32 bytes) where there is so much.
  const auto widest = static_cast<int>(std::min<std::int64_t>(padded_chunks<T>(g.c), policy.across));
  const int narrowest = std::min(widest, std::max(2, 8 / chunk_size<T>));
  const bool may_narrow = g.channels_last && widest >= 8 / chunk_size<T>;
  const auto is_busy = [&](const ResidentPlan& plan) { return 2 * plan.blocks >= device.multiprocessors; };

  ResidentPlan best;
  const std::int64_t shared_by_several = device.shared_bytes_of_multiprocessor / policy.resident_blocks - 1024;
  for (const std::int64_t limit :
       {std::min<std::int64_t>(device.shared_bytes, shared_by_several), std::int64_t{device.shared_bytes}}) {
    for (int size = 1; size <= device.largest_cluster; size *= 2) {
      for (int across = widest; across >= (may_narrow ? narrowest : widest); across /= 2) {
        const ResidentPlan plan = cut_resident<T>(g, alignment, ResidentPlan::cluster, size, across, policy);
        const bool fits = plan.shared_bytes <= limit && plan.blocks <= INT32_MAX;
        const bool is_better =
            best.team == ResidentPlan::none || (best.blocks < device.multiprocessors && plan.blocks > best.blocks);
        if (fits && is_better && (is_small || is_busy(plan))) best = plan;
      }
    }
    if (best.team != ResidentPlan::none) return best;
  }
  const int size = grid_team_size<T>(g, device, policy);
  if (size < 1) return {};
  const ResidentPlan plan = cut_resident<T>(g, alignment, ResidentPlan::grid, size, widest, policy);
  return plan.shared_bytes <= device.shared_bytes && is_busy(plan) ? plan : ResidentPlan{};
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
