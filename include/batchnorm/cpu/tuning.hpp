// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include <unistd.h>

namespace batchnorm {

/// Every number that changes the time of a call and never its result.
struct Tuning {
  std::int64_t l2_bytes = 1 << 20;
  std::int64_t l3_bytes = 32 << 20;

  /// Streaming stores when x and y together exceed this share of the third-level cache: an L3 matter, never L2. Inference has
  /// no other use for the cache; training wants it for its own second read of x.
  double inference_stream_share = 0.75;
  double training_stream_share = 0.5;

  /// Channels-first training keeps a group of channels in cache between statistics and normalisation.
  /// Long runs: 2 MB, at most L3 / 8 per thread (short runs starve the hardware prefetcher; the rest of L3 may be others').
  std::int64_t plane_group_bytes = 2 << 20;
  /// Small planes in column form: half of L2, since the next group is prefetched into the other half.
  std::int64_t column_group_bytes = 512 << 10;

  /// Channels-last training normalises in blocks of this size from the end, when x is between half and twice L3: what the
  /// statistics read last is still there. Smaller blocks defeat the hardware prefetcher.
  std::int64_t reverse_block_bytes = 1 << 20;

  /// Below this many bytes of x a call stays on its thread; above, each thread gets at least half of it.
  std::int64_t serial_bytes = 128 << 10;

  /// A task of an element-wise sweep.
  std::int64_t sweep_task_bytes = 512 << 10;
};

/// The numbers of this machine: cache sizes as the system tells them, within what is plausible for one tenant (a virtual
/// machine may report the cache of a whole socket).
inline const Tuning& machine_tuning() noexcept {
  static const Tuning tuning = [] {
    Tuning t;
#if defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (l2 > 0) t.l2_bytes = std::clamp<std::int64_t>(l2, 256 << 10, 4 << 20);
    if (l3 > 0) t.l3_bytes = std::clamp<std::int64_t>(l3, 4 << 20, 64 << 20);
#endif
    t.column_group_bytes = t.l2_bytes / 2;
    t.plane_group_bytes = (std::min<std::int64_t>)(2 << 20, t.l3_bytes / 8);
    return t;
  }();
  return tuning;
}

}  // namespace batchnorm
