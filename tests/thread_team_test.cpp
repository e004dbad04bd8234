// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <set>
#include <thread>

#include <batchnorm/thread_team.hpp>

#include "support/executors.hpp"
#include "support/messages.hpp"

// The executor alone: every task once, whoever calls from wherever, and nobody waits for long.
namespace {

using namespace support;
using batchnorm::default_executor;
using batchnorm::Executor;
using batchnorm::SerialExecutor;
using batchnorm::Task;
using batchnorm::ThreadTeam;
using batchnorm::ValueError;

/// Whether run(count) calls every task once; the tasks write without synchronisation of their own.
bool runs_each_once(Executor& executor, int count) {
  std::vector<int> calls(static_cast<std::size_t>(count));
  executor.run(count, [&](int i) { ++calls[static_cast<std::size_t>(i)]; });
  return calls == std::vector<int>(static_cast<std::size_t>(count), 1);
}

TEST(ThreadTeam, RunsEveryTaskOnce) {
  for (const int concurrency : {1, 2, 3, 7, 16}) {
    ThreadTeam team(concurrency);
    EXPECT_EQ(team.concurrency(), concurrency);
    for (int repetition = 0; repetition < 20; ++repetition) {
      for (const int count : {0, 1, 2, 3, 7, 16, 100, 1000})
        ASSERT_TRUE(runs_each_once(team, count)) << concurrency << ' ' << count;
    }
  }
}

TEST(ThreadTeam, RunsEveryTaskOnceAfterItsThreadsFellAsleep) {
  ThreadTeam team(4);
  for (int repetition = 0; repetition < 50; ++repetition) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(runs_each_once(team, 100));
  }
}

TEST(ThreadTeam, RunsManyShortCallsInSuccession) {
  ThreadTeam team(3);
  std::int64_t sum = 0;
  for (int repetition = 0; repetition < 20000; ++repetition) {
    std::array<int, 5> values{};
    team.run(5, [&](int i) { values[static_cast<std::size_t>(i)] = i + repetition; });
    for (const int value : values) sum += value;
  }
  EXPECT_EQ(sum, 20000LL * 10 + 5LL * 20000 * 19999 / 2);
}

TEST(ThreadTeam, UsesSeveralThreads) {
  ThreadTeam team(2);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (ids.size() < 2 && std::chrono::steady_clock::now() < deadline) {
    team.run(8, [&](int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    });
  }
  EXPECT_EQ(ids.size(), 2U);
}

TEST(ThreadTeam, RunsACallFromInsideATask) {
  ThreadTeam team(3);
  std::atomic<int> inner{0};
  for (int repetition = 0; repetition < 200; ++repetition) {
    team.run(4,
             [&](int) { team.run(5, [&](int) { team.run(2, [&](int) { inner.fetch_add(1, std::memory_order_relaxed); }); }); });
  }
  EXPECT_EQ(inner.load(), 200 * 4 * 5 * 2);
}

TEST(ThreadTeam, RunsACallToAnotherTeamFromInsideATask) {
  ThreadTeam outer(3), other(3);
  std::atomic<int> inner{0};
  for (int repetition = 0; repetition < 200; ++repetition) {
    outer.run(4, [&](int) { other.run(5, [&](int) { inner.fetch_add(1, std::memory_order_relaxed); }); });
  }
  EXPECT_EQ(inner.load(), 200 * 4 * 5);
}

TEST(ThreadTeam, MayBeCalledFromSeveralThreadsAtOnce) {
  ThreadTeam team(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int repetition = 0; repetition < 500; ++repetition) {
        if (!runs_each_once(team, 1 + repetition % 13)) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(ThreadTeam, IsMadeAndEndedAtAnyMoment) {
  for (int repetition = 0; repetition < 200; ++repetition) {
    ThreadTeam team(1 + repetition % 9);
    for (int calls = repetition % 4; calls > 0; --calls) ASSERT_TRUE(runs_each_once(team, 10));
    if (repetition % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));  // asleep when it ends
  }
}

// Threads without work spin for 30 us and then sleep: the processor time of the whole process says so.
TEST(ThreadTeam, CostsNothingWhileThereIsNoWork) {
  ThreadTeam team(4);
  ASSERT_TRUE(runs_each_once(team, 100));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(used, 0.05) << "of 0.8 s that three spinning threads and a waiting caller could have used";
}

TEST(ThreadTeam, RefusesAConcurrencyOutOfRange) {
  for (const int concurrency : {0, -1, 1025}) {
    EXPECT_EQ(message_of<ValueError>([&] { ThreadTeam team(concurrency); }),
              "batchnorm::ThreadTeam: concurrency is " + std::to_string(concurrency) + ", it must be in [1, 1024]");
  }
}

TEST(SerialExecutor, RunsTasksInOrderOnTheCaller) {
  SerialExecutor serial;
  EXPECT_EQ(serial.concurrency(), 1);
  std::vector<int> order;
  serial.run(4, [&](int i) { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TEST(Task, RefersToACallableWithoutOwningIt) {
  int sum = 0;
  auto add = [&sum](int i) { sum += i; };
  const Task task(add);
  const Task copy = task;
  task(3);
  copy(4);
  EXPECT_EQ(sum, 7);
}

TEST(DefaultExecutor, IsOneForTheProgram) {
  std::vector<Executor*> seen(4);
  std::vector<std::thread> threads;
  for (Executor*& executor : seen) threads.emplace_back([&executor] { executor = &default_executor(); });
  for (std::thread& thread : threads) thread.join();
  for (const Executor* executor : seen) EXPECT_EQ(executor, &default_executor());
  EXPECT_TRUE(runs_each_once(default_executor(), 100));
}

/// A forked child starts without a team and reads the environment again.
class ForkedDefaultExecutor : public testing::Test {
 protected:
  void SetUp() override {
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer starts no threads after a fork of several threads";
  }

  /// Concurrency of the default executor under that value of BATCHNORM_NUM_THREADS; 255 for a ValueError with `message`.
  static int concurrency_with(const char* value, const std::string& message = {}) {
    return status_of_child([&] {
      setenv("BATCHNORM_NUM_THREADS", value, 1);
      try {
        return default_executor().concurrency();
      } catch (const ValueError& error) {
        return error.what() == message ? 255 : 254;
      }
    });
  }
};

TEST_F(ForkedDefaultExecutor, WorksInTheChild) {
  ASSERT_TRUE(runs_each_once(default_executor(), 100));  // the parent's threads exist
  const int status = status_of_child([] { return runs_each_once(default_executor(), 100) ? 0 : 1; });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(runs_each_once(default_executor(), 100));
}

TEST_F(ForkedDefaultExecutor, WorksInTheChildOfAChild) {
  ASSERT_TRUE(runs_each_once(default_executor(), 100));
  const int status = status_of_child([] {
    if (!runs_each_once(default_executor(), 100)) return 1;
    return status_of_child([] { return runs_each_once(default_executor(), 100) ? 0 : 2; });
  });
  EXPECT_EQ(status, 0);
}

TEST_F(ForkedDefaultExecutor, HasAsManyThreadsAsTheVariableSays) {
  for (const int number : {1, 2, 3, 7}) EXPECT_EQ(concurrency_with(std::to_string(number).c_str()), number);
}

TEST_F(ForkedDefaultExecutor, EmptyVariableMeansTheHardwares) {
  EXPECT_EQ(concurrency_with(""), static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
}

TEST_F(ForkedDefaultExecutor, MalformedVariableIsAnError) {
  for (const char* value : {"0", "-3", "2x", "many", "1.5", "1025", "99999999999999999999"}) {
    EXPECT_EQ(concurrency_with(value, "batchnorm: BATCHNORM_NUM_THREADS is '" + std::string(value) +
                                          "', it must be a whole number in [1, 1024]"),
              255)
        << value;
  }
}

}  // namespace
