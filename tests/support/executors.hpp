// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <batchnorm/executor.hpp>

#include "sanitizers.hpp"

namespace support {

/// Claims to be several, is one, and runs the last task first.
class ReverseExecutor final : public batchnorm::Executor {
 public:
  explicit ReverseExecutor(int concurrency) : concurrency_(concurrency) {}
  int concurrency() const noexcept override { return concurrency_; }
  void run(int count, batchnorm::Task task) noexcept override {
    for (int i = count - 1; i >= 0; --i) task(i);
  }

 private:
  int concurrency_;
};

/// A thread for each task of each call: as unordered as can be.
class ThreadPerTask final : public batchnorm::Executor {
 public:
  explicit ThreadPerTask(int concurrency) : concurrency_(concurrency) {}
  int concurrency() const noexcept override { return concurrency_; }
  void run(int count, batchnorm::Task task) noexcept override {
    runs_.fetch_add(1);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([task, i] { task(i); });
    for (std::thread& thread : threads) thread.join();
  }

  /// Calls of run so far.
  int runs() const noexcept { return runs_.load(); }

 private:
  int concurrency_;
  std::atomic<int> runs_{0};
};

/// Exit status of a forked child that runs body(), which returns its status; ends it after 60 s.
template <class Body>
int status_of_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(body());
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace support
