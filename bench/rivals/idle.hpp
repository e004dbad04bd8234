// SPDX-License-Identifier: MIT
#pragma once

// A thread pool that spins after its work takes the time of the next candidate. How long depends on the runtime, on its
// version, on the environment (GOMP_SPINCOUNT, OMP_WAIT_POLICY, KMP_BLOCKTIME) and on what a pause of the processor takes, so
// it is measured: this process sleeps and sees how much processor time it has used meanwhile.

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>

namespace bench {

/// Seconds that the other threads of a pool go on spinning after `parallel_region`, and a quarter more.
template <class F>
double seconds_of_spinning(int threads, F&& parallel_region) {
  const auto used = [] {
    std::timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  parallel_region();
  double longest = 0;
  // The clock misses up to a tick of a thread that still runs, so the sleep is to outlast the spinning by far.
  for (double sleep = 0.05; sleep < 4; sleep *= 4) {
    for (int i = 0; i < 3; ++i) {
      parallel_region();
      const double before = used();
      std::this_thread::sleep_for(std::chrono::duration<double>(sleep));
      longest = std::max(longest, (used() - before) / (threads - 1));
    }
    if (longest < 0.5 * sleep) break;
  }
  return 1.25 * longest;
}

}  // namespace bench
