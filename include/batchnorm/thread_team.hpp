// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The threads of calls that bring no executor.

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include <batchnorm/errors.hpp>
#include <batchnorm/executor.hpp>

namespace batchnorm {
namespace detail {
class DefaultTeam;
}

/// A fork-join team: concurrency - 1 threads beside the caller's. A thread without work spins for 30 us, so that calls in quick
/// succession cost well under a microsecond to fork, and then sleeps. A caller never waits for a thread that has not begun:
/// a short call is done by the time a sleeper wakes. A call that finds the team busy, or comes from one of its own tasks,
/// runs on the calling thread. (docs/decisions/0002-thread-team.md says why this is not Eigen's pool.)
///
/// The threads take no signals but those of their own faults: what the program sends or waits for reaches its own threads.
class ThreadTeam final : public Executor {
 public:
  /// Starts concurrency - 1 threads, or as many of them as the system grants: with fewer, and with none, calls work as well.
  /// @throws ValueError   concurrency not in [1, max_concurrency]
  /// @throws std::bad_alloc
  explicit ThreadTeam(int concurrency);
  ThreadTeam(const ThreadTeam&) = delete;             ///< neither copied nor moved
  ThreadTeam& operator=(const ThreadTeam&) = delete;  ///< neither copied nor moved

  /// Ends the threads and waits for their end. No call may be running. A forked child has none of the threads and waits for
  /// none.
  ~ThreadTeam() override { stop(); }

  static constexpr int max_concurrency = 1024;  ///< the most threads that a team has, the caller's included

  /// The threads that the team has, the caller's included: fewer than asked for where the system refused some.
  int concurrency() const noexcept override { return others_.load(std::memory_order_relaxed) + 1; }

  /// Each thread takes the next index that is left until none is; the caller's begins at once.
  void run(int count, Task task) noexcept override;

 private:
  // state_: the number of this call modulo 2^20, whether it is open, and how many threads are inside it.
  static constexpr std::uint32_t inside = 1;
  static constexpr std::uint32_t inside_mask = (1U << 11) - 1;
  static constexpr std::uint32_t open = 1U << 11;
  static constexpr std::uint32_t call = 1U << 12;
  static constexpr auto spin_time = std::chrono::microseconds(30);

  friend class detail::DefaultTeam;

  ThreadTeam() noexcept = default;  // the caller alone
  void start(int others);
  void stop() noexcept;
  void close() noexcept;
  void forget() noexcept;
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
  std::atomic<int> others_{0};
  std::unique_ptr<pthread_t[]> threads_;
  pid_t process_ = 0;  // whose threads these are
};

/// The executor of every call that brings none: one ThreadTeam for the program, and one for each shared library that makes
/// calls, created at the first need with BATCHNORM_NUM_THREADS threads, or as many as the hardware has. A forked child gets a
/// team of its own.
///
/// The team ends when the program ends or the library is unloaded (dlclose), which waits for its threads; no call may be
/// running in a library that is unloaded. A program may end while a thread is in a call: that call continues until the process
/// is gone, on its own thread where the team has already ended. Calls from destructors of static objects run on their own
/// thread.
/// @throws ValueError   BATCHNORM_NUM_THREADS is not a whole number in [1, ThreadTeam::max_concurrency]
/// @throws std::bad_alloc
[[gnu::visibility("hidden")]] Executor& default_executor();

// ----------------------------------------------------------------------------------------------------------------------------

inline ThreadTeam::ThreadTeam(int concurrency) {
  if (concurrency < 1 || concurrency > max_concurrency) {
    detail::fail<ValueError>("batchnorm::ThreadTeam: concurrency is " + std::to_string(concurrency) + ", it must be in [1, " +
                             std::to_string(max_concurrency) + "]");
  }
  start(concurrency - 1);
}

/// Ends at the first thread that the system refuses. Threads inherit the signals that are blocked here; those of faults stay as
/// they are, so that the program's handlers see them.
inline void ThreadTeam::start(int others) {
  threads_ = std::make_unique<pthread_t[]>(static_cast<std::size_t>(others));
  process_ = getpid();
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) sigdelset(&blocked, fault);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto serve_team = [](void* team) -> void* {
    static_cast<ThreadTeam*>(team)->serve();
    return nullptr;
  };
  for (int i = 0; i < others && pthread_create(&threads_[static_cast<std::size_t>(i)], nullptr, serve_team, this) == 0; ++i) {
    others_.store(i + 1, std::memory_order_relaxed);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

inline void ThreadTeam::stop() noexcept {
  stopping_.store(true);
  state_.fetch_add(call);
  state_.notify_all();
  if (process_ != getpid()) return;
  for (int i = 0; i < others_; ++i) pthread_join(threads_[static_cast<std::size_t>(i)], nullptr);
}

/// Stops the threads and leaves an executor that runs every call on its thread. Does nothing while a call is running.
inline void ThreadTeam::close() noexcept {
  if (busy_.exchange(true, std::memory_order_acquire)) return;
  stop();
  threads_.reset();
}

/// In a forked child: leaves the callers alone. One of them may have forked in a task, and continues there.
inline void ThreadTeam::forget() noexcept {
  others_.store(0);
  state_.fetch_and(~inside_mask);
  threads_.reset();
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
  if (count <= 1 || others_.load(std::memory_order_relaxed) == 0 || in_task() ||
      busy_.exchange(true, std::memory_order_acquire)) {
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

/// The number of threads that BATCHNORM_NUM_THREADS asks for, or that the hardware has; 0 where it asks for none that can be.
inline int threads_of_environment() noexcept {
  const char* text = std::getenv("BATCHNORM_NUM_THREADS");
  if (text == nullptr || *text == '\0') {
    const unsigned hardware = std::thread::hardware_concurrency();
    return hardware == 0 ? 1 : static_cast<int>((std::min<unsigned>)(hardware, ThreadTeam::max_concurrency));
  }
  const char* const end = text + std::strlen(text);
  int number = 0;
  const auto [read, error] = std::from_chars(text, end, number);
  const bool is_number = error == std::errc() && read == end;
  return is_number && number >= 1 && number <= ThreadTeam::max_concurrency ? number : 0;
}

inline std::string refusal_of_threads() {
  const char* text = std::getenv("BATCHNORM_NUM_THREADS");
  return std::string("batchnorm: BATCHNORM_NUM_THREADS is '").append(text == nullptr ? "" : text) +
         "', it must be a whole number in [1, " + std::to_string(ThreadTeam::max_concurrency) + "]";
}

/// The default team of one program or shared library, in whose own memory it lies (that of a forked child apart). It is hidden:
/// no other object shares it, and its threads run no code that may be unloaded before it. It is never destroyed: a
/// reference to it is good until the process is gone.
class [[gnu::visibility("hidden")]] DefaultTeam {
 public:
  Executor& get() {
    if (ThreadTeam* team = team_.load(std::memory_order_acquire)) return *team;
    return make();
  }

  /// What get() would throw, or "".
  std::string problem() const {
    if (team_.load(std::memory_order_acquire) != nullptr || threads_of_environment() != 0) return {};
    return refusal_of_threads();
  }

 private:
  /// One thread at a time makes the team.
  struct Turn {
    std::atomic<bool>& taken;

    explicit Turn(std::atomic<bool>& flag) noexcept : taken(flag) {
      while (taken.exchange(true, std::memory_order_acquire)) taken.wait(true);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      taken.store(false, std::memory_order_release);
      taken.notify_all();
    }
  };

  Executor& make();

  std::atomic<ThreadTeam*> team_{nullptr};
  std::atomic<bool> turn_{false};
  bool memory_is_taken_ = false;
  alignas(ThreadTeam) std::byte memory_[sizeof(ThreadTeam)]{};
};

[[gnu::visibility("hidden")]] inline constinit DefaultTeam default_team;

inline Executor& DefaultTeam::make() {
  const Turn turn(turn_);
  if (ThreadTeam* made = team_.load(std::memory_order_acquire)) return *made;
  const int threads = threads_of_environment();
  if (threads == 0) fail<ValueError>(refusal_of_threads());
  // The C library forgets the first with the object that it lies in, and calls the second when that is unloaded.
  static const int at_fork = pthread_atfork(nullptr, nullptr, [] {
    if (ThreadTeam* of_parent = default_team.team_.exchange(nullptr)) of_parent->forget();
    default_team.turn_.store(false);
  });
  static const int at_end = std::atexit([] {
    if (ThreadTeam* team = default_team.team_.load(std::memory_order_acquire)) team->close();
  });
  static_cast<void>(at_fork);
  static_cast<void>(at_end);
  std::unique_ptr<ThreadTeam> of_child;
  if (memory_is_taken_) of_child.reset(new ThreadTeam());
  ThreadTeam* team = memory_is_taken_ ? of_child.get() : new (memory_) ThreadTeam();
  team->start(threads - 1);
  memory_is_taken_ = true;
  static_cast<void>(of_child.release());
  team_.store(team, std::memory_order_release);
  return *team;
}

}  // namespace detail

inline Executor& default_executor() { return detail::default_team.get(); }

}  // namespace batchnorm
