// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "support/gradient_calls.hpp"

// The promise of docs/numerics.md for the gradients on hostile data, for the saved statistics as they are given. The largest
// errors that were seen are printed at the end of the program.
namespace {

using namespace support;

/// The largest errors of all cases by types and instruction set; printed once, after the last test.
class GradientTable : public testing::Environment {
 public:
  void note(const std::string& types, Isa isa, const GradientErrors& errors) {
    GradientErrors& row = rows_[{types, isa}];
    row.merge(errors);
    const std::string prefix = types + "_" + std::string(to_string(isa));
    testing::Test::RecordProperty(prefix + "_dx_ulps", std::to_string(row.dx.ulps));
    testing::Test::RecordProperty(prefix + "_dscale_ulps", std::to_string(row.dscale.ulps));
    testing::Test::RecordProperty(prefix + "_dbias_ulps", std::to_string(row.dbias.ulps));
  }

  void TearDown() override {
    if (rows_.empty()) return;
    std::printf("Largest errors of gradients in ulp (at the largest term), and as a share of the promise\n");
    std::printf("%-26s %-10s %8s %6s %8s %6s %8s %6s\n", "types", "isa", "dx", "share", "dscale", "share", "dbias", "share");
    for (const auto& [key, e] : rows_) {
      std::printf("%-26s %-10s %8.4Lf %6.3Lf %8.3Lg %6.3Lf %8.3Lg %6.3Lf\n", key.first.c_str(),
                  std::string(to_string(key.second)).c_str(), e.dx.ulps, e.dx.share, e.dscale.ulps, e.dscale.share,
                  e.dbias.ulps, e.dbias.share);
    }
    std::fflush(stdout);
  }

 private:
  std::map<std::pair<std::string, Isa>, GradientErrors> rows_;
};

GradientTable* const table = static_cast<GradientTable*>(testing::AddGlobalTestEnvironment(new GradientTable));

template <class Both>
class GradientPromise : public testing::Test {};
TYPED_TEST_SUITE(GradientPromise, EveryTypes, TypesNames);

/// A power of two that is a T and not beyond `wanted`.
template <class T>
double within(double wanted) {
  return std::clamp(wanted, -std::ldexp(1.0, precision<T>().highest - 1), std::ldexp(1.0, precision<T>().highest - 1));
}

/// A call with dy = generate_dy(i, c), x = generate_x(i, c), and the statistics of x.
template <class Both, class GenerateDy, class GenerateX>
GradientCall<typename Both::T, typename Both::P> call_with(const Sizes& sizes, Format format, GenerateDy generate_dy,
                                                           GenerateX generate_x) {
  using T = typename Both::T;
  using P = typename Both::P;
  GradientCall<T, P> call{shape_of(format, 3, sizes), format};
  const Extents e = call.extents();
  call.dy.resize(static_cast<std::size_t>(e.n * e.c * e.s));
  call.x.resize(call.dy.size());
  for (std::int64_t i = 0; i < e.n * e.s; ++i) {
    for (std::int64_t c = 0; c < e.c; ++c) {
      const std::size_t at = e.index(i / e.s, c, i % e.s);
      call.dy[at] = element<T>(generate_dy(i, c));
      call.x[at] = element<T>(generate_x(i, c));
    }
  }
  call.scale = uniform<P>(e.c, 1, 2, 5);
  save_statistics(call);
  return call;
}

/// The promise in training and, with the same statistics, in inference.
template <class Both>
void expect_promise(GradientCall<typename Both::T, typename Both::P> call) {
  for (const bool is_training : {true, false}) {
    call.options.is_training = is_training;
    SCOPED_TRACE(text_of(call));
    const auto want = expected(call);
    for_each_isa([&](Isa isa) {
      const GradientErrors seen = errors(call, run(call), want, isa);
      expect_kept(seen);
      table->note(name_of<Both>(), isa, seen);
    });
  }
}

// Small planes, long planes, many channels: what the layouts' kernels differ in.
constexpr Sizes ordinary_sizes[] = {{16, 5, 49}, {3, 2, 5003}, {64, 37, 1}};

TYPED_TEST(GradientPromise, OffsetsOfXAndOfDyCostNoDigits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const double wanted_x : {0.0, 1e3, 1e6}) {
    for (const double wanted_dy : {0.0, 1e3, -1e6}) {
      const double offset_x = within<T>(within<P>(wanted_x)), offset_dy = within<T>(wanted_dy);  // P holds the mean of x
      SCOPED_TRACE("offsets " + std::to_string(offset_x) + " of x, " + std::to_string(offset_dy) + " of dy");
      for (const Sizes& sizes : ordinary_sizes) {
        for (const Format format : formats) {
          Random random(11);
          const auto about = [&](double offset) {
            return [&, offset](std::int64_t, std::int64_t) { return offset + random.uniform(-1.7, 1.7); };
          };
          expect_promise<TypeParam>(call_with<TypeParam>(sizes, format, about(offset_dy), about(offset_x)));
        }
      }
    }
  }
}

// Each channel and each image about an offset of its own: merging blocks must not lose what blocks have won.
TYPED_TEST(GradientPromise, OffsetsThatDriftCostNoDigits) {
  for (const Sizes& sizes : {Sizes{8, 3, 9001}, Sizes{64, 9, 64}, Sizes{4096, 20, 1}}) {
    for (const Format format : formats) {
      Random random(12);
      const auto drift = [&](std::int64_t i, std::int64_t c) {
        return 1000.0 * static_cast<double>(c + 1) + 0.01 * static_cast<double>(i) + random.uniform(-1, 1);
      };
      expect_promise<TypeParam>(call_with<TypeParam>(sizes, format, drift, drift));
    }
  }
}

// dy that is nearly a + b * x: what is left of dx is the small remainder of large terms.
TYPED_TEST(GradientPromise, WhatNormalizationUndoesLeavesTheErrorOfItsTerms) {
  for (const Sizes& sizes : ordinary_sizes) {
    for (const Format format : formats) {
      Random random(13);
      double x = 0;
      const auto generate_x = [&](std::int64_t, std::int64_t) { return x; };
      const auto generate_dy = [&](std::int64_t, std::int64_t) {
        x = random.uniform(-1, 1);
        return 3 + 2 * x + 1e-3 * random.uniform(-1, 1);
      };
      expect_promise<TypeParam>(call_with<TypeParam>(sizes, format, generate_dy, generate_x));
    }
  }
}

// A mean that is wrong by its type's own rounding of an offset, or altogether; a variance that is too small or too large.
TYPED_TEST(GradientPromise, SavedStatisticsCountAsTheyAreGiven) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const double wrong_mean : {0.0, 0.5, -20.0}) {
    for (const double wrong_variance : {1e-3, 1.0, 1e3}) {
      for (const Sizes& sizes : ordinary_sizes) {
        for (const Format format : formats) {
          Random random(14);
          auto call = call_with<TypeParam>(
              sizes, format, [&](std::int64_t, std::int64_t) { return random.uniform(-1, 1); },
              [&](std::int64_t, std::int64_t) { return within<T>(100) + random.uniform(-1, 1); });
          for (P& mean : call.mean) mean = element<P>(static_cast<double>(real(mean)) + wrong_mean);
          for (P& variance : call.variance) variance = element<P>(static_cast<double>(real(variance)) * wrong_variance);
          SCOPED_TRACE("mean + " + std::to_string(wrong_mean) + ", variance * " + std::to_string(wrong_variance));
          expect_promise<TypeParam>(call);
        }
      }
    }
  }
}

// Sums that cancel to nothing: alternating signs, and halves of a channel that undo each other.
TYPED_TEST(GradientPromise, SumsThatCancelAreMeasuredAtTheirTerms) {
  for (const Sizes& sizes : {Sizes{16, 5, 64}, Sizes{2, 3, 8192}, Sizes{64, 37, 1}}) {
    for (const Format format : formats) {
      const std::int64_t half = sizes.n * sizes.s / 2;
      for (const bool by_halves : {false, true}) {
        Random random(15);
        std::vector<double> first(static_cast<std::size_t>(sizes.c));
        std::map<std::pair<std::int64_t, std::int64_t>, double> seen;
        const auto generate_dy = [&](std::int64_t i, std::int64_t c) {
          if (by_halves) return i < half ? seen[{i, c}] = random.uniform(-3, 3) : -seen[{i - half, c}];
          return i % 2 == 0 ? (first[static_cast<std::size_t>(c)] = random.uniform(-3, 3))
                            : -first[static_cast<std::size_t>(c)];
        };
        const auto generate_x = [&](std::int64_t, std::int64_t) { return random.uniform(-1, 1); };
        expect_promise<TypeParam>(call_with<TypeParam>(sizes, format, generate_dy, generate_x));
      }
    }
  }
}

TYPED_TEST(GradientPromise, LargeAndSmallGradients) {
  using T = typename TypeParam::T;
  const int highest = precision<T>().highest;
  // x of order 1; dy to a quarter of the largest value, so that no sum that is asked for leaves its type.
  for (const int exponent : {highest - (sizeof(typename TypeParam::P) == 2 && highest < 100 ? 12 : 20), highest / 2, 0,
                             -highest / 2, precision<T>().lowest + 4}) {
    for (const Sizes& sizes : ordinary_sizes) {
      for (const Format format : formats) {
        Random random(16);
        SCOPED_TRACE("dy of order 2^" + std::to_string(exponent));
        expect_promise<TypeParam>(call_with<TypeParam>(
            sizes, format, [&](std::int64_t, std::int64_t) { return std::ldexp(random.uniform(-1, 1), exponent); },
            [&](std::int64_t, std::int64_t) { return random.uniform(-2, 2); }));
      }
    }
  }
}

// The first value of a channel may lie far out, in x, in dy or in both.
TYPED_TEST(GradientPromise, OutliersInFront) {
  using T = typename TypeParam::T;
  const double outlier = within<T>(1e6);
  for (const Sizes& sizes : {Sizes{1, 2, 100}, Sizes{2, 2, 8192}, Sizes{16, 3, 4099}, Sizes{10007, 2, 1}}) {
    for (const Format format : formats) {
      for (const auto& [of_dy, of_x] : {std::pair{true, false}, std::pair{false, true}, std::pair{true, true}}) {
        Random random(17);
        const auto values = [&](bool has_outlier) {
          return [&, has_outlier](std::int64_t i, std::int64_t) {
            return i == 0 && has_outlier ? outlier : random.uniform(-1.7, 1.7);
          };
        };
        expect_promise<TypeParam>(call_with<TypeParam>(sizes, format, values(of_dy), values(of_x)));
      }
    }
  }
}

TYPED_TEST(GradientPromise, AMillionValuesPerChannel) {
  for (const Sizes& sizes : {Sizes{4, 1, 262147}, Sizes{524309, 2, 1}}) {
    Random random(18);
    expect_promise<TypeParam>(call_with<TypeParam>(
        sizes, Format::NCHW, [&](std::int64_t, std::int64_t) { return 0.25 + random.uniform(-3, 3); },
        [&](std::int64_t, std::int64_t) { return 100 + random.uniform(-3, 3); }));
  }
}

}  // namespace
