// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "support/calls.hpp"

// The promise of docs/numerics.md on hostile data, with the largest errors that were seen printed at the end of the program.
namespace {

using namespace support;

/// The largest errors of all cases by types and instruction set; printed once, after the last test.
class Table : public testing::Environment {
 public:
  void note(const std::string& types, Isa isa, const Errors& errors) {
    Errors& row = rows_[{types, isa}];
    row.merge(errors);
    const std::string prefix = types + "_" + std::string(to_string(isa));
    testing::Test::RecordProperty(prefix + "_y_ulps", std::to_string(row.y.ulps));
    testing::Test::RecordProperty(prefix + "_mean_ulps", std::to_string(row.mean.ulps));
    testing::Test::RecordProperty(prefix + "_variance_ulps", std::to_string(row.variance.ulps));
  }

  void TearDown() override {
    if (rows_.empty()) return;
    std::printf("Largest errors in ulp (y at M, mean at max(|mean|, deviation)), and as a share of the promise\n");
    std::printf("%-26s %-10s %8s %6s %8s %6s %8s %6s\n", "types", "isa", "y", "share", "mean", "share", "variance", "share");
    for (const auto& [key, e] : rows_) {
      std::printf("%-26s %-10s %8.4Lf %6.3Lf %8.4Lf %6.3Lf %8.4Lf %6.3Lf\n", key.first.c_str(),
                  std::string(to_string(key.second)).c_str(), e.y.ulps, e.y.share, e.mean.ulps, e.mean.share, e.variance.ulps,
                  e.variance.share);
    }
    std::fflush(stdout);
  }

 private:
  std::map<std::pair<std::string, Isa>, Errors> rows_;
};

Table* const table = static_cast<Table*>(testing::AddGlobalTestEnvironment(new Table));

template <class Both>
class Promise : public testing::Test {};
TYPED_TEST_SUITE(Promise, EveryTypes, TypesNames);

/// The largest power of two that is a T.
template <class T>
double largest() {
  return std::ldexp(1.0, precision<T>().highest);
}

/// A training call with values generate(i, c).
template <class Both, class Generate>
Call<typename Both::T, typename Both::P> training(const Sizes& sizes, Format format, Generate generate) {
  using T = typename Both::T;
  using P = typename Both::P;
  Call<T, P> call{shape_of(format, 3, sizes), format, {.is_training = true}};
  const Extents e = call.extents();
  call.x.resize(static_cast<std::size_t>(e.n * e.c * e.s));
  for (std::int64_t i = 0; i < e.n * e.s; ++i) {
    for (std::int64_t c = 0; c < e.c; ++c) call.x[e.index(i / e.s, c, i % e.s)] = element<T>(generate(i, c));
  }
  call.scale = uniform<P>(e.c, 1, 2, 5);
  call.bias = uniform<P>(e.c, -1, 1, 6);
  call.mean = uniform<P>(e.c, -1, 1, 7);
  call.variance = uniform<P>(e.c, 0.5, 2, 8);
  return call;
}

template <class Both>
void expect_promise(const Call<typename Both::T, typename Both::P>& call, bool in_table = true) {
  SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(call.format)));
  const Expected want = expected(call);
  for_each_isa([&](Isa isa) {
    const Errors seen = errors(call, run(call), want, isa);
    expect_kept(seen);
    if (in_table) table->note(name_of<Both>(), isa, seen);
  });
}

// Small planes, long planes, many channels: what the layouts' kernels differ in.
constexpr Sizes ordinary_sizes[] = {{16, 5, 49}, {3, 2, 5003}, {64, 37, 1}};

// Deviation 1, and deviations of a few units in the last place of the offset.
TYPED_TEST(Promise, OffsetsCostNoDigits) {
  using T = typename TypeParam::T;
  for (const double wanted : {0.0, 1e3, 1e6, -1e6, 1e8, 1e15}) {
    const double offset = std::clamp(wanted, -largest<T>() / 2, largest<T>() / 2);
    const double ulp = static_cast<double>(ulp_at<T>(std::abs(offset)));
    for (const double deviation : {1.0, 8 * ulp, ulp, 1e-3 * std::abs(offset)}) {
      for (const Sizes& sizes : ordinary_sizes) {
        for (const Format format : formats) {
          Random random(11);
          SCOPED_TRACE("offset " + std::to_string(offset) + ", deviation " + std::to_string(deviation));
          expect_promise<TypeParam>(training<TypeParam>(
              sizes, format, [&](std::int64_t, std::int64_t) { return offset + deviation * random.uniform(-1.7, 1.7); }));
        }
      }
    }
  }
}

// Each channel and each image about an offset of its own: merging blocks must not lose what blocks have won.
TYPED_TEST(Promise, OffsetsThatDriftCostNoDigits) {
  for (const Sizes& sizes : {Sizes{8, 3, 9001}, Sizes{64, 9, 64}, Sizes{4096, 20, 1}}) {
    for (const Format format : formats) {
      Random random(12);
      expect_promise<TypeParam>(training<TypeParam>(sizes, format, [&](std::int64_t i, std::int64_t c) {
        return 1000.0 * static_cast<double>(c + 1) + 0.01 * static_cast<double>(i) + random.uniform(-1, 1);
      }));
    }
  }
}

TYPED_TEST(Promise, LargestAndSmallestValues) {
  using T = typename TypeParam::T;
  // float and bfloat16: to 2^126; half: to its end; double: squares of deviations must stay finite, and above 2^-1022.
  const int highest = sizeof(T) == 8 ? 500 : precision<T>().digits == 11 ? 15 : 126;
  for (const double magnitude : {std::ldexp(1.0, highest), std::ldexp(1.0, highest / 2 + 1), 1.0, std::ldexp(1.0, -highest / 2),
                                 std::ldexp(1.0, precision<T>().digits == 11 ? -14 : -highest)}) {
    for (const Sizes& sizes : ordinary_sizes) {
      for (const Format format : formats) {
        SCOPED_TRACE("magnitude " + std::to_string(std::log2(magnitude)));
        Random random(13);
        expect_promise<TypeParam>(
            training<TypeParam>(sizes, format, [&](std::int64_t, std::int64_t) { return magnitude * random.uniform(-1, 1); }));
      }
    }
  }
}

// k = scale / deviation is then below the smallest normal float unless it is kept with more digits or another exponent.
// The least factor that is still a normal float; below, the product has fewer digits than the promise needs.
TYPED_TEST(Promise, SmallScaleOfLargeValues) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const double magnitude = std::ldexp(1.0, sizeof(T) == 8 ? 500 : precision<T>().digits == 11 ? 15 : 115);
  for (const Sizes& sizes : ordinary_sizes) {
    Random random(14);
    auto call =
        training<TypeParam>(sizes, Format::NCHW, [&](std::int64_t, std::int64_t) { return magnitude * random.uniform(-1, 1); });
    call.scale = uniform<P>(sizes.c, 1e-3, 1e-2, 5);
    call.bias.reset();
    expect_promise<TypeParam>(call, false);
  }
}

// The first value of a channel is the pivot of its first block: one that lies far out makes every deviation large.
TYPED_TEST(Promise, WorstPivot) {
  using T = typename TypeParam::T;
  const double outlier = std::min(1e8, largest<T>());
  for (const Sizes& sizes :
       {Sizes{1, 2, 100}, Sizes{2, 2, 8192}, Sizes{16, 3, 4099}, Sizes{1000, 1, 1000}, Sizes{65537, 2, 1}}) {
    for (const Format format : formats) {
      Random random(15);
      expect_promise<TypeParam>(training<TypeParam>(
          sizes, format, [&](std::int64_t i, std::int64_t) { return i == 0 ? outlier : random.uniform(-1.7, 1.7); }));
    }
  }
}

TYPED_TEST(Promise, OutliersAmongZerosOfAnyBlock) {
  for (const Sizes& sizes : {Sizes{2, 2, 8193}, Sizes{3000, 5, 7}}) {
    for (const Format format : formats) {
      Random random(16);
      expect_promise<TypeParam>(training<TypeParam>(
          sizes, format, [&](std::int64_t i, std::int64_t) { return i % 5000 == 17 ? 3e4 : random.uniform(-1e-3, 1e-3); }));
    }
  }
}

TYPED_TEST(Promise, AMillionValuesPerChannel) {
  for (const Sizes& sizes : {Sizes{4, 1, 262147}, Sizes{1048583, 2, 1}}) {
    Random random(17);
    expect_promise<TypeParam>(
        training<TypeParam>(sizes, Format::NCHW, [&](std::int64_t, std::int64_t) { return 100 + random.uniform(-3, 3); }));
  }
}

TYPED_TEST(Promise, InferenceWithAnyStatistics) {
  using P = typename TypeParam::P;
  for (const double offset : {0.0, 1e3, 3e4}) {
    for (const double variance : {1e-4, 1.0, 1e4}) {
      for (const Sizes& sizes : ordinary_sizes) {
        for (const Format format : formats) {
          Random random(18);
          auto call = training<TypeParam>(
              sizes, format, [&](std::int64_t, std::int64_t) { return offset + std::sqrt(variance) * random.uniform(-3, 3); });
          call.options.is_training = false;
          for (P& mean : *call.mean) mean = element<P>(offset + random.uniform(-1, 1));
          for (P& value : *call.variance) value = element<P>(variance * random.uniform(0.5, 2));
          expect_promise<TypeParam>(call);
        }
      }
    }
  }
}

TYPED_TEST(Promise, ConstantChannelYieldsBias) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const double constant : {0.0, -0.0, 0.1, 100.0, 1e4, 1e30, -1e-30, 1e-42}) {
    if (std::abs(constant) > largest<T>()) continue;
    for (const Sizes& sizes : {Sizes{16, 5, 49}, Sizes{3, 2, 5003}, Sizes{64, 37, 1}, Sizes{2, 3, 20001}, Sizes{1, 3, 1}}) {
      for (const Format format : formats) {
        SCOPED_TRACE(std::to_string(constant) + " " + to_string(shape_of(format, 3, sizes)) + std::string(to_string(format)));
        const auto call = training<TypeParam>(sizes, format, [&](std::int64_t, std::int64_t) { return constant; });
        const Extents e = call.extents();
        for_each_isa([&](Isa) {
          const auto result = run(call);
          for (std::int64_t c = 0; c < e.c; ++c) {
            const auto i = static_cast<std::size_t>(c);
            const T bias = element<T>(static_cast<double>(real((*call.bias)[i])));
            ASSERT_EQ(real(result.batch_mean[i]), real(element<P>(static_cast<double>(real(call.x[0])))));
            ASSERT_EQ(real(result.batch_variance[i]), 0);
            for (std::int64_t j = 0; j < e.n * e.s; ++j) {
              ASSERT_EQ(real(result.y[e.index(j / e.s, c, j % e.s)]), real(bias));
            }
          }
        });
      }
    }
  }
}

}  // namespace
