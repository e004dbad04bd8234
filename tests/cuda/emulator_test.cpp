// SPDX-License-Identifier: MIT
#include "emulator.hpp"

#include <cmath>
#include <functional>
#include <iostream>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "support/sanitizers.hpp"

namespace {

using batchnorm::cuda::Chunk;
using batchnorm::cuda::Launch;
using support::DeviceBuffer;
using support::Emulator;
using support::EmulatorOptions;
using support::for_each_schedule;
using support::Placement;
using support::Schedule;

constexpr int seeds = support::thread_sanitizer ? 4 : 100;

// A body of the tests below: what a function does with the thread and two pointers.
template <class Function>
struct Body {
  static constexpr int max_threads = 1024;
  Function function;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    function(a);
  }
};

template <class Function>
void run(Emulator& emulator, const Launch& launch, Function function) {
  emulator.launch(Body<Function>{function}, launch);
}

// What the launch reports under each schedule; empty if nothing, or not the same in all.
template <class Function>
std::set<std::string> reports(const Launch& launch, Function function, int number_of_seeds = 4) {
  std::set<std::string> messages;
  for_each_schedule(number_of_seeds, [&](Emulator& emulator) {
    try {
      run(emulator, launch, function);
      messages.insert("nothing");
    } catch (const std::runtime_error& error) {
      messages.insert(error.what());
    }
  });
  return messages;
}

template <class Function>
void expect_report(const Launch& launch, const std::string& part, Function function) {
  for (const std::string& message : reports(launch, function)) {
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not part of '" << message << "'";
  }
}

// Sums the block's values: warps by shuffles, their sums through shared memory. Without the barrier the first warp reads sums
// that are not there yet.
template <bool with_barrier>
struct BlockSum {
  static constexpr int max_threads = 256;
  const float* x;
  float* sums;

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    auto* shared = reinterpret_cast<float*>(a.shared());
    float sum = x[a.block_rank() * a.block_size() + a.thread_rank()];
    for (int mask = 16; mask > 0; mask /= 2) sum += a.shuffle_xor(sum, mask);
    if (a.thread_rank() % 32 == 0) shared[a.thread_rank() / 32] = sum;
    if constexpr (with_barrier) a.sync();
    if (a.thread_rank() == 0) {
      for (int warp = 1; warp < a.block_size() / 32; ++warp) sum += shared[warp];
      sums[a.block_rank()] = sum;
    }
  }
};

std::vector<float> numbers(std::size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 1.0F);
  return values;
}

template <bool with_barrier>
std::vector<float> block_sums(Emulator& emulator, int blocks, int threads) {
  const DeviceBuffer<float> x(numbers(static_cast<std::size_t>(blocks * threads)));
  const DeviceBuffer<float> sums(static_cast<std::size_t>(blocks));
  emulator.launch(BlockSum<with_barrier>{x.data(), sums.data()},
                  {.blocks = blocks, .threads = threads, .shared_bytes = threads / 32 * 4});
  return sums.values();
}

TEST(CudaEmulator, SumsABlockUnderEverySchedule) {
  for (const int threads : {32, 96, 256}) {
    for_each_schedule(seeds, [&](Emulator& emulator) {
      const std::vector<float> sums = block_sums<true>(emulator, 5, threads);
      for (int block = 0; block < 5; ++block) {
        const int first = block * threads + 1, last = (block + 1) * threads;
        EXPECT_EQ(sums[static_cast<std::size_t>(block)], static_cast<float>((first + last) * threads / 2));
      }
      EXPECT_EQ(emulator.statistics().blocks, 5);
      EXPECT_EQ(emulator.statistics().barriers, 5);
      EXPECT_EQ(emulator.statistics().warp_operations, 5 * 5 * threads / 32);
    });
  }
}

TEST(CudaEmulator, FindsAMissingBarrierBySomeSchedule) {
  if (support::thread_sanitizer) GTEST_SKIP() << "the thread sanitizer would report it";
  int wrong = 0, all = 0;
  for_each_schedule(20, [&](Emulator& emulator) {
    const std::vector<float> sums = block_sums<false>(emulator, 1, 256);
    wrong += sums[0] != 256 * 257 / 2 ? 1 : 0;
    ++all;
  });
  EXPECT_GT(wrong, all / 2);
}

TEST(CudaEmulator, SameSeedSameSchedule) {
  const auto order = [](Emulator& emulator) {
    std::vector<std::int64_t> ranks;
    const auto add = [&ranks](auto& a) {
      a.sync();
      ranks.push_back(a.block_rank() * 1000 + a.thread_rank());
    };
    const std::function<void(support::EmulatedThread&)> function = add;
    const auto* pointer = &function;
    run(emulator, {.blocks = 3, .threads = 64}, [pointer](auto& a) { (*pointer)(a); });
    return ranks;
  };
  if (support::thread_sanitizer) GTEST_SKIP() << "its threads write one vector without being ordered";
  Emulator one({.seed = 7}), same({.seed = 7}), other({.seed = 8}), in_order({.schedule = Schedule::in_order});
  const auto first = order(one);
  EXPECT_EQ(first, order(same));
  EXPECT_NE(first, order(other));
  EXPECT_NE(first, order(one)) << "the second launch of an emulator";
  const auto ascending = order(in_order);
  EXPECT_TRUE(std::is_sorted(ascending.begin(), ascending.begin() + 32));
}

TEST(CudaEmulator, ShufflesAndBits) {
  for_each_schedule(seeds, [&](Emulator& emulator) {
    DeviceBuffer<double> from_lane(64), from_neighbour(64);
    DeviceBuffer<std::uint32_t> bits(64), out_of_range(64);
    double *lane_values = from_lane.data(), *neighbours = from_neighbour.data();
    std::uint32_t *bit_values = bits.data(), *poison = out_of_range.data();
    run(emulator, {.threads = 64}, [=](auto& a) {
      const int i = a.thread_rank();
      lane_values[i] = a.shuffle(i + 0.5, (i + 3) % 32);
      neighbours[i] = a.shuffle_xor(i + 0.25, 1);
      bit_values[i] = a.bits_of(i % 3 == 0);
      poison[i] = a.shuffle(7U, 32) & a.shuffle_xor(7U, 32) & a.shuffle(7U, -1);
    });
    for (int i = 0; i < 64; ++i) {
      const auto at = static_cast<std::size_t>(i);
      EXPECT_EQ(from_lane.values()[at], i / 32 * 32 + (i + 3) % 32 + 0.5);
      EXPECT_EQ(from_neighbour.values()[at], (i ^ 1) + 0.25);
      std::uint32_t expected = 0;
      for (int lane = 0; lane < 32; ++lane) expected |= ((i / 32 * 32 + lane) % 3 == 0 ? 1U : 0U) << lane;
      EXPECT_EQ(bits.values()[at], expected);
      EXPECT_EQ(out_of_range.values()[at], 0xFFFFFFFFU);
    }
  });
}

TEST(CudaEmulator, RunsEachThreadOfEachBlockOnce) {
  for_each_schedule(seeds, [&](Emulator& emulator) {
    std::vector<int> runs(7 * 4 * 96);
    int* counts = runs.data();
    run(emulator, {.blocks = 28, .threads = 96, .cluster = 4}, [=](auto& a) {
      EXPECT_EQ(a.block_count(), 28);
      EXPECT_EQ(a.block_size(), 96);
      EXPECT_EQ(a.cluster_size(), 4);
      EXPECT_EQ(a.cluster_rank(), a.block_rank() % 4);
      ++counts[a.block_rank() * a.block_size() + a.thread_rank()];
    });
    EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
  });
}

// Divergence.

TEST(CudaEmulator, ReportsAThreadThatEndsBeforeABarrier) {
  expect_report({.blocks = 2, .threads = 64}, "thread 40 of block", [](auto& a) {
    if (a.thread_rank() == 40) return;
    a.sync();
  });
  expect_report({.blocks = 2, .threads = 64}, "emulator_test.cpp:", [](auto& a) {
    if (a.thread_rank() >= 32) return;
    a.sync();
  });
}

TEST(CudaEmulator, ReportsBarriersOfDifferentKinds) {
  expect_report({.threads = 64}, "cluster_sync()", [](auto& a) { a.thread_rank() < 32 ? a.sync() : a.cluster_sync(); });
  expect_report({.threads = 64, .cooperative = true}, "grid_sync()",
                [](auto& a) { a.thread_rank() < 32 ? a.sync() : a.grid_sync(); });
  expect_report({.threads = 32}, "sync()", [](auto& a) {
    if (a.thread_rank() == 5) {
      a.sync();
    } else {
      a.bits_of(true);
    }
  });
}

TEST(CudaEmulator, ReportsBarriersAtDifferentLines) {
  expect_report({.threads = 64}, "emulator_test.cpp:", [](auto& a) {
    if (a.thread_rank() < 32) {
      a.sync();
    } else {
      a.sync();
    }
  });
}

TEST(CudaEmulator, ReportsAShuffleThatAnEndedLaneMisses) {
  expect_report({.threads = 32}, "thread 9 of block 0", [](auto& a) {
    if (a.thread_rank() == 9) return;
    a.shuffle_xor(1.0F, 16);
  });
}

TEST(CudaEmulator, ReportsWarpOperationsOfDifferentKinds) {
  expect_report({.threads = 64}, "of its warp", [](auto& a) {
    if (a.thread_rank() % 2 == 0) {
      a.shuffle_xor(1, 1);
    } else {
      a.shuffle(1, 1);
    }
  });
}

TEST(CudaEmulator, ReportsABlockThatMissesABarrierOfClusterOrGrid) {
  expect_report({.blocks = 4, .threads = 32, .cluster = 2}, "cluster_sync()", [](auto& a) {
    if (a.block_rank() % 2 == 1) return;
    a.cluster_sync();
  });
  expect_report({.blocks = 4, .threads = 32, .cooperative = true}, "grid_sync()", [](auto& a) {
    if (a.block_rank() == 1) return;
    a.grid_sync();
  });
  expect_report({.blocks = 4, .threads = 32}, "not cooperative", [](auto& a) { a.grid_sync(); });
}

TEST(CudaEmulator, ReportsADeadlock) {
  expect_report({.blocks = 2, .threads = 32, .cluster = 2, .cooperative = true}, "deadlock: thread 0 of block 0 waits in",
                [](auto& a) { a.block_rank() == 0 ? a.cluster_sync() : a.grid_sync(); });
}

TEST(CudaEmulator, ThrowsOnWhatABodyThrowsAndGoesOn) {
  Emulator emulator;
  EXPECT_THROW(run(emulator, {.threads = 64},
                   [](auto& a) {
                     if (a.thread_rank() == 33) throw std::out_of_range("of a body");
                     a.sync();
                   }),
               std::out_of_range);
  EXPECT_EQ(block_sums<true>(emulator, 1, 256)[0], 256 * 257 / 2);
}

// Memory.

TEST(CudaEmulator, ReportsMisalignedAddresses) {
  const DeviceBuffer<float> memory(64, {.offset = 1});
  float* p = memory.data();
  const auto expect = [&](const char* part, auto function) {
    expect_report({.threads = 32}, std::string("calls ") + part + " at ", function);
    expect_report({.threads = 32}, "with a misaligned address", function);
    expect_report({.threads = 32}, "thread 3 of block 0", function);
  };
  expect("load()", [=](auto& a) {
    if (a.thread_rank() == 3) a.load(reinterpret_cast<const Chunk*>(p));
  });
  expect("load_own()", [=](auto& a) {
    if (a.thread_rank() == 3) a.load_own(reinterpret_cast<const Chunk*>(p));
  });
  expect("store()", [=](auto& a) {
    if (a.thread_rank() == 3) a.store(reinterpret_cast<Chunk*>(p), Chunk{});
  });
}

TEST(CudaEmulator, ReportsLoadsOfWhatTheLaunchStores) {
  const DeviceBuffer<Chunk> memory(64);
  Chunk* p = memory.data();
  const auto store_and_load = [=](auto& a) {
    a.store(p + a.thread_rank(), Chunk{{1, 2, 3, 4}});
    a.sync();
    a.load(p + 63 - a.thread_rank());
  };
  expect_report({.threads = 64}, "memory that no thread writes", store_and_load);
  Emulator emulator({.read_only = false});
  run(emulator, {.threads = 64}, store_and_load);
  Emulator another;
  run(another, {.threads = 64}, [=](auto& a) {
    a.store(p + a.thread_rank(), Chunk{{1, 2, 3, 4}});
    a.sync();
    EXPECT_EQ(a.load_own(p + 63 - a.thread_rank()).word[3], 4U);
  });
}

TEST(CudaEmulator, SharedMemoryIsPoisonedInEachBlock) {
  for_each_schedule(4, [&](Emulator& emulator) {
    run(emulator, {.blocks = 6, .threads = 32, .shared_bytes = 256}, [](auto& a) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.shared()) % 16, 0U);
      auto* values = reinterpret_cast<float*>(a.shared()) + 2 * a.thread_rank();
      EXPECT_TRUE(std::isnan(values[0]) && std::isnan(values[1]));
      values[0] = values[1] = 1;
    });
  });
}

TEST(CudaEmulator, SharedMemoryOfAnEndedBlockIsPoisonedInACluster) {
  if (support::thread_sanitizer) GTEST_SKIP() << "the thread sanitizer would report it";
  DeviceBuffer<float> memory(1);
  float* read = memory.data();
  // Without cluster_sync() after the read.
  const auto exchange = [=](auto& a) {
    auto* shared = reinterpret_cast<float*>(a.shared());
    if (a.thread_rank() == 0) *shared = 1;
    a.cluster_sync();
    if (a.block_rank() == 1 && a.thread_rank() == 0) *read = *a.cluster_shared(shared, 0);
  };
  bool poisoned = false;
  for_each_schedule(20, [&](Emulator& emulator) {
    run(emulator, {.blocks = 2, .threads = 32, .shared_bytes = 16, .cluster = 2}, exchange);
    poisoned = poisoned || std::isnan(*read);
  });
  EXPECT_TRUE(poisoned);
}

TEST(CudaEmulator, ReportsWritesBesideSharedMemory) {
  if (support::address_sanitizer) GTEST_SKIP() << "the address sanitizer would report it";
  expect_report({.threads = 32, .shared_bytes = 64}, "wrote beside its 64 bytes of shared memory", [](auto& a) {
    if (a.thread_rank() == 0) *(a.shared() - 1) = std::byte{1};
  });
  expect_report({.threads = 32, .shared_bytes = 60}, "wrote beside its 60 bytes of shared memory", [](auto& a) {
    if (a.thread_rank() == 0) a.shared()[60] = std::byte{1};
  });
}

TEST(CudaEmulator, ReportsWritesBesideBuffers) {
  if (support::address_sanitizer) GTEST_SKIP() << "the address sanitizer would report it";
  for (const std::ptrdiff_t index : {-1, 5}) {
    const DeviceBuffer<float> memory(5);
    float* p = memory.data() + index;
    Emulator emulator;
    EXPECT_THROW(run(emulator, {.threads = 32},
                     [=](auto& a) {
                       if (a.thread_rank() == 0) *p = 1;
                     }),
                 std::runtime_error);
    EXPECT_FALSE(memory.intact());
  }
}

TEST(CudaEmulator, BuffersLieWhereTheyAreWanted) {
  for (const std::size_t size : {0U, 1U, 5U, 1024U, 1030U}) {
    for (const std::size_t offset : {0U, 1U, 7U}) {
      const DeviceBuffer<std::uint16_t> at_end(size, {.offset = offset});
      const DeviceBuffer<std::uint16_t> at_begin(size, {.edge = Placement::Edge::begin, .offset = offset});
      const DeviceBuffer<std::uint16_t> exact(size, {.guard_exact = true});
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at_end.data()) % 16, offset * 2);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at_begin.data()) % 4096, offset * 2);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(exact.data() + size) % 4096, 0U);
      EXPECT_EQ(at_end.values(), std::vector<std::uint16_t>(size, 0xFFFF));
      EXPECT_EQ(at_end.size(), size);
      EXPECT_TRUE(at_end.intact() && at_begin.intact() && exact.intact());
    }
  }
  DeviceBuffer<float> buffer(numbers(5), {.offset = 3});
  EXPECT_EQ(buffer.values(), numbers(5));
  buffer.poison();
  EXPECT_TRUE(std::isnan(buffer.values()[4]));
}

using CudaEmulatorDeathTest = testing::Test;

// Ends where the guard page does, whichever sanitizer or signal says so.
template <class Function>
void expect_death(const Launch& launch, Function function) {
  EXPECT_DEATH(
      {
        Emulator emulator;
        run(emulator, launch, function);
      },
      "");
}

TEST(CudaEmulatorDeathTest, GuardPages) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  expect_death({.threads = 32, .shared_bytes = 64}, [](auto& a) {
    if (a.thread_rank() == 0) *static_cast<volatile std::byte*>(a.shared() + 64);
  });
  expect_death({.threads = 32, .shared_bytes = 64}, [](auto& a) {
    if (a.thread_rank() == 0) *static_cast<volatile std::byte*>(a.shared() + 64 - 4097);
  });
  const DeviceBuffer<float> memory(8), from_begin(8, {.edge = Placement::Edge::begin});
  const float *end = memory.data() + 8, *begin = from_begin.data();
  expect_death({.threads = 32}, [=](auto&) { *static_cast<const volatile float*>(end); });
  expect_death({.threads = 32}, [=](auto&) { *static_cast<const volatile float*>(begin - 1); });
  DeviceBuffer<float> constant(8);
  constant.make_read_only();
  float* p = constant.data();
  expect_death({.threads = 32}, [=](auto& a) {
    if (a.thread_rank() == 0) *p = 1;
  });
}

TEST(CudaEmulatorDeathTest, AStackThatOverflows) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  expect_death({.threads = 32}, [](auto& a) {
    volatile char large[std::size_t{1} << 18];
    for (std::size_t i = sizeof(large); i-- > 0;) large[i] = static_cast<char>(a.thread_rank());
  });
}

// Clusters and grids.

TEST(CudaEmulator, ExchangesThroughACluster) {
  for_each_schedule(seeds, [&](Emulator& emulator) {
    DeviceBuffer<std::int64_t> memory(12 * 64);
    std::int64_t* out = memory.data();
    run(emulator, {.blocks = 12, .threads = 64, .shared_bytes = 64 * 8, .cluster = 4}, [=](auto& a) {
      auto* mine = reinterpret_cast<std::int64_t*>(a.shared()) + a.thread_rank();
      *mine = 1000 * a.block_rank() + a.thread_rank();
      a.cluster_sync();
      const std::int64_t other = *a.cluster_shared(mine, (a.cluster_rank() + 1) % a.cluster_size());
      a.cluster_sync();
      out[a.block_rank() * 64 + a.thread_rank()] = other;
    });
    for (int block = 0; block < 12; ++block) {
      for (int i = 0; i < 64; ++i) {
        const int other = block / 4 * 4 + (block + 1) % 4;
        EXPECT_EQ(memory.values()[static_cast<std::size_t>(block * 64 + i)], 1000 * other + i);
      }
    }
  });
}

TEST(CudaEmulator, ChecksWhatIsMappedToAnotherBlock) {
  const Launch launch{.blocks = 2, .threads = 32, .shared_bytes = 64, .cluster = 2};
  expect_report(launch, "outside the block's shared memory",
                [](auto& a) { a.cluster_shared(reinterpret_cast<float*>(a.shared() + 64), 1); });
  expect_report(launch, "outside the block's shared memory",
                [](auto& a) { a.cluster_shared(reinterpret_cast<float*>(a.shared() - 4), 1); });
  expect_report(launch, "for block 2 of a cluster of 2",
                [](auto& a) { a.cluster_shared(reinterpret_cast<float*>(a.shared()), 2); });
}

TEST(CudaEmulator, ExchangesThroughTheGrid) {
  for_each_schedule(seeds / 4, [&](Emulator& emulator) {
    DeviceBuffer<int> memory(10), sums(10);
    int *values = memory.data(), *out = sums.data();
    run(emulator, {.blocks = 10, .threads = 64, .cooperative = true}, [=](auto& a) {
      for (int round = 1; round <= 3; ++round) {
        if (a.thread_rank() == 0) values[a.block_rank()] = round * static_cast<int>(a.block_rank());
        a.grid_sync();
        int sum = 0;
        for (int block = 0; block < 10; ++block) sum += values[block];
        EXPECT_EQ(sum, 45 * round);
        if (a.thread_rank() == 0) out[a.block_rank()] = sum;
        a.grid_sync();
      }
    });
    EXPECT_EQ(sums.values(), std::vector<int>(10, 135));
  });
}

TEST(CudaEmulator, RunsBlocksOfLargeRanks) {
  constexpr std::int64_t blocks = 0x7FFFFFFE;
  Emulator emulator({.blocks = {blocks - 1, 0, blocks - 2}});
  DeviceBuffer<std::int64_t> memory(4);
  std::int64_t* out = memory.data();
  run(emulator, {.blocks = blocks, .threads = 32, .cluster = 2}, [=](auto& a) {
    if (a.thread_rank() == 0) out[a.block_rank() < 2 ? a.block_rank() : a.block_rank() - blocks + 4] = a.block_rank();
  });
  EXPECT_EQ(memory.values(), (std::vector<std::int64_t>{0, 1, blocks - 2, blocks - 1}));
  EXPECT_EQ(emulator.statistics().blocks, 4);
}

TEST(CudaEmulator, RefusesWhatCudaRefuses) {
  const auto nothing = [](auto&) {};
  expect_report({.threads = 33}, "whole warps", nothing);
  expect_report({.threads = 0}, "whole warps", nothing);
  expect_report({.threads = 1056}, "max_threads", nothing);
  expect_report({.blocks = 0}, "blocks is not between", nothing);
  expect_report({.blocks = std::int64_t{1} << 31}, "blocks is not between", nothing);
  expect_report({.blocks = 3, .cluster = 2}, "multiple of cluster", nothing);
  expect_report({.blocks = 17, .cluster = 17}, "cluster is not between", nothing);
  expect_report({.shared_bytes = 227 * 1024 + 1}, "shared_bytes", nothing);
  expect_report({.blocks = 1000000, .cooperative = true}, "more threads at once", nothing);
  Emulator emulator;
  EXPECT_THROW(emulator.launch(BlockSum<true>{nullptr, nullptr}, {.threads = 512}), std::runtime_error);
  run(emulator, {.threads = 1024, .shared_bytes = 227 * 1024}, nothing);
}

TEST(CudaEmulator, ExchangesThroughTheLargestCluster) {
  if (support::thread_sanitizer) GTEST_SKIP() << "more threads than it has room for";
  Emulator emulator;
  run(emulator, {.blocks = 16, .threads = 1024, .shared_bytes = 16, .cluster = 16}, [](auto& a) {
    auto* mine = reinterpret_cast<int*>(a.shared());
    if (a.thread_rank() == 0) *mine = a.cluster_rank();
    a.cluster_sync();
    EXPECT_EQ(*a.cluster_shared(mine, 15 - a.cluster_rank()), 15 - a.cluster_rank());
    a.cluster_sync();
  });
}

TEST(CudaEmulator, CountsWhatItRuns) {
  const support::EmulatorStatistics before = Emulator::total_statistics();
  Emulator emulator;
  block_sums<true>(emulator, 3, 64);
  block_sums<true>(emulator, 3, 64);
  EXPECT_EQ(emulator.statistics().launches, 2);
  EXPECT_EQ(emulator.statistics().threads, 2 * 3 * 64);
  EXPECT_EQ(Emulator::total_statistics().launches, before.launches + 2);
  std::cout << to_string(Emulator::total_statistics()) << '\n';
}

/// What this run of the program has executed, all tests together.
class PrintsTotals : public testing::Environment {
  void TearDown() override { std::cout << "emulator: " << to_string(Emulator::total_statistics()) << '\n'; }
};
[[maybe_unused]] const auto* const prints_totals = testing::AddGlobalTestEnvironment(new PrintsTotals);

}  // namespace
