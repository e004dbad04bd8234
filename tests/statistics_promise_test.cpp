// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/calls.hpp"

// Data made to break what is promised of statistics: sums whose every addition rounds the same way, means that are exact,
// values at the ends of double's range.
namespace {

using namespace support;

/// A training call of double without scale, bias and running statistics; value(i, c) is value i of channel c.
template <class T, class Value>
Call<T, batchnorm::parameter_t<T>> training(Format format, const Sizes& sizes, Value value) {
  Call<T, batchnorm::parameter_t<T>> call{shape_of(format, 3, sizes), format, {.is_training = true}};
  const Extents e = call.extents();
  call.x.resize(static_cast<std::size_t>(e.n * e.c * e.s));
  for (std::int64_t i = 0; i < e.n * e.s; ++i) {
    for (std::int64_t c = 0; c < e.c; ++c) call.x[e.index(i / e.s, c, i % e.s)] = element<T>(value(i, c));
  }
  return call;
}

template <class T, class P>
void expect_promise(const Call<T, P>& call) {
  SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(call.format)));
  const Expected want = expected(call);
  for_each_isa([&](Isa isa) { expect_kept(errors(call, run(call), want, isa)); });
}

/// 1.5 first and -1.5 then, with last bits such that each addition to the chain that takes every `chains`-th value
/// rounds up by as much as it can.
std::vector<double> rounding_up(std::int64_t m, std::int64_t chains) {
  std::vector<double> sum(static_cast<std::size_t>(chains), 0.0), values;
  for (std::int64_t i = 0; i < m; ++i) {
    double& chain = sum[static_cast<std::size_t>(i % chains)];
    double best = 0, most = -1;
    for (int bits = 0; bits < 256; ++bits) {
      const double value = (i < m / 2 ? 1.5 : -1.5) + bits * 0x1p-52;
      const double next = chain + value;
      const double up = (next - chain) - value;  // exact but for its own last bits
      if (up > most) most = up, best = value;
    }
    chain += best;
    values.push_back(best);
  }
  return values;
}

TEST(StatisticsPromise, MeanOfDoubleWhoseAdditionsAllRoundUp) {
  for (const Format format : formats) {
    for (const std::int64_t chains : {1, 8, 16, 32}) {
      const auto values = rounding_up(1024, chains);
      expect_promise(training<double>(format, {1, 2, 1024},
                                      [&](std::int64_t i, std::int64_t) { return values[static_cast<std::size_t>(i)]; }));
    }
  }
}

// Squares of large values first, then of values that each add just more than half an ulp: every addition rounds up.
TEST(StatisticsPromise, VarianceOfDoubleWhoseAdditionsAllRoundUp) {
  for (const Format format : formats) {
    for (const std::int64_t channels : {2, 3}) {
      for (const std::int64_t large : {8, 32, 64}) {
        for (const double factor : {1.0, 1.4142136}) {
          expect_promise(training<double>(format, {1, channels, 4096}, [&](std::int64_t i, std::int64_t) {
            const double size = i < large ? 1 : 0x1p-26 * factor / 1.4142135;
            return i % 2 == 0 ? size : -size;
          }));
        }
      }
    }
  }
}

/// Integers of any distribution whose mean is exactly 1, and which contain 1.
std::vector<int> integers_about_one(std::int64_t m, std::uint64_t seed) {
  Random random(seed);
  std::vector<int> values(static_cast<std::size_t>(m), 1);
  for (std::int64_t i = 0; i < m; ++i) {
    const int moved = static_cast<int>(random.integer(0, 3));
    const auto to = static_cast<std::size_t>(random.integer(0, m - 1));
    values[static_cast<std::size_t>(i)] -= moved;
    values[to] += moved;
  }
  values.push_back(1);
  return values;
}

template <class T>
class ExactMean : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(ExactMean, ElementTypes);

// Their number is no power of two, and so no block has a mean that a double holds.
TYPED_TEST(ExactMean, OutputIsExactlyBiasWhereXIsTheMean) {
  for (const Format format : formats) {
    for (const std::int64_t m : {6, 1030, 3002, 9006, 33032}) {
      const auto values = integers_about_one(m, static_cast<std::uint64_t>(m));
      auto call = training<TypeParam>(format, {1, 2, m + 1}, [&](std::int64_t i, std::int64_t c) {
        return (c == 0 ? 1 : -1) * values[static_cast<std::size_t>(i)];
      });
      SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)));
      for_each_isa([&](Isa) {
        const auto result = run(call);
        const Extents e = call.extents();
        for (std::int64_t i = 0; i <= m; ++i) {
          for (std::int64_t c = 0; c < 2; ++c) {
            const std::size_t at = e.index(0, c, i);
            if (real(call.x[at]) != (c == 0 ? 1 : -1)) continue;
            ASSERT_EQ(real(result.y[at]), 0) << "value " << i << ", channel " << c;
          }
        }
      });
    }
  }
}

TYPED_TEST(ExactMean, StaysExactWhenMomentsAreMerged) {
  constexpr std::int64_t m = 3002;
  const auto values = integers_about_one(m, 5);
  for (const std::int64_t part : {7, 333, 1000}) {
    for_each_isa([&](Isa) {
      batchnorm::Moments merged(1);
      for (std::int64_t first = 0; first <= m; first += part) {
        const std::int64_t some = std::min(part, m + 1 - first);
        const auto call = training<TypeParam>(Format::NCHW, {1, 1, some}, [&](std::int64_t i, std::int64_t) {
          return values[static_cast<std::size_t>(first + i)];
        });
        batchnorm::merge(merged, batchnorm::moments<TypeParam>({call.x.data(), call.shape}, Format::NCHW));
      }
      EXPECT_EQ(merged.mean[0], 1);
      EXPECT_EQ(merged.mean_low[0], 0);
    });
  }
}

// Parts whose means are far apart, and cancel.
TEST(StatisticsPromise, MergedMeansThatCancelLeaveNothing) {
  for_each_isa([&](Isa) {
    batchnorm::Moments merged(1);
    for (const double value : {1e6, -1e6}) {
      const std::vector<double> x{value, value, value + (value > 0 ? 1 : -1)};
      batchnorm::merge(merged, batchnorm::moments<double>({x.data(), {3, 1}}, Format::NCHW));
    }
    EXPECT_EQ(merged.mean[0], 0);
    EXPECT_EQ(merged.mean_low[0], 0);
  });
}

// A mean that a double does not hold keeps its digits, however small the deviation.
TEST(StatisticsPromise, MeansBetweenDoublesKeepTheirDigits) {
  for (const std::int64_t m : {3, 1021, 5003, 20011}) {
    const auto x =
        training<double>(Format::NCHW, {1, 1, m}, [](std::int64_t i, std::int64_t) { return i == 1 ? 1 + 0x1p-52 : 1; }).x;
    for_each_isa([&](Isa) {
      batchnorm::Moments merged(1);
      for (std::int64_t first = 0; first < m; first += 1000) {
        batchnorm::merge(merged, batchnorm::moments<double>({x.data() + first, {1, 1, std::min<std::int64_t>(1000, m - first)}},
                                                            Format::NCHW));
      }
      const double expected = 0x1p-52 / static_cast<double>(m);
      EXPECT_NEAR((merged.mean[0] - 1) + merged.mean_low[0], expected, expected * 0x1p-40);
    });
  }
}

double updated_mean(double running, double batch, double momentum) {
  std::vector<double> mean{running}, variance{1};
  batchnorm::Moments moments(1);
  moments.count = 4, moments.mean[0] = batch;
  batchnorm::finalize<double>(moments, {.momentum = momentum}, {.running_mean = mean, .running_variance = variance});
  return mean[0];
}

TEST(StatisticsPromise, RunningMeanOfLargeValuesOfOppositeSignIsFinite) {
  for_each_isa([](Isa) {
    EXPECT_DOUBLE_EQ(updated_mean(1.5e308, -1.5e308, 0.1), 1.2e308);
    EXPECT_DOUBLE_EQ(updated_mean(-1.5e308, 1.5e308, 0.5), 0);
    EXPECT_DOUBLE_EQ(updated_mean(-1.7e308, 1.7e308, 0.75), 0.85e308);
  });
}

TEST(StatisticsPromise, InfiniteRunningMeanStaysInfinite) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for_each_isa([&](Isa) {
    EXPECT_EQ(updated_mean(infinity, 3, 0.1), infinity);
    EXPECT_EQ(updated_mean(-infinity, 3, 0.1), -infinity);
    EXPECT_EQ(updated_mean(3, -infinity, 0.1), -infinity);
    EXPECT_TRUE(std::isnan(updated_mean(infinity, -infinity, 0.1)));
  });
}

TEST(StatisticsPromise, MeanOfInfiniteDoubleIsInfinite) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const Format format : formats) {
    for (const double sign : {1.0, -1.0}) {
      const auto call = training<double>(format, {2, 3, 700}, [&](std::int64_t i, std::int64_t c) {
        return c == 1 && i % 500 == 77 ? sign * infinity : static_cast<double>(i % 5);
      });
      for_each_isa([&](Isa) {
        const auto result = run(call);
        EXPECT_EQ(result.batch_mean[1], sign * infinity);
        EXPECT_TRUE(std::isnan(result.batch_variance[1]));
        EXPECT_TRUE(std::isfinite(result.batch_mean[0]) && std::isfinite(result.batch_variance[2]));
      });
    }
  }
}

// Largest and smallest deviations of the promise: squares and their sums are normal numbers.
TEST(StatisticsPromise, HoldsToTheEndsOfItsRangeOfDouble) {
  for (const Format format : formats) {
    for (const double magnitude : {0x1p500, 0x1p-490}) {
      Random random(3);
      auto call =
          training<double>(format, {3, 3, 5000}, [&](std::int64_t, std::int64_t) { return magnitude * random.uniform(-1, 1); });
      expect_promise(call);
    }
  }
}

TEST(StatisticsPromise, VarianceBeyondDoubleIsInfiniteAndOutputNaN) {
  for (const Format format : formats) {
    const auto call = training<double>(format, {2, 3, 600}, [&](std::int64_t i, std::int64_t c) {
      return c == 1 ? (i % 2 == 0 ? 1e160 : -2e160) : static_cast<double>(i % 7);
    });
    for_each_isa([&](Isa) {
      const auto result = run(call);
      const Extents e = call.extents();
      EXPECT_DOUBLE_EQ(result.batch_mean[1], -5e159);
      EXPECT_EQ(result.batch_variance[1], std::numeric_limits<double>::infinity());
      EXPECT_TRUE(std::isnan(result.y[e.index(0, 1, 0)]));
      EXPECT_TRUE(std::isfinite(result.y[e.index(0, 0, 0)]) && std::isfinite(result.y[e.index(1, 2, 599)]));
    });
  }
}

}  // namespace
