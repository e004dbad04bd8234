// SPDX-License-Identifier: MIT

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <batchnorm/batchnorm.hpp>

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
