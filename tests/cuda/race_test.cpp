// SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/syscall.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "emulator.hpp"
#include "support/sanitizers.hpp"

// The thread sanitizer sees the order that barriers, warp operations and the launch give, and no other. Each body below is
// launched as it is right, without a report, and without one barrier, with a report of the line that lacks it.

namespace {

using batchnorm::cuda::Launch;
using support::DeviceBuffer;
using support::Emulator;
using support::Schedule;

volatile int reports = 0;

// All values through shared memory to another thread's place; the barriers that are missing are those of the bits.
struct Reverse {
  static constexpr int max_threads = 256;
  float* out;
  int missing;

  static constexpr int line_of_read = __LINE__ + 8;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    auto* shared = reinterpret_cast<float*>(a.shared());
    for (int round = 0; round < 2; ++round) {
      shared[a.thread_rank()] = static_cast<float>(a.thread_rank() + round);
      if ((missing & 1) == 0) a.sync();
      const float value = shared[a.block_size() - 1 - a.thread_rank()];
      if ((missing & 2) == 0) a.sync();
      out[a.block_rank() * a.block_size() + a.thread_rank()] = value;
    }
  }
};

// Lanes of one warp through shared memory; a warp operation is between, or is not.
struct Neighbour {
  static constexpr int max_threads = 256;
  bool ordered;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    auto* shared = reinterpret_cast<int*>(a.shared());
    shared[a.thread_rank()] = a.thread_rank();
    if (ordered) a.bits_of(true);
    volatile int value = shared[a.thread_rank() ^ 1];
    static_cast<void>(value);
  }
};

// Warps whose values meet in shared memory; shuffles order the lanes of a warp and no others.
struct Warps {
  static constexpr int max_threads = 256;
  bool ordered;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    auto* shared = reinterpret_cast<float*>(a.shared());
    float sum = 1;
    for (int mask = 16; mask > 0; mask /= 2) sum += a.shuffle_xor(sum, mask);
    if (a.thread_rank() % 32 == 0) shared[a.thread_rank() / 32] = sum;
    if (ordered) a.sync();
    volatile float first = shared[0];
    static_cast<void>(first);
    a.shuffle(sum, 0);
  }
};

// Shared memory of the next block of the cluster; the barriers that are missing are those of the bits.
struct ThroughCluster {
  static constexpr int max_threads = 256;
  int missing;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    auto* mine = reinterpret_cast<int*>(a.shared()) + a.thread_rank();
    *mine = a.thread_rank();
    if ((missing & 1) == 0) a.cluster_sync();
    volatile int value = *a.cluster_shared(mine, (a.cluster_rank() + 1) % a.cluster_size());
    static_cast<void>(value);
    if ((missing & 2) == 0) a.cluster_sync();
  }
};

// A value of each block, read by all; `ordered` by the grid's barrier or by the block's.
struct ThroughGrid {
  static constexpr int max_threads = 256;
  float* values;
  bool ordered;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    if (a.thread_rank() == 0) values[a.block_rank()] = 1;
    if (ordered) {
      a.grid_sync();
    } else {
      a.sync();
    }
    volatile float value = values[(a.block_rank() + 1) % a.block_count()];
    static_cast<void>(value);
  }
};

// Blocks that write one address, or their own.
struct Blocks {
  static constexpr int max_threads = 256;
  float* values;
  bool ordered;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    if (a.thread_rank() == 0) values[ordered ? a.block_rank() : 0] = 1;
  }
};

// Launches twice in a child and ends it with 0 after "reports: none" or "reports: some" on its standard error.
template <class Body>
[[noreturn]] void launch_and_end(const Body& body, const Launch& launch, Schedule schedule) {
  Emulator emulator({.schedule = schedule});
  emulator.launch(body, launch);
  emulator.launch(body, launch);
  std::fprintf(stderr, "reports: %s\n", reports == 0 ? "none" : "some");
  std::fflush(stderr);
  syscall(SYS_exit_group, 0);  // exit() would tell by its status that there were reports
  std::abort();
}

template <class Body>
void expect_reports(const Body& body, const Launch& launch, const std::string& expected) {
  for (const Schedule schedule : {Schedule::in_order, Schedule::reverse, Schedule::random}) {
    EXPECT_EXIT(launch_and_end(body, launch, schedule), testing::ExitedWithCode(0), expected);
  }
}

class CudaRaceDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!support::thread_sanitizer) GTEST_SKIP() << "not built with the thread sanitizer";
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

constexpr const char* none = "reports: none";
constexpr const char* some = "data race.*reports: some";

TEST_F(CudaRaceDeathTest, BarriersOfABlock) {
  const Launch launch{.blocks = 3, .threads = 96, .shared_bytes = 96 * 4};
  const DeviceBuffer<float> out(3 * 96);
  expect_reports(Reverse{out.data(), 0}, launch, none);
  expect_reports(Reverse{out.data(), 1}, launch, some);
  expect_reports(Reverse{out.data(), 2}, launch, some);
}

TEST_F(CudaRaceDeathTest, NamesTheLine) {
  const Launch launch{.threads = 64, .shared_bytes = 64 * 4};
  const DeviceBuffer<float> out(64);
  // Or no line at all, where no symbolizer is installed.
  const std::string line = "race_test.cpp:" + std::to_string(Reverse::line_of_read);
  expect_reports(Reverse{out.data(), 1}, launch, "(" + line + "|#0 <null> <null>)");
}

TEST_F(CudaRaceDeathTest, WarpOperationsOrderAWarp) {
  const Launch launch{.threads = 64, .shared_bytes = 64 * 4};
  expect_reports(Neighbour{true}, launch, none);
  expect_reports(Neighbour{false}, launch, some);
  expect_reports(Warps{true}, launch, none);
  expect_reports(Warps{false}, launch, some);
}

TEST_F(CudaRaceDeathTest, BarriersOfACluster) {
  const Launch launch{.blocks = 8, .threads = 32, .shared_bytes = 32 * 4, .cluster = 4};
  expect_reports(ThroughCluster{0}, launch, none);
  expect_reports(ThroughCluster{1}, launch, some);
  expect_reports(ThroughCluster{2}, launch, "write_over_shared_memory_of_ended_block.*reports: some");
}

TEST_F(CudaRaceDeathTest, BarriersOfTheGrid) {
  const Launch launch{.blocks = 4, .threads = 32, .cooperative = true};
  const DeviceBuffer<float> values(4);
  expect_reports(ThroughGrid{values.data(), true}, launch, none);
  expect_reports(ThroughGrid{values.data(), false}, launch, some);
}

TEST_F(CudaRaceDeathTest, NothingOrdersBlocks) {
  const Launch launch{.blocks = 4, .threads = 32};
  const DeviceBuffer<float> values(4);
  expect_reports(Blocks{values.data(), true}, launch, none);
  expect_reports(Blocks{values.data(), false}, launch, some);
}

// What a launch wrote, the next one and the launching thread may read.
TEST_F(CudaRaceDeathTest, LaunchesAreOrdered) {
  const auto launch_and_read = [] {
    const DeviceBuffer<float> out(96);
    Emulator emulator;
    const Launch launch{.threads = 96, .shared_bytes = 96 * 4};
    emulator.launch(Reverse{out.data(), 0}, launch);
    float sum = 0;
    for (const float value : out.values()) sum += value;
    out.data()[0] = sum;
    launch_and_end(Reverse{out.data(), 0}, launch, Schedule::random);
  };
  EXPECT_EXIT(launch_and_read(), testing::ExitedWithCode(0), none);
}

}  // namespace

// Called by the thread sanitizer's runtime. Instrumented, it would wait for itself.
extern "C" __attribute__((no_sanitize("thread"))) void __tsan_on_report(void*) { reports = 1; }
