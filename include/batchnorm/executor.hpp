// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How a call is cut into tasks and who runs them.

#include <memory>
#include <type_traits>

namespace batchnorm {

/// A reference to a callable void(int): two pointers, nothing owned. Lives no longer than what it refers to.
class Task {
 public:
  /// Refers to the callable, which outlives the task.
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Task> && std::is_invocable_v<F&, int>)
  Task(F&& callable)
  noexcept
      : callable_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* object, int index) { (*static_cast<std::remove_reference_t<F>*>(object))(index); }) {}

  /// Calls it.
  void operator()(int index) const { call_(callable_, index); }

 private:
  void* callable_;
  void (*call_)(void*, int);
};

/// How work is run. The library cuts a call into tasks and hands them to an executor; it creates no thread of its own when the
/// caller brings one. Implementations decide the order and the threads; results do not depend on either.
class Executor {
 public:
  virtual ~Executor() = default;  ///< no call may be running

  /// Largest number of tasks that can run at the same time, at least 1; a call takes anything below for 1.
  virtual int concurrency() const noexcept = 0;

  /// Calls task(i) exactly once for each i in [0, count) and returns when all have returned; what they wrote is then visible to
  /// the caller. The tasks do not throw, and leave a thread's floating-point mode as it was. May be called from several threads
  /// and from inside a task.
  virtual void run(int count, Task task) noexcept = 0;
};

/// Runs every task on the calling thread.
class SerialExecutor final : public Executor {
 public:
  /// 1
  int concurrency() const noexcept override { return 1; }

  /// Calls task(0), task(1), ... in this order.
  void run(int count, Task task) noexcept override {
    for (int i = 0; i < count; ++i) task(i);
  }
};

}  // namespace batchnorm
