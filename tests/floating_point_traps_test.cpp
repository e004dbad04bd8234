// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cfenv>

#include "support/every_call.hpp"
#include "support/tunings.hpp"

// Finite data traps nothing and raises no exception flag, whatever stands in the lanes that nobody asked for.
namespace {

using namespace support;

constexpr int trapped = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW;

/// Floating-point exceptions end the program.
class Traps {
 public:
  Traps() {
    std::feclearexcept(FE_ALL_EXCEPT);
    feenableexcept(trapped);
  }
  Traps(const Traps&) = delete;
  Traps& operator=(const Traps&) = delete;
  ~Traps() { fedisableexcept(trapped); }
};

/// Dirties the memory that scratch memory is taken from next: signalling NaN of float in both halves of each double.
void dirty_the_heap() {
  for (std::size_t bytes = 64; bytes <= 1 << 16; bytes += bytes / 4 / 64 * 64 + 64) {
    const auto memory = std::unique_ptr<std::uint64_t[]>(new std::uint64_t[bytes / 8]);
    std::fill_n(memory.get(), bytes / 8, 0x7fa000007fa00000U);
  }
}

template <class Both>
class FloatingPointTraps : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>,
                                    Types<batchnorm::bfloat16, float>>;
TYPED_TEST_SUITE(FloatingPointTraps, ElementTypes, TypesNames);

constexpr Sizes sizes[] = {{1, 1, 1}, {3, 3, 7}, {40, 5, 3}, {2, 17, 65}, {3, 1, 300}, {130, 3, 1}};

TYPED_TEST(FloatingPointTraps, AreNotTakenOnFiniteData) {
  batchnorm::ThreadTeam team(2);
  const std::vector<NamedTuning> all = {{"usual", {}}, tunings().front()};
  for_each_isa([&](Isa) {
    for (const Sizes& size : sizes) {
      for (const Format format : formats) {
        for (const NamedTuning& tuning : all) {
          Buffers<typename TypeParam::T, typename TypeParam::P> buffers(shape_of(format, 3, size), format,
                                                                        {.executor = &team, .tuning = &tuning.tuning});
          for_each_call(buffers, [&](const std::string& name, const auto& call) {
            SCOPED_TRACE(name + ", " + to_string(buffers.shape) + ' ' + std::string(to_string(format)) + ", " + tuning.name);
            dirty_the_heap();
            const Traps traps;  // ends the program with SIGFPE where one is taken
            call();
            ASSERT_EQ(std::fetestexcept(FE_ALL_EXCEPT), 0);
          });
        }
      }
    }
  });
}

TEST(FloatingPointTrapsInPlace, AreNotTakenOnFiniteData) {
  const batchnorm::InPlaceBatchNorm<float> norm({.is_training = true});
  for (const Sizes& size : sizes) {
    Buffers<float, float> b(shape_of(Format::NCHW, 3, size), Format::NCHW, {});
    std::fill(b.scale.begin(), b.scale.end(), 3e38F);  // times the ratio beyond float and double's products of 16-bit types
    dirty_the_heap();
    const Traps traps;
    norm.forward({.x = b.out(b.x),
                  .scale = b.scale,
                  .bias = b.bias,
                  .mean = b.mean,
                  .variance = b.variance,
                  .batch_mean = b.dscale,
                  .batch_variance = b.dbias});
    norm.backward({.dy = b.in(b.dy), .y = b.in(b.x), .scale = b.scale, .bias = b.bias, .variance = b.dbias},
                  {b.out(b.dx), b.dscale, b.mean});
    EXPECT_EQ(std::fetestexcept(FE_ALL_EXCEPT), 0) << to_string(b.shape);
  }
}

TEST(FloatingPointTrapsInPlace, AreNotTakenWhereTheRatioTimesScaleOverflows) {
  const batchnorm::InPlaceBatchNorm<double> norm({.is_training = true});
  std::vector<double> x{1, 2, 3, 4}, scale{1e307, 1e307}, bias{0, 0};
  std::vector<double> dy(4), dscale(2);
  const Traps traps;
  EXPECT_NO_THROW(norm.backward(
      {.dy = {dy.data(), Shape{2, 2}}, .y = {x.data(), Shape{2, 2}}, .scale = scale, .bias = bias, .variance = bias},
      {.dscale = dscale}));
}

}  // namespace
