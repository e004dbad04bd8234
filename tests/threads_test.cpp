// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <thread>

#include "support/calls.hpp"
#include "support/executors.hpp"
#include "support/messages.hpp"
#include "support/tunings.hpp"

// Results do not depend on who runs the blocks, on how many threads, in which order.
namespace {

using namespace support;
using batchnorm::CallOptions;
using batchnorm::Executor;
using batchnorm::SerialExecutor;
using batchnorm::ThreadTeam;

// Groups of channels, few channels with long planes (blocks are split), column form, rows of many and of few channels.
constexpr Sizes split_sizes[] = {{4, 37, 640}, {2, 3, 20003}, {64, 40, 49}, {3000, 20, 1},
                                 {5000, 3, 2}, {70, 300, 4},  {1, 2, 70001}};

template <class T, class P>
bool same(const Result<T, P>& a, const Result<T, P>& b) {
  return same_bits(a.y, b.y) && same_bits(a.batch_mean, b.batch_mean) && same_bits(a.batch_variance, b.batch_variance) &&
         same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance);
}

template <class Both>
class Threads : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>>;
TYPED_TEST_SUITE(Threads, ElementTypes, TypesNames);

/// body(call) for every shape above in both formats, training and inference.
template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : split_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 3, sizes), format, is_training);
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(call);
      }
    }
  }
}

TYPED_TEST(Threads, AnyNumberGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  std::vector<std::unique_ptr<Executor>> executors;
  for (const int concurrency : {1, 2, 3, 7, 16}) executors.push_back(std::make_unique<ThreadTeam>(concurrency));
  executors.push_back(std::make_unique<ReverseExecutor>(5));
  executors.push_back(std::make_unique<ThreadPerTask>(3));
  for_each_call<TypeParam>([&](const Call<T, P>& call) {
    for_each_isa([&](Isa) {
      SerialExecutor serial;
      const auto want = run(call, {.executor = &serial});
      for (const auto& executor : executors) {
        EXPECT_TRUE(same(run(call, {.executor = executor.get(), .tuning = &tuning}), want))
            << executor->concurrency() << " threads";
      }
      EXPECT_TRUE(same(run(call), want)) << "the default executor";
    });
  });
}

TYPED_TEST(Threads, EveryRunGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  ThreadTeam team(4);
  for_each_call<TypeParam>([&](const Call<T, P>& call) {
    const CallOptions options{.executor = &team, .tuning = &tuning};
    const auto first = run(call, options);
    for (int repetition = 0; repetition < 5; ++repetition) ASSERT_TRUE(same(run(call, options), first));
  });
}

TYPED_TEST(Threads, MomentsAreTheSameBitsToo) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  ThreadTeam team(7);
  ReverseExecutor reverse(3);
  for_each_call<TypeParam>([&](const Call<T, P>& call) {
    SerialExecutor serial;
    const batchnorm::TensorView<const T> x(call.x.data(), call.shape);
    const auto want = batchnorm::moments(x, call.format, {.executor = &serial});
    for (Executor* executor : std::initializer_list<Executor*>{&team, &reverse}) {
      const auto got = batchnorm::moments(x, call.format, {.executor = executor, .tuning = &tuning});
      EXPECT_TRUE(same_bits(got.mean, want.mean) && same_bits(got.mean_low, want.mean_low) && same_bits(got.m2, want.m2));
    }
  });
}

// Without this the tests above could pass on one thread.
TEST(ThreadsOfACall, AreThoseOfTheExecutorThatItWasGiven) {
  const Tuning tuning = split_always();
  for (const Sizes& sizes : split_sizes) {
    for (const Format format : formats) {
      ThreadPerTask counting(3);
      run(ordinary_call<float, float>(shape_of(format, 3, sizes), format, true), {.executor = &counting, .tuning = &tuning});
      EXPECT_GT(counting.runs(), 0) << to_string(shape_of(format, 3, sizes));
    }
  }
}

TEST(ThreadsOfACall, AreNotUsedForSmallWork) {
  ThreadPerTask counting(3);
  run(ordinary_call<float, float>({2, 16, 8}, Format::NCHW, true), {.executor = &counting});
  EXPECT_EQ(counting.runs(), 0);
}

/// body(i) on `count` threads at once.
template <class Body>
void at_once(int count, Body&& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

TEST(OneOperator, MayBeCalledFromSeveralThreadsOnOneTeam) {
  const Tuning tuning = split_always();
  ThreadTeam team(3);
  const auto call = ordinary_call<float, float>({8, 40, 49}, Format::NCHW, true);
  const auto want = run(call);
  const batchnorm::BatchNorm<float> bn(call.options);
  std::atomic<int> wrong{0};
  at_once(4, [&](int) {
    for (int repetition = 0; repetition < 50; ++repetition) {
      auto mean = *call.mean, variance = *call.variance;
      const auto y = bn.output_x({call.x.data(), call.shape}, *call.scale, *call.bias, mean, variance, {},
                                 {.executor = &team, .tuning = &tuning});
      if (!same_bits(values_of(y), want.y) || !same_bits(mean, want.mean)) wrong.fetch_add(1);
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

TEST(OneOperator, MayBeCalledFromInsideATask) {
  const Tuning tuning = split_always();
  ThreadTeam team(3);
  for (const Format format : formats) {
    const auto call = ordinary_call<float, float>(shape_of(format, 3, 8, 40, 49), format, true);
    const auto want = run(call);
    std::vector<std::vector<float>> results(8, std::vector<float>(call.x.size()));
    team.run(8, [&](int i) {
      auto mean = *call.mean, variance = *call.variance;
      batchnorm::batch_norm<float>(format, call.options, {call.x.data(), call.shape}, *call.scale, *call.bias, mean, variance,
                                   {{results[static_cast<std::size_t>(i)].data(), call.shape}}, batchnorm::Identity{},
                                   {.executor = &team, .tuning = &tuning});
    });
    for (const auto& y : results) EXPECT_TRUE(same_bits(y, want.y));
  }
}

TEST(OneOperator, ThatThrowsLeavesTheTeamAsItWas) {
  const Tuning tuning = split_always();
  ThreadTeam team(3);
  const auto call = ordinary_call<float, float>({8, 40, 49}, Format::NCHW, true);
  auto wrong = call;
  wrong.scale->pop_back();
  const auto want = run(call);
  const CallOptions options{.executor = &team, .tuning = &tuning};
  at_once(3, [&](int) {
    for (int repetition = 0; repetition < 20; ++repetition) EXPECT_THROW(run(wrong, options), batchnorm::ShapeError);
  });
  EXPECT_TRUE(same(run(call, options), want));
}

TEST(OneOperator, WorksInAForkedChild) {
  if (thread_sanitizer) GTEST_SKIP() << "the thread sanitizer starts no threads after a fork of several threads";
  const Tuning tuning = split_always();
  for (const Format format : formats) {
    const auto call = ordinary_call<float, float>(shape_of(format, 3, 64, 40, 49), format, true);
    const auto want = run(call, {.tuning = &tuning});  // on the parent's default team
    EXPECT_EQ(status_of_child([&] { return same(run(call, {.tuning = &tuning}), want) ? 0 : 1; }), 0);
    EXPECT_TRUE(same(run(call, {.tuning = &tuning}), want));
  }
}

}  // namespace
