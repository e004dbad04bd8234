// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <batchnorm/cuda/dispatch.hpp>

#include "emulator.hpp"

// Ranks of blocks near 2^31 and elements beyond the first 2^33: the last blocks of launches alone, in memory of which only the
// touched pages exist.
namespace {

using namespace batchnorm::cuda;
using support::Emulator;

template <class V>
class Reserved {
 public:
  explicit Reserved(std::int64_t count) : bytes_(static_cast<std::size_t>(count) * sizeof(V)) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;
  ~Reserved() {
    if (there()) munmap(memory_, bytes_);
  }

  bool there() const { return memory_ != MAP_FAILED; }
  V* data() const { return static_cast<V*>(memory_); }

 private:
  std::size_t bytes_;
  void* memory_;
};

TEST(LargeDevice, SumsOfTheLastChannels) {
  constexpr std::int64_t channels = INT32_MAX, s = 3;
  const Reserved<float> x(channels * s);
  const Reserved<double> fields(channels * MomentStatistic<float>::fields);
  if (!x.there() || !fields.there()) GTEST_SKIP() << "100 GB of addresses are not to be had";
  const Geometry g{1, channels, s};
  const Partials partials{fields.data(), 1, channels};
  const std::int64_t per_plane = PlaneSlots::slots_of_plane(s, chunk_size<float>, {});
  const SumPlanes<float, MomentStatistic<float>> body{{x.data()}, g, {}, {per_plane, per_plane}, partials};
  for (const std::int64_t channel : {channels - 1, channels - 2}) {
    for (int i = 0; i < s; ++i) x.data()[channel * s + i] = static_cast<float>(i * i);
    Emulator emulator({.blocks = {channel}});
    emulator.launch(body, {channels, 32, body.shared_bytes(32)});
    using M = MomentStatistic<float>;
    EXPECT_EQ(partials.at(M::count_field, 0, channel), 3);
    EXPECT_DOUBLE_EQ(partials.at(M::pivot_field, 0, channel) + partials.at(M::delta_field, 0, channel), 5.0 / 3);
    EXPECT_NEAR(partials.at(M::m2_field, 0, channel), 17 - 25.0 / 3, 1e-12);
  }
}

TEST(LargeDevice, TheEndOfASweep) {
  constexpr std::int64_t n = 3, channels = 1 << 16, s = (std::int64_t{1} << 15) + 1;
  const Geometry g{n, channels, s};
  const std::int64_t elements = g.elements();
  const Reserved<float> x(elements), y(elements);
  if (!x.there() || !y.there()) GTEST_SKIP() << "50 GB of addresses are not to be had";
  std::vector<float> table(3 * channels);
  const Coefficients<float> coefficients{table.data(), channels};
  coefficients.at(1, channels - 1) = 2;
  coefficients.at(2, channels - 1) = 0.5F;
  for (std::int64_t i = elements - 100; i < elements; ++i) x.data()[i] = static_cast<float>(elements - i);
  const Normalization<float> operation{x.data(), nullptr, y.data(), nullptr, {}};
  const Sweep<float, Normalization<float>, false> body{operation, g, {}, coefficients};
  const std::int64_t blocks = divide_up(body.chunks(), 32);
  ASSERT_GT(elements, std::int64_t{1} << 32);
  Emulator emulator({.blocks = {blocks - 1}});
  emulator.launch(body, {blocks, 32});
  for (std::int64_t i = (std::max)((blocks - 1) * 32 * 4, elements - 100); i < elements; ++i) {
    ASSERT_EQ(y.data()[i], 2 * static_cast<float>(elements - i) + 0.5F) << elements - i;
  }
}

}  // namespace
