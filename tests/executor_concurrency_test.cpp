// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/calls.hpp"
#include "support/executors.hpp"
#include "support/tunings.hpp"

// A caller's executor whose concurrency is odd.
namespace {

using namespace support;

TEST(ExecutorOfTheCaller, WhoseConcurrencyIsBelow1RunsEverythingAllTheSame) {
  const Tuning tuning = split_always();
  for (const Sizes& sizes : {Sizes{4, 37, 640}, Sizes{2, 3, 20003}, Sizes{64, 40, 49}, Sizes{3000, 20, 1}, Sizes{1, 300, 4}}) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<float, float>(shape_of(format, 3, sizes), format, is_training);
        batchnorm::SerialExecutor serial;
        const auto want = run(call, {.executor = &serial});
        for (const int concurrency : {0, -1, -1000, (std::numeric_limits<int>::min)(), (std::numeric_limits<int>::max)()}) {
          ReverseExecutor odd(concurrency);
          const auto got = run(call, {.executor = &odd, .tuning = &tuning});
          EXPECT_TRUE(same_bits(got.y, want.y) && same_bits(got.batch_variance, want.batch_variance) &&
                      same_bits(got.variance, want.variance))
              << concurrency << ' ' << to_string(call.shape) << ' ' << to_string(format);
        }
      }
    }
  }
}

}  // namespace
