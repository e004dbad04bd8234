// SPDX-License-Identifier: MIT

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <batchnorm/batchnorm.hpp>
#include <batchnorm/explain.hpp>

namespace {

using batchnorm::Format;
using batchnorm::Shape;
using batchnorm::Tensor;

/// Bytes of the cache of that level, as the kernel reports it.
std::optional<std::int64_t> cache_of_system(int level) {
  for (int index = 0; index < 8; ++index) {
    const auto folder = std::filesystem::path("/sys/devices/system/cpu/cpu0/cache") / ("index" + std::to_string(index));
    std::ifstream level_file(folder / "level"), size_file(folder / "size"), type_file(folder / "type");
    int level_here = 0;
    std::int64_t kilobytes = 0;
    std::string type;
    if (!(level_file >> level_here && size_file >> kilobytes && type_file >> type)) continue;
    if (level_here == level && type != "Instruction") return kilobytes << 10;
  }
  return std::nullopt;
}

TEST(Tuning, ThirdLevelCacheIsAnInstanceNotASocket) {
  for (const int level : {2, 3}) {
    const auto size = cache_of_system(level);
    if (!size) GTEST_SKIP() << "the system does not report the size of the level " << level << " cache";
    EXPECT_EQ(batchnorm::detail::cache_bytes(static_cast<unsigned>(level)), *size) << "level " << level;
  }
}

TEST(Tuning, CacheSizesArePlausible) {
  const batchnorm::Tuning& tuning = batchnorm::machine_tuning();
  EXPECT_GE(tuning.l2_bytes, 256 << 10);
  EXPECT_LE(tuning.l2_bytes, 4 << 20);
  EXPECT_GE(tuning.l3_bytes, 4 << 20);
  EXPECT_LE(tuning.l3_bytes, 32 << 20);
}

constexpr std::int64_t K = 1 << 10, M = 1 << 20;

TEST(Tuning, OfComplexesIsWhatWasMeasuredThere) {
  for (const std::int64_t l2 : {512 * K, 1 * M}) {
    const batchnorm::CacheSizes zen{l2, 32 * M};
    EXPECT_EQ(batchnorm::kind_of(zen), batchnorm::MachineKind::complexes);
    const batchnorm::Tuning tuning = batchnorm::tuning_of(zen);
    EXPECT_EQ(tuning.l2_bytes, l2);
    EXPECT_EQ(tuning.l3_bytes, 32 * M);
    EXPECT_EQ(tuning.column_group_bytes, l2 / 2);
    EXPECT_EQ(tuning.plane_group_bytes, 2 * M);
    EXPECT_EQ(tuning.inference_stream_share, l2 == 1 * M ? 0.25 : 0.125);
    EXPECT_EQ(tuning.training_stream_share, 0.125);
  }
}

TEST(Tuning, OfALargeSecondLevelBesideASocketsThirdStaysInTheSecond) {
  for (const std::int64_t l3 : {60 * M, 105 * M, 320 * M}) {
    const batchnorm::CacheSizes xeon{2 * M, l3};
    EXPECT_EQ(batchnorm::kind_of(xeon), batchnorm::MachineKind::large_l2);
    const batchnorm::Tuning tuning = batchnorm::tuning_of(xeon);
    EXPECT_EQ(tuning.plane_group_bytes, 512 * K);
    EXPECT_EQ(tuning.column_group_bytes, 256 * K);
    for (const double share : {tuning.inference_stream_share, tuning.training_stream_share}) {
      const double streams_from = share * static_cast<double>(tuning.l3_bytes);
      EXPECT_GT(streams_from, 1.2e6);
      EXPECT_LT(streams_from, 1.5e6);
    }
  }
}

TEST(Tuning, OfOtherMachinesIsWhatItWas) {
  using batchnorm::CacheSizes;
  for (const CacheSizes& other : {CacheSizes{}, CacheSizes{2 * M, 36 * M}, CacheSizes{256 * K, 8 * M}, CacheSizes{2 * M, 0},
                                  CacheSizes{0, 300 * M}, CacheSizes{1280 * K, 54 * M}, CacheSizes{1 * M, 96 * M}}) {
    EXPECT_EQ(batchnorm::kind_of(other), batchnorm::MachineKind::unknown);
    const batchnorm::Tuning tuning = batchnorm::tuning_of(other);
    EXPECT_EQ(tuning.column_group_bytes, tuning.l2_bytes / 2);
    EXPECT_EQ(tuning.plane_group_bytes, std::min(2 * M, tuning.l3_bytes / 8));
    EXPECT_EQ(tuning.inference_stream_share, 0.125);
  }
  EXPECT_EQ(batchnorm::tuning_of({}).l2_bytes, 1 * M);
  EXPECT_EQ(batchnorm::tuning_of({}).l3_bytes, 32 * M);
}

TEST(Tuning, TakesNumbersByName) {
  batchnorm::Tuning tuning;
  EXPECT_EQ(batchnorm::detail::apply_tuning("", tuning), "");
  EXPECT_EQ(batchnorm::detail::apply_tuning("l2_bytes=3M,l3_bytes=1G,plane_group_bytes=512K,column_group_bytes=1,"
                                            "reverse_block_bytes=77,serial_bytes=1K,sweep_task_bytes=2K,"
                                            "inference_stream_share=0.05,training_stream_share=1e9",
                                            tuning),
            "");
  EXPECT_EQ(tuning.l2_bytes, 3 * M);
  EXPECT_EQ(tuning.l3_bytes, 1024 * M);
  EXPECT_EQ(tuning.plane_group_bytes, 512 * K);
  EXPECT_EQ(tuning.column_group_bytes, 1);
  EXPECT_EQ(tuning.reverse_block_bytes, 77);
  EXPECT_EQ(tuning.serial_bytes, K);
  EXPECT_EQ(tuning.sweep_task_bytes, 2 * K);
  EXPECT_EQ(tuning.inference_stream_share, 0.05);
  EXPECT_EQ(tuning.training_stream_share, 1e9);
}

TEST(Tuning, RefusesOtherTexts) {
  const auto refusal = [](const char* text) {
    batchnorm::Tuning tuning;
    return batchnorm::detail::apply_tuning(text, tuning);
  };
  EXPECT_EQ(
      refusal("l1_bytes=3"),
      "batchnorm: BATCHNORM_TUNING has 'l1_bytes=3', known are l2_bytes, l3_bytes, inference_stream_share, "
      "training_stream_share, plane_group_bytes, column_group_bytes, reverse_block_bytes, serial_bytes, sweep_task_bytes");
  const std::string bytes = "it must be a whole number of bytes from 1 to 2^40, perhaps with K, M or G";
  for (const char* value :
       {"", "0", "-1", "1.5", "K", "2T", "1 K", "0x10", "1100G", "17179869185G", "2000000000000", "99999999999999999999"}) {
    const std::string entry = std::string("l2_bytes=") + value;
    EXPECT_EQ(refusal(entry.c_str()), "batchnorm: BATCHNORM_TUNING has '" + entry + "', " + bytes);
  }
  EXPECT_EQ(refusal("serial_bytes"), "batchnorm: BATCHNORM_TUNING has 'serial_bytes', " + bytes);
  for (const char* value : {"", "-0.1", "nan", "inf", "0.1x"}) {
    const std::string entry = std::string("training_stream_share=") + value;
    EXPECT_EQ(refusal(("serial_bytes=1," + entry).c_str()),
              "batchnorm: BATCHNORM_TUNING has '" + entry + "', it must be a number from 0, a share of l3_bytes");
  }
}

/// In a process of its own, where nothing has been called before.
std::string plan_with(const char* tuning) {
  setenv("BATCHNORM_TUNING", tuning, 1);
  const Tensor<float> x(Shape{2, 64, 56, 56});
  try {
    const std::string plan = batchnorm::explain(batchnorm::Pass::inference, x, Format::NCHW);
    return plan.find(", changed by BATCHNORM_TUNING") == plan.npos ? "it says nothing of the change" : plan;
  } catch (const batchnorm::ValueError& refusal) {
    const auto checked =
        batchnorm::check([&](const batchnorm::CallOptions& options) { batchnorm::moments(x, Format::NCHW, options); });
    return checked && checked->message == refusal.what() ? refusal.what() : "check() says something else";
  }
}

TEST(Tuning, FollowsTheEnvironment) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto exits_with = [](const char* tuning, const char* words) {
    std::exit(plan_with(tuning).find(words) == std::string::npos ? 1 : 0);
  };
  EXPECT_EXIT(exits_with("inference_stream_share=0", "non-temporal stores"), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(exits_with("inference_stream_share=1000", "plain stores"), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(exits_with("l2_bytes=all", "batchnorm: BATCHNORM_TUNING has 'l2_bytes=all', it must be"),
              testing::ExitedWithCode(0), "");
}

/// Runs tasks on the calling thread and remembers how many there were.
class CountingExecutor final : public batchnorm::Executor {
 public:
  int concurrency() const noexcept override { return 4; }
  void run(int count, batchnorm::Task task) noexcept override {
    most = std::max(most, count);
    for (int i = 0; i < count; ++i) task(i);
  }

  int most = 0;
};

TEST(Tuning, FewValuesPerChannelLeaveNoThreadIdle) {
  Tensor<float> x(Shape{2, 1000, 7, 7});
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 1021) / 64 - 3;
  CountingExecutor four;
  batchnorm::SerialExecutor one;
  const auto shared = batchnorm::moments<float>(x, Format::NCHW, {.executor = &four});
  const auto alone = batchnorm::moments<float>(x, Format::NCHW, {.executor = &one});
  EXPECT_EQ(four.most, 4);
  EXPECT_EQ(shared.mean, alone.mean);
  EXPECT_EQ(shared.mean_low, alone.mean_low);
  EXPECT_EQ(shared.m2, alone.m2);
}

}  // namespace
