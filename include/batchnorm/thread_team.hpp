// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The threads of calls that bring no executor.

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

#include <batchnorm/errors.hpp>
#include <batchnorm/executor.hpp>

namespace batchnorm {

/// A fork-join team: concurrency - 1 threads beside the caller's. A thread without work spins for 30 us, so that calls in quick
/// succession cost well under a microsecond to fork, and then sleeps. A caller never waits for a thread that has not begun:
/// a short call is done by the time a sleeper wakes. A call that finds the team busy, or comes from one of its own tasks,
/// runs on the calling thread. (docs/decisions/0002-thread-team.md says why this is not Eigen's pool.)
class ThreadTeam final : public Executor {
 public:
  /// Starts concurrency - 1 threads.
  /// @throws ValueError   concurrency not in [1, max_concurrency]
  /// @throws std::system_error   the system refuses a thread
  explicit ThreadTeam(int concurrency);
  ThreadTeam(const ThreadTeam&) = delete;             ///< neither copied nor moved
  ThreadTeam& operator=(const ThreadTeam&) = delete;  ///< neither copied nor moved

  /// Ends the threads and waits for their end. No call may be running.
  ~ThreadTeam() override { stop(); }

  static constexpr int max_concurrency = 1024;  ///< the most threads that a team has, the caller's included

  /// The threads of the team, the caller's included.
  int concurrency() const noexcept override { return static_cast<int>(threads_.size()) + 1; }

  /// Each thread takes the next index that is left until none is; the caller's begins at once.
  void run(int count, Task task) noexcept override;

 private:
  // state_: the number of this call modulo 2^20, whether it is open, and how many threads are inside it.
  static constexpr std::uint32_t inside = 1;
  static constexpr std::uint32_t inside_mask = (1U << 11) - 1;
  static constexpr std::uint32_t open = 1U << 11;
  static constexpr std::uint32_t call = 1U << 12;
  static constexpr auto spin_time = std::chrono::microseconds(30);

  void stop() noexcept;
  void work(const Task& task) noexcept;
  void serve() noexcept;
  void run_here(int count, const Task& task) noexcept;

  /// Waits until done(state_) holds: spins for spin_time, then sleeps between notifications.
  template <class Condition>
  std::uint32_t await(Condition done) noexcept;

  static bool& in_task() noexcept {
    thread_local bool flag = false;
    return flag;
  }

  std::atomic<std::uint32_t> state_{0};
  std::atomic<bool> busy_{false};
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int> next_{0};
  int count_ = 0;
  const Task* task_ = nullptr;
  std::vector<std::thread> threads_;
};

/// The executor of every call that brings none: one ThreadTeam for the program, created at the first need with
/// BATCHNORM_NUM_THREADS threads, or as many as the hardware has. A forked child gets a team of its own.
/// @throws ValueError   BATCHNORM_NUM_THREADS is not a whole number in [1, ThreadTeam::max_concurrency]
Executor& default_executor();

// ----------------------------------------------------------------------------------------------------------------------------

inline ThreadTeam::ThreadTeam(int concurrency) {
  if (concurrency < 1 || concurrency > max_concurrency) {
    detail::fail<ValueError>("batchnorm::ThreadTeam: concurrency is " + std::to_string(concurrency) + ", it must be in [1, " +
                             std::to_string(max_concurrency) + "]");
  }
  threads_.reserve(static_cast<std::size_t>(concurrency) - 1);
#if defined(__cpp_exceptions)
  try {
#endif
    for (int i = 1; i < concurrency; ++i) threads_.emplace_back([this] { serve(); });
#if defined(__cpp_exceptions)
  } catch (...) {
    stop();
    throw;
  }
#endif
}

inline void ThreadTeam::stop() noexcept {
  stopping_.store(true);
  state_.fetch_add(call);
  state_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

inline void ThreadTeam::run_here(int count, const Task& task) noexcept {
  for (int i = 0; i < count; ++i) task(i);
}

inline void ThreadTeam::work(const Task& task) noexcept {
  in_task() = true;
  for (int i = next_.fetch_add(1, std::memory_order_relaxed); i < count_; i = next_.fetch_add(1, std::memory_order_relaxed)) {
    task(i);
  }
  in_task() = false;
}

inline void ThreadTeam::run(int count, Task task) noexcept {
  if (count <= 1 || threads_.empty() || in_task() || busy_.exchange(true, std::memory_order_acquire)) {
    run_here(count, task);
    return;
  }
  task_ = &task;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  state_.fetch_add(call + open, std::memory_order_release);
  state_.notify_all();
  work(task);
  state_.fetch_sub(open, std::memory_order_acq_rel);
  await([](std::uint32_t state) { return (state & inside_mask) == 0; });
  busy_.store(false, std::memory_order_release);
}

inline void ThreadTeam::serve() noexcept {
  for (;;) {
    std::uint32_t state =
        await([this](std::uint32_t s) { return (s & open) != 0 || stopping_.load(std::memory_order_relaxed); });
    if (stopping_.load()) return;
    if (!state_.compare_exchange_strong(state, state + inside, std::memory_order_acquire)) continue;
    work(*task_);
    const std::uint32_t before = state_.fetch_sub(inside, std::memory_order_release);
    if ((before & inside_mask) == inside) state_.notify_all();
    // Nothing is left of this call: wait until it is closed or another begins, so as not to enter it again and again.
    const std::uint32_t served = state & ~(inside_mask | open);
    await([this, served](std::uint32_t s) {
      return (s & open) == 0 || (s & ~(inside_mask | open)) != served || stopping_.load(std::memory_order_relaxed);
    });
  }
}

template <class Condition>
std::uint32_t ThreadTeam::await(Condition done) noexcept {
  const auto pause = [] {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  };
  const auto deadline = std::chrono::steady_clock::now() + spin_time;
  std::uint32_t state = state_.load(std::memory_order_acquire);
  do {
    for (int i = 0; i < 32; ++i) {
      if (done(state)) return state;
      pause();
      state = state_.load(std::memory_order_acquire);
    }
  } while (std::chrono::steady_clock::now() < deadline);
  while (!done(state)) {
    state_.wait(state, std::memory_order_acquire);
    state = state_.load(std::memory_order_acquire);
  }
  return state;
}

namespace detail {

inline int threads_of_environment() {
  const char* text = std::getenv("BATCHNORM_NUM_THREADS");
  if (text == nullptr || *text == '\0') {
    const unsigned hardware = std::thread::hardware_concurrency();
    return hardware == 0 ? 1 : static_cast<int>((std::min<unsigned>)(hardware, ThreadTeam::max_concurrency));
  }
  const char* const end = text + std::strlen(text);
  int number = 0;
  const auto [read, error] = std::from_chars(text, end, number);
  if (error != std::errc() || read != end || number < 1 || number > ThreadTeam::max_concurrency) {
    fail<ValueError>("batchnorm: BATCHNORM_NUM_THREADS is '" + std::string(text) + "', it must be a whole number in [1, " +
                     std::to_string(ThreadTeam::max_concurrency) + "]");
  }
  return number;
}

/// Never destroyed: its threads end with the program. A destructor would join threads that a forked child does not have.
inline std::atomic<ThreadTeam*> default_team{nullptr};

}  // namespace detail

inline Executor& default_executor() {
  if (ThreadTeam* team = detail::default_team.load(std::memory_order_acquire)) return *team;
#if __has_include(<pthread.h>)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { detail::default_team.store(nullptr); });
  static_cast<void>(registered);
#endif
  auto team = std::make_unique<ThreadTeam>(detail::threads_of_environment());
  ThreadTeam* expected = nullptr;
  if (detail::default_team.compare_exchange_strong(expected, team.get())) return *team.release();
  return *expected;  // another thread was first
}

}  // namespace batchnorm
