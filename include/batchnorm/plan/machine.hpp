// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>

#include <batchnorm/executor.hpp>
#include <batchnorm/isa.hpp>
#include <batchnorm/plan/default_mode.hpp>
#include <batchnorm/plan/tuning.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Who runs a call and with which numbers.
struct Machine {
  Isa isa;
  Executor* executor;
  const Tuning* tuning;

  /// Threads worth using for that many bytes of x.
  int workers(std::int64_t bytes) const noexcept {
    if (bytes < tuning->serial_bytes) return 1;
    const std::int64_t useful = (std::max<std::int64_t>)(1, bytes / (std::max<std::int64_t>)(1, tuning->serial_bytes / 2));
    return static_cast<int>(std::clamp<std::int64_t>(executor->concurrency(), 1, useful));
  }
  /// True if an operation on x of `bytes` bytes that reads and writes `swept` bytes should use non-temporal stores, given its
  /// share of the third-level cache. One thread can keep the memory busy with what it streams; several gain from the cache.
  bool streams(std::int64_t bytes, std::int64_t swept, double share) const noexcept {
    const double limit = share * static_cast<double>(tuning->l3_bytes);
    return static_cast<double>(swept) > (workers(bytes) > 1 ? 2 * limit : limit);
  }
  /// Bytes of x that a task of an element-wise sweep works on: a few tasks for each thread.
  std::int64_t task_bytes(std::int64_t bytes) const noexcept {
    const std::int64_t threads = workers(bytes);
    if (threads == 1) return tuning->sweep_task_bytes;
    return (std::min)(tuning->sweep_task_bytes, (std::max<std::int64_t>)(4096, bytes / (2 * threads)));
  }
};

/// Hands out 0, 1, 2, ... to the tasks of one run.
class Counter {
 public:
  std::int64_t take() noexcept { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> next_{0};
};

/// Calls task(worker, i) for i in [0, count), in ascending order within each worker, which is in [0, workers). The tasks run in
/// the default mode, the executor's own code in that of its threads.
template <class F>
void for_each(const Machine& machine, int workers, std::int64_t count, F&& task) noexcept {
  if (workers == 1 || count == 1) {
    return in_default_mode([&] {
      for (std::int64_t i = 0; i < count; ++i) task(0, i);
    });
  }
  Counter counter;
  machine.executor->run(static_cast<int>((std::min<std::int64_t>)(workers, count)), [&](int worker) {
    in_default_mode([&] {
      for (std::int64_t i = counter.take(); i < count; i = counter.take()) task(worker, i);
    });
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
