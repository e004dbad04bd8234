// SPDX-License-Identifier: MIT
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include <batchnorm/thread_team.hpp>

#include "support/executors.hpp"

// A library that is loaded, makes a call on several threads and is unloaded leaves nothing behind: no thread in code that is
// gone, no handler of fork. And a program may end at any moment.
namespace {

using namespace support;
using batchnorm::default_executor;
using batchnorm::ThreadTeam;

/// The plugin, from dlopen to dlclose.
class Plugin {
 public:
  Plugin() : handle_(dlopen(BATCHNORM_TEST_PLUGIN, RTLD_NOW | RTLD_LOCAL)) { EXPECT_NE(handle_, nullptr) << dlerror(); }
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;
  ~Plugin() { dlclose(handle_); }

  int train() const { return call("plugin_train"); }
  int concurrency() const { return call("plugin_concurrency"); }

  static bool is_loaded() {
    void* const handle = dlopen(BATCHNORM_TEST_PLUGIN, RTLD_NOW | RTLD_NOLOAD);
    if (handle != nullptr) dlclose(handle);
    return handle != nullptr;
  }

 private:
  int call(const char* name) const { return reinterpret_cast<int (*)()>(dlsym(handle_, name))(); }

  void* handle_;
};

std::ptrdiff_t threads_of_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

class PluginOnTheDefaultTeam : public testing::Test {
 protected:
  void SetUp() override { setenv("BATCHNORM_NUM_THREADS", "4", 1); }
};

TEST_F(PluginOnTheDefaultTeam, IsUnloadedWithItsThreads) {
  Plugin().train();  // what stays for good is there
  const std::ptrdiff_t before = threads_of_process();
  for (int repetition = 0; repetition < 30; ++repetition) {
    {
      const Plugin plugin;
      ASSERT_EQ(plugin.train(), 0);
      ASSERT_EQ(plugin.concurrency(), 4);
      if (repetition % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // its threads fall asleep
    }
    ASSERT_FALSE(Plugin::is_loaded());
    ASSERT_EQ(threads_of_process(), before);
  }
}

TEST_F(PluginOnTheDefaultTeam, LeavesNoHandlerOfForkBehind) {
  if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer starts no threads after a fork of several threads";
  for (int repetition = 0; repetition < 5; ++repetition) {
    ASSERT_EQ(Plugin().train(), 0);
    ASSERT_FALSE(Plugin::is_loaded());
    ASSERT_EQ(status_of_child([] { return Plugin().train(); }), 0);
  }
}

TEST_F(PluginOnTheDefaultTeam, IsUnloadedInAForkedChildToo) {
  if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer starts no threads after a fork of several threads";
  const Plugin plugin;
  ASSERT_EQ(plugin.train(), 0);
  EXPECT_EQ(status_of_child([&] {
              plugin.~Plugin();  // without a call of the child's
              return Plugin::is_loaded() ? 1 : 0;
            }),
            0);
  EXPECT_EQ(status_of_child([&] {
              if (plugin.train() != 0) return 1;
              plugin.~Plugin();
              return Plugin::is_loaded() ? 2 : 0;
            }),
            0);
  EXPECT_EQ(plugin.train(), 0);
}

TEST_F(PluginOnTheDefaultTeam, HasATeamOfItsOwn) {
  const Plugin plugin;
  setenv("BATCHNORM_NUM_THREADS", "3", 1);
  EXPECT_EQ(plugin.concurrency(), 3);
  EXPECT_EQ(plugin.train(), 0);
}

/// A program of its own, which ends by exit().
class EndOfAProgram : public testing::Test {
 protected:
  void SetUp() override {
    if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer starts no threads after a fork of several threads";
    setenv("BATCHNORM_NUM_THREADS", "4", 1);
  }
};

TEST_F(EndOfAProgram, MayComeWhileAThreadIsInACall) {
  for (int repetition = 0; repetition < 10; ++repetition) {
    EXPECT_EQ(status_of_child([&]() -> int {
                std::thread([] {
                  for (;;) default_executor().run(8, [](int) { std::this_thread::sleep_for(std::chrono::microseconds(100)); });
                }).detach();
                std::this_thread::sleep_for(std::chrono::microseconds(500 + 100 * repetition));
                exit(0);
              }),
              0);
  }
}

TEST_F(EndOfAProgram, MayComeFromATask) {
  EXPECT_EQ(status_of_child([]() -> int {
              default_executor().run(8, [](int i) {
                if (i == 7) exit(0);
              });
              return 1;
            }),
            0);
}

TEST_F(EndOfAProgram, LetsDestructorsOfStaticObjectsMakeCalls) {
  EXPECT_EQ(status_of_child([]() -> int {
              std::atexit([] {
                std::atomic<int> calls{0};
                default_executor().run(100, [&](int) { ++calls; });
                _exit(calls == 100 ? 0 : 1);
              });
              default_executor().run(100, [](int) {});
              exit(2);
            }),
            0);
}

TEST_F(EndOfAProgram, MayComeInAForkedChildWithoutThreads) {
  default_executor().run(100, [](int) {});
  EXPECT_EQ(status_of_child([]() -> int { exit(0); }), 0);
  static ThreadTeam team(4);
  team.run(100, [](int) {});
  EXPECT_EQ(status_of_child([]() -> int { exit(0); }), 0) << "where the team is a static object";
}

}  // namespace
