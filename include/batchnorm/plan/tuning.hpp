// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <unistd.h>
#endif

namespace batchnorm {

/// Every number that changes the time of a call and never its result.
struct Tuning {
  std::int64_t l2_bytes = 1 << 20;
  std::int64_t l3_bytes = 32 << 20;

  /// Non-temporal stores when what is read and written exceeds this share of the third-level cache, or twice this share with
  /// more than one thread. Inference: an output of 2 MB is worth leaving in the cache for whoever reads it; storing more
  /// through a cache that others use as well is slower than non-temporal stores, by up to 2 times on one thread. Training needs
  /// the cache for its own second read of x, too, and its sums hide what non-temporal stores cost.
  double inference_stream_share = 0.125;
  double training_stream_share = 0.125;

  /// Channels-first training keeps a group of channels in cache between statistics and normalisation.
  /// 2 MB, at most L3 / 8 per thread: shorter runs starve the hardware prefetcher, the rest of L3 may be others', and the next
  /// group is summed while this one is normalised.
  std::int64_t plane_group_bytes = 2 << 20;
  /// The smallest planes, in column form: half of L2, since the next group is prefetched into the other half.
  std::int64_t column_group_bytes = 512 << 10;

  /// Channels-last training normalises in blocks of this size from the end, when x is between half and twice L3: what the
  /// statistics read last is still there. Smaller blocks defeat the hardware prefetcher.
  std::int64_t reverse_block_bytes = 1 << 20;

  /// Below this many bytes of x a call stays on its thread; above, each thread gets at least half of it.
  std::int64_t serial_bytes = 128 << 10;

  /// A task of an element-wise sweep.
  std::int64_t sweep_task_bytes = 512 << 10;
};

namespace detail {

/// The size of the cache of that level as the processor reports it; 0 where it does not. Not sysconf: glibc counts the
/// third-level cache of a whole socket where an instance of it serves a few cores.
inline std::int64_t cache_bytes(unsigned level) noexcept {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  for (const unsigned leaf : {4U, 0x8000001dU}) {  // Intel's and AMD's
    for (unsigned i = 0; i < 8 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) != 0 && (a & 31U) != 0; ++i) {
      const bool holds_data = (a & 31U) != 2;
      if (!holds_data || (a >> 5 & 7U) != level) continue;
      return static_cast<std::int64_t>((b >> 22) + 1) * ((b >> 12 & 1023U) + 1) * ((b & 4095U) + 1) *
             (static_cast<std::int64_t>(c) + 1);
    }
  }
#elif defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
  return sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
#endif
  static_cast<void>(level);
  return 0;
}

}  // namespace detail

/// Sizes of caches as a processor reports them; 0 where it does not.
struct CacheSizes {
  std::int64_t l2_bytes = 0;  ///< of one core
  std::int64_t l3_bytes = 0;  ///< of those that share it
};

/// Kinds of machine, which want different numbers. What was measured on each is in docs/performance.md.
enum class MachineKind {
  complexes,  ///< a fast third level of 16 to 40 MB for a few cores, beside second levels below 2 MB: Zen
  large_l2,   ///< second levels of 2 MB and more beside a slow third level for a whole socket, above 40 MB: Xeons since 2023
  unknown     ///< neither
};

/// The kind of a machine with these caches.
constexpr MachineKind kind_of(const CacheSizes& caches) noexcept {
  constexpr std::int64_t mega = std::int64_t{1} << 20;
  if (caches.l2_bytes >= 2 * mega && caches.l3_bytes > 40 * mega) return MachineKind::large_l2;
  const bool has_small_l2 = caches.l2_bytes > 0 && caches.l2_bytes < 2 * mega;
  const bool is_complex = has_small_l2 && caches.l3_bytes >= 16 * mega && caches.l3_bytes <= 40 * mega;
  return is_complex ? MachineKind::complexes : MachineKind::unknown;
}

/// The numbers for a machine with these caches: their sizes within what is plausible for one tenant (a virtual machine may
/// report the cache of a whole socket), and what follows from them.
constexpr Tuning tuning_of(const CacheSizes& caches) noexcept {
  Tuning t;
  if (caches.l2_bytes > 0) t.l2_bytes = std::clamp<std::int64_t>(caches.l2_bytes, 256 << 10, 4 << 20);
  if (caches.l3_bytes > 0) t.l3_bytes = std::clamp<std::int64_t>(caches.l3_bytes, 4 << 20, 32 << 20);
  t.column_group_bytes = t.l2_bytes / 2;
  t.plane_group_bytes = (std::min<std::int64_t>)(2 << 20, t.l3_bytes / 8);
  // On Zen 4 an output of 4 MB is written to the cache in 0.7 of the time that non-temporal stores take, one of 8 MB in 1.3; on
  // Zen 3, whose second level is half as large, it was not measured.
  if (kind_of(caches) == MachineKind::complexes && t.l2_bytes >= 1 << 20) t.inference_stream_share = 0.25;
  if (kind_of(caches) == MachineKind::large_l2) {
    // The third level is no faster than memory: what does not stay in the second is not worth keeping.
    t.column_group_bytes = t.l2_bytes / 8;
    t.plane_group_bytes = t.l2_bytes / 4;
    const double share_of_l2 = 0.65 * static_cast<double>(t.l2_bytes) / static_cast<double>(t.l3_bytes);
    t.inference_stream_share = t.training_stream_share = share_of_l2;
  }
  return t;
}

/// The caches of this machine.
inline CacheSizes machine_caches() noexcept { return {detail::cache_bytes(2), detail::cache_bytes(3)}; }

}  // namespace batchnorm
