// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "support/calls.hpp"

// What a training call does to the running statistics, by momentum, kind of variance and number of the batch.
namespace {

using namespace support;
using batchnorm::RunningVariance;

template <class Both>
class RunningStatistics : public testing::Test {};
TYPED_TEST_SUITE(RunningStatistics, EveryTypes, TypesNames);

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 600}, {9, 33, 16}, {40, 2, 1}, {2, 4, 1}};

template <class Both, class Body>
void for_each_training_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 3, sizes), format, true);
      SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)));
      body(call);
    }
  }
}

TYPED_TEST(RunningStatistics, AreUpdatedWithTheKindOfVarianceAndTheWeightAskedFor) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_training_call<TypeParam>([](const Call<T, P>& ordinary) {
    for (const RunningVariance kind : {RunningVariance::unbiased, RunningVariance::biased}) {
      for (const double momentum : {0.1, 0.37, 0.9, 1e-9}) {
        auto call = ordinary;
        call.options.running_variance = kind;
        call.options.momentum = momentum;
        const Expected want = expected(call);
        for_each_isa([&](Isa isa) { expect_kept(errors(call, run(call), want, isa)); });
      }
    }
  });
}

TYPED_TEST(RunningStatistics, MomentumZeroLeavesEveryBit) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_training_call<TypeParam>([](const Call<T, P>& ordinary) {
    auto call = ordinary;
    call.options.momentum = 0;
    (*call.mean)[0] = element<P>(-0.0);
    (*call.mean)[1] = element<P>(std::numeric_limits<double>::quiet_NaN());
    (*call.variance)[0] = element<P>(std::numeric_limits<double>::infinity());
    (*call.variance)[1] = element<P>(-1);
    call.x[0] = element<T>(std::numeric_limits<double>::quiet_NaN());  // and no 0 * NaN either
    for_each_isa([&](Isa) {
      const auto result = run(call);
      EXPECT_TRUE(same_bits(result.mean, *call.mean));
      EXPECT_TRUE(same_bits(result.variance, *call.variance));
    });
  });
}

TYPED_TEST(RunningStatistics, MomentumOneReplacesWhateverTheyWere) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_training_call<TypeParam>([](const Call<T, P>& ordinary) {
    auto call = ordinary;
    call.options.momentum = 1;
    (*call.mean)[0] = element<P>(std::numeric_limits<double>::quiet_NaN());
    (*call.mean)[1] = element<P>(-std::numeric_limits<double>::infinity());
    (*call.variance)[0] = element<P>(std::numeric_limits<double>::infinity());
    (*call.variance)[1] = element<P>(std::numeric_limits<double>::quiet_NaN());
    const Expected want = expected(call);
    for_each_isa([&](Isa) {
      call.options.running_variance = RunningVariance::biased;
      const auto biased = run(call);
      EXPECT_TRUE(same_bits(biased.mean, biased.batch_mean));
      EXPECT_TRUE(same_bits(biased.variance, biased.batch_variance));
      call.options.running_variance = RunningVariance::unbiased;
      const auto unbiased = run(call);
      EXPECT_TRUE(same_bits(unbiased.mean, unbiased.batch_mean));
      for (std::size_t c = 0; c < unbiased.variance.size(); ++c) {
        const Real entering = want.channel[c].unbiased();
        ASSERT_LE(error(unbiased.variance[c], entering), allowed_variance_error<P>(entering));
      }
    });
  });
}

TYPED_TEST(RunningStatistics, BatchNumberGivesTheCumulativeAverage) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Format format : formats) {
    for_each_isa([&](Isa) {
      std::vector<Real> mean(5, 0), variance(5, 0);
      std::vector<P> running_mean(5, element<P>(std::numeric_limits<double>::quiet_NaN())), running_variance = running_mean;
      constexpr int batches = 5;
      for (int number = 1; number <= batches; ++number) {
        auto call = ordinary_call<T, P>(shape_of(format, 3, 4, 5, 9), format, true, static_cast<std::uint64_t>(number));
        call.options.momentum = 0.7;  // overruled by the number of the batch
        call.mean = running_mean, call.variance = running_variance;
        const auto result = run(call, {.batch_number = number});
        running_mean = result.mean, running_variance = result.variance;
        const Expected want = expected(call);
        for (std::size_t c = 0; c < 5; ++c) {
          mean[c] += (want.channel[c].mean + want.channel[c].rest) / batches;
          variance[c] += want.channel[c].unbiased() / batches;
        }
      }
      // Each of the five updates rounds once at a magnitude below 8 (the data are in [-5, 5], their variances below 2).
      for (std::size_t c = 0; c < 5; ++c) {
        EXPECT_LE(error(running_mean[c], mean[c]), batches * allowed_mean_error<P>(5));
        EXPECT_LE(error(running_variance[c], variance[c]), batches * allowed_variance_error<P>(2));
      }
    });
  }
}

TYPED_TEST(RunningStatistics, MayBeAbsentInTraining) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_training_call<TypeParam>([](const Call<T, P>& call) {
    auto absent = call;
    absent.mean.reset(), absent.variance.reset();
    for_each_isa([&](Isa) {
      const auto with = run(call), without = run(absent);
      EXPECT_TRUE(same_bits(with.y, without.y));
      EXPECT_TRUE(same_bits(with.batch_mean, without.batch_mean));
      EXPECT_TRUE(same_bits(with.batch_variance, without.batch_variance));
    });
  });
}

TYPED_TEST(RunningStatistics, AreUntouchedByInference) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_training_call<TypeParam>([](const Call<T, P>& ordinary) {
    auto call = ordinary;
    call.options.is_training = false;
    call.options.momentum = 1;
    for_each_isa([&](Isa) {
      const auto result = run(call);
      EXPECT_TRUE(same_bits(result.mean, *call.mean));
      EXPECT_TRUE(same_bits(result.variance, *call.variance));
    });
  });
}

/// Floats in a page of their own, which can be made read-only.
class Page {
 public:
  Page() : bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* const page = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) values_ = static_cast<float*>(page);
  }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  ~Page() { munmap(values_, bytes_); }

  float* values() const { return values_; }
  void protect() const { ASSERT_EQ(mprotect(values_, bytes_, PROT_READ), 0); }

 private:
  std::size_t bytes_;
  float* values_ = nullptr;
};

// Another thread may read them meanwhile.
TEST(RunningStatisticsOfMomentum0, AreNotEvenWrittenAsTheyWere) {
  for (const std::int64_t channels : {3, 19, 64}) {
    const Page page;
    ASSERT_NE(page.values(), nullptr);
    std::fill_n(page.values(), 2 * channels, 0.5F);
    page.protect();
    const std::vector<float> x = uniform<float>(4 * channels, -1, 1, 1);
    std::vector<float> y(x.size());
    const batchnorm::BatchNorm<float> norm({.is_training = true, .momentum = 0});
    norm({.x = {x.data(), {4, channels}},
          .mean = {page.values(), {channels}},
          .variance = {page.values() + channels, {channels}}},
         {.output_x = {y.data(), {4, channels}}});
    EXPECT_EQ(page.values()[channels], 0.5F);
  }
}

}  // namespace
