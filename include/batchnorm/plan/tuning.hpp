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

/// The numbers of this machine: cache sizes within what is plausible for one tenant (a virtual machine may report the cache of
/// a whole socket), and what follows from them.
inline const Tuning& machine_tuning() noexcept {
  static const Tuning tuning = [] {
    Tuning t;
    const std::int64_t l2 = detail::cache_bytes(2), l3 = detail::cache_bytes(3);
    if (l2 > 0) t.l2_bytes = std::clamp<std::int64_t>(l2, 256 << 10, 4 << 20);
    if (l3 > 0) t.l3_bytes = std::clamp<std::int64_t>(l3, 4 << 20, 32 << 20);
    t.column_group_bytes = t.l2_bytes / 2;
    t.plane_group_bytes = (std::min<std::int64_t>)(2 << 20, t.l3_bytes / 8);
    return t;
  }();
  return tuning;
}

}  // namespace batchnorm
