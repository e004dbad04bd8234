// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace bench {

/// Calls f(begin, end) for adjacent parts of [0, count), for large counts on all processors. For what is set up and checked,
/// not for what is timed: the threads are gone when it returns.
template <class F>
void in_parallel(std::int64_t count, F&& f) {
  constexpr std::int64_t least = 64;
  const std::int64_t processors = std::thread::hardware_concurrency();
  if (count < least || processors < 2) {
    if (count > 0) f(std::int64_t{0}, count);
    return;
  }
  std::vector<std::thread> threads;
  for (std::int64_t i = 0; i < processors; ++i) {
    threads.emplace_back([&f, begin = i * count / processors, end = (i + 1) * count / processors] { f(begin, end); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace bench
