// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <memory>

#include "support/executors.hpp"
#include "support/gradient_calls.hpp"
#include "support/tunings.hpp"

// Gradients do not depend on who runs the blocks, on how many threads, in which order.
namespace {

using namespace support;
using batchnorm::CallOptions;
using batchnorm::Executor;
using batchnorm::SerialExecutor;
using batchnorm::ThreadTeam;

// Groups of channels, few channels with long planes (blocks are split), column form, rows of many and of few channels.
constexpr Sizes split_sizes[] = {{4, 37, 640}, {2, 3, 20003}, {64, 40, 49}, {3000, 20, 1},
                                 {5000, 3, 2}, {70, 300, 4},  {1, 2, 70001}};

template <class Both>
class ThreadGradients : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>>;
TYPED_TEST_SUITE(ThreadGradients, ElementTypes, TypesNames);

/// body(shape, format, is_training) for every shape above in both formats, training and inference.
template <class Body>
void for_each_form(Body&& body) {
  for (const Sizes& sizes : split_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const Shape shape = shape_of(format, 3, sizes);
        SCOPED_TRACE(text_of(shape, format, is_training));
        body(shape, format, is_training);
      }
    }
  }
}

/// Teams of several sizes, an executor that reverses the order, one that has none.
std::vector<std::unique_ptr<Executor>> executors() {
  std::vector<std::unique_ptr<Executor>> all;
  for (const int concurrency : {1, 2, 3, 8}) all.push_back(std::make_unique<ThreadTeam>(concurrency));
  all.push_back(std::make_unique<ReverseExecutor>(5));
  all.push_back(std::make_unique<ThreadPerTask>(3));
  return all;
}

TYPED_TEST(ThreadGradients, AnyNumberGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  const auto all = executors();
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
    for_each_isa([&](Isa) {
      SerialExecutor serial;
      const auto want = run(call, {.executor = &serial});
      for (const auto& executor : all) {
        EXPECT_TRUE(same(run(call, {.executor = executor.get(), .tuning = &tuning}), want))
            << executor->concurrency() << " threads";
      }
      EXPECT_TRUE(same(run(call), want)) << "the default executor";
    });
  });
}

TYPED_TEST(ThreadGradients, OfTheSecondOrderAreTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  const auto all = executors();
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_double_gradient_call<T, P>(shape, format, is_training);
    SerialExecutor serial;
    const auto want = run(call, {.executor = &serial});
    for (const auto& executor : all) {
      EXPECT_TRUE(same(run(call, {.executor = executor.get(), .tuning = &tuning}), want))
          << executor->concurrency() << " threads";
    }
  });
}

TYPED_TEST(ThreadGradients, EveryRunGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  ThreadTeam team(4);
  const CallOptions options{.executor = &team, .tuning = &tuning};
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
    const auto first = run(call, options);
    for (int repetition = 0; repetition < 5; ++repetition) ASSERT_TRUE(same(run(call, options), first));
  });
}

TYPED_TEST(ThreadGradients, PiecesAreTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  ThreadTeam team(7);
  ReverseExecutor reverse(3);
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    if (!is_training) return;
    const auto call = ordinary_gradient_call<T, P>(shape, format, true);
    const auto moments = batchnorm::moments<T>(call.x_view(), format);
    const auto pieces = [&](const CallOptions& options) {
      GradientResult<T, P> result{std::vector<T>(call.x.size()), std::vector<P>(call.mean.size()),
                                  std::vector<P>(call.mean.size())};
      const auto sums = batchnorm::gradient_sums<T>(format, {.dy = call.dy_view(), .x = call.x_view()}, moments, {}, options);
      batchnorm::input_gradient<T, P>(format, {.dy = call.dy_view(), .x = call.x_view(), .scale = view(call.scale)}, sums,
                                      moments, call.options.epsilon, {{result.dx.data(), shape}, result.dscale, result.dbias},
                                      {}, options);
      return result;
    };
    SerialExecutor serial;
    const auto want = pieces({.executor = &serial});
    for (Executor* executor : std::initializer_list<Executor*>{&team, &reverse}) {
      EXPECT_TRUE(same(pieces({.executor = executor, .tuning = &tuning}), want));
    }
  });
}

// Bits of one byte may belong to two planes: whoever writes them, none may be lost.
TYPED_TEST(ThreadGradients, MaskIsTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  const auto all = executors();
  for (const Sizes& sizes : {Sizes{4, 37, 643}, Sizes{2, 3, 20003}, Sizes{64, 41, 49}, Sizes{3001, 19, 1}, Sizes{701, 3, 5}}) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<T, P>(shape_of(format, 3, sizes), format, is_training);
        SCOPED_TRACE(text_of(call.shape, format, is_training));
        const auto mask_of = [&](const CallOptions& options) {
          std::vector<T> y(call.x.size());
          std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(call.shape)), 0xFF);
          auto mean = *call.mean, variance = *call.variance;
          batchnorm::batch_norm<T, P>(format, call.options, {call.x.data(), call.shape}, view(call.scale), view(call.bias),
                                      mean, variance, {.output_x = {y.data(), call.shape}, .mask = mask}, batchnorm::Relu{},
                                      options);
          return mask;
        };
        for_each_isa([&](Isa) {
          SerialExecutor serial;
          const auto want = mask_of({.executor = &serial});
          for (const auto& executor : all) {
            EXPECT_EQ(mask_of({.executor = executor.get(), .tuning = &tuning}), want) << executor->concurrency() << " threads";
          }
        });
      }
    }
  }
}

TYPED_TEST(ThreadGradients, ThroughAMaskAreTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const Tuning tuning = split_always();
  const auto all = executors();
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
    Random random(61);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(batchnorm::mask_bytes(shape)));
    for (auto& byte : bits) byte = static_cast<std::uint8_t>(random.bits());
    const auto through_mask = [&](const CallOptions& options) {
      GradientResult<T, P> result{std::vector<T>(call.x.size()), std::vector<P>(call.mean.size()),
                                  std::vector<P>(call.mean.size())};
      batchnorm::batch_norm_backward<T, P>(format, call.options, call.dy_view(), call.x_view(), view(call.scale), call.mean,
                                           call.variance, {{result.dx.data(), shape}, result.dscale, result.dbias},
                                           ThroughReluMask{bits}, options);
      return result;
    };
    SerialExecutor serial;
    const auto want = through_mask({.executor = &serial});
    for (const auto& executor : all) {
      EXPECT_TRUE(same(through_mask({.executor = executor.get(), .tuning = &tuning}), want))
          << executor->concurrency() << " threads";
    }
  });
}

// Without this the tests above could pass on one thread. In inference a task is a block of 8192 values of every channel.
TEST(ThreadsOfAGradient, AreThoseOfTheExecutorThatItWasGiven) {
  const Tuning tuning = split_always();
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const Extents e = extents(shape, format);
    if (!is_training && e.n * e.s <= 8192) return;
    ThreadPerTask first(3), second(3);
    run(ordinary_gradient_call<float, float>(shape, format, is_training), {.executor = &first, .tuning = &tuning});
    run(ordinary_double_gradient_call<float, float>(shape, format, is_training), {.executor = &second, .tuning = &tuning});
    EXPECT_GT(first.runs(), 0);
    EXPECT_GT(second.runs(), 0);
  });
}

TEST(ThreadsOfAGradient, AreNotUsedForSmallWork) {
  ThreadPerTask counting(3);
  run(ordinary_gradient_call<float, float>({2, 16, 8}, Format::NCHW, true), {.executor = &counting});
  EXPECT_EQ(counting.runs(), 0);
}

TEST(GradientsOnOneTeam, MayBeTakenFromInsideATask) {
  const Tuning tuning = split_always();
  ThreadTeam team(3);
  for (const Format format : formats) {
    const auto call = ordinary_gradient_call<float, float>(shape_of(format, 3, 8, 40, 49), format, true);
    const auto want = run(call);
    std::vector<GradientResult<float, float>> results(8);
    team.run(8, [&](int i) { results[static_cast<std::size_t>(i)] = run(call, {.executor = &team, .tuning = &tuning}); });
    for (const auto& result : results) EXPECT_TRUE(same(result, want));
  }
}

}  // namespace
