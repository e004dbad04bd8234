// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <batchnorm/thread_team.hpp>

#include "support/executors.hpp"

// The team and the system that it runs on: signals, threads that are refused, a forked child.
namespace {

using namespace support;
using batchnorm::default_executor;
using batchnorm::Executor;
using batchnorm::ThreadTeam;

bool runs_each_once(Executor& executor, int count) {
  std::vector<int> calls(static_cast<std::size_t>(count));
  executor.run(count, [&](int i) { ++calls[static_cast<std::size_t>(i)]; });
  return calls == std::vector<int>(static_cast<std::size_t>(count), 1);
}

TEST(SignalsOfTheProgram, ReachNoThreadOfATeam) {
  // In a child, whose signals are nobody else's.
  EXPECT_EQ(status_of_child([] {
              std::atomic<pthread_t> receiver{};
              static std::atomic<pthread_t>* seen = &receiver;
              signal(SIGUSR1, [](int) { seen->store(pthread_self()); });
              const ThreadTeam team(4);
              sigset_t usr1;
              sigemptyset(&usr1);
              sigaddset(&usr1, SIGUSR1);
              pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
              kill(getpid(), SIGUSR1);
              usleep(20000);
              if (pthread_t{} != receiver) return 1;  // a thread of the team took it
              pthread_sigmask(SIG_UNBLOCK, &usr1, nullptr);
              return pthread_equal(receiver, pthread_self()) ? 0 : 2;
            }),
            0);
}

TEST(SignalsOfTheProgram, AreWaitedForWhileATeamExists) {
  EXPECT_EQ(status_of_child([] {
              const ThreadTeam team(4);
              sigset_t usr1;
              sigemptyset(&usr1);
              sigaddset(&usr1, SIGUSR1);
              pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
              kill(getpid(), SIGUSR1);  // ends the process where a thread has it not blocked
              usleep(20000);
              const timespec second{1, 0};
              return sigtimedwait(&usr1, nullptr, &second) == SIGUSR1 ? 0 : 1;
            }),
            0);
}

TEST(SignalsOfTheProgram, StayBlockedOrNotWhereATeamIsMade) {
  sigset_t before, after;
  pthread_sigmask(SIG_BLOCK, nullptr, &before);
  const ThreadTeam team(3);
  pthread_sigmask(SIG_BLOCK, nullptr, &after);
  for (int signal = 1; signal < NSIG; ++signal) EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal)) << signal;
}

/// Bytes of address space that the process has.
rlim_t address_space() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

/// A child whose threads are refused: their stacks do not fit the address space that it is left with.
class RefusedThreads : public testing::Test {
 protected:
  void SetUp() override {
    if (address_sanitizer || thread_sanitizer) GTEST_SKIP() << "sanitizers need address space of their own";
  }

  /// The child's status with that many bytes left for stacks of 64 MB, more than the C library keeps of threads that have
  /// ended.
  template <class Body>
  static int status_with(rlim_t bytes, Body&& body) {
    return status_of_child([&] {
      pthread_attr_t attributes;
      pthread_attr_init(&attributes);
      pthread_attr_setstacksize(&attributes, 64 << 20);
      pthread_setattr_default_np(&attributes);
      const rlim_t limit = address_space() + bytes;
      const rlimit limits{limit, limit};
      if (setrlimit(RLIMIT_AS, &limits) != 0) return 100;
      return body();
    });
  }
};

TEST_F(RefusedThreads, LeaveATeamOfTheCallerAlone) {
  EXPECT_EQ(status_with(32 << 20,
                        [] {
                          ThreadTeam team(8);
                          if (team.concurrency() != 1) return 1;
                          return runs_each_once(team, 100) ? 0 : 2;
                        }),
            0);
}

TEST_F(RefusedThreads, LeaveATeamOfThoseThatAreGranted) {
  EXPECT_EQ(status_with(160 << 20,
                        [] {
                          ThreadTeam team(8);
                          if (team.concurrency() < 2 || team.concurrency() > 3) return 1;
                          for (int i = 0; i < 100; ++i) {
                            if (!runs_each_once(team, 100)) return 2;
                          }
                          return 0;
                        }),
            0);
}

TEST_F(RefusedThreads, LeaveTheDefaultTeamAtWork) {
  EXPECT_EQ(status_with(32 << 20,
                        [] {
                          setenv("BATCHNORM_NUM_THREADS", "8", 1);
                          return runs_each_once(default_executor(), 100) ? 0 : 1;
                        }),
            0);
}

TEST(ForkedThreadTeam, WorksAndEndsInTheChildWithoutItsThreads) {
  if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer knows nothing of the threads after a fork";
  auto team = std::make_unique<ThreadTeam>(4);
  ASSERT_TRUE(runs_each_once(*team, 100));
  EXPECT_EQ(status_of_child([&] {
              if (!runs_each_once(*team, 100)) return 1;
              team.reset();  // would wait for the parent's threads
              return 0;
            }),
            0);
  EXPECT_TRUE(runs_each_once(*team, 100));
}

TEST(ForkedDefaultTeam, OfATaskLetsTheTaskGoOn) {
  if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer starts no threads after a fork of several threads";
  setenv("BATCHNORM_NUM_THREADS", "3", 1);
  default_executor().run(100, [](int) {});
  EXPECT_EQ(status_of_child([] {
              pid_t child = -1;
              default_executor().run(2, [&](int i) {
                if (i == 0) child = fork();
              });
              if (child != 0) {
                int status = -1;
                waitpid(child, &status, 0);
                return status;
              }
              alarm(60);
              _exit(runs_each_once(default_executor(), 100) ? 0 : 1);
            }),
            0);
}

}  // namespace
