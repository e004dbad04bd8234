// SPDX-License-Identifier: MIT

// How calls go through memory: plans for shapes and tunings, without a clock.

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <batchnorm/batchnorm.hpp>
#include <batchnorm/explain.hpp>

#include "support/executors.hpp"

namespace {

using batchnorm::Format;
using batchnorm::Isa;
using batchnorm::Pass;
using batchnorm::Shape;
using batchnorm::Tuning;
using batchnorm::cpu::Plan;
using batchnorm::cpu::Walk;

/// A machine with 1 MB of L2 and 32 MB of L3.
Tuning made_up_tuning() {
  Tuning tuning;
  tuning.l2_bytes = 1 << 20;
  tuning.l3_bytes = 32 << 20;
  tuning.plane_group_bytes = 2 << 20;
  tuning.column_group_bytes = 512 << 10;
  return tuning;
}

struct Case {
  Pass pass;
  Shape shape;
  Format format = Format::NCHW;
  int threads = 1;
  Tuning tuning = made_up_tuning();
  Isa isa = batchnorm::largest_isa();
};

template <class T>
Plan plan_of(const Case& c) {
  const auto strides = batchnorm::TensorView<const T>(nullptr, c.shape).strides();
  const auto geometry = batchnorm::cpu::geometry_of(c.shape, strides, c.format);
  const auto pitch = batchnorm::cpu::pitch_in(*geometry, c.shape, strides, c.format);
  support::ReverseExecutor executor(c.threads);
  const batchnorm::cpu::Machine machine{c.isa, &executor, &c.tuning};
  return batchnorm::arguments::PassShape<T>(c.pass, *geometry, *pitch).plan(c.pass, machine);
}

TEST(Plan, LargePlanesGoByGroupsSideBySideWithNonTemporalStores) {
  const Plan plan = plan_of<float>({Pass::training, {32, 256, 56, 56}});
  EXPECT_EQ(plan.walk, Walk::groups_side_by_side);
  EXPECT_EQ(plan.group, (2 << 20) / (32 * 56 * 56 * 4));
  EXPECT_TRUE(plan.streams);
  EXPECT_EQ(plan.workers, 1);
}

#if defined(__x86_64__)
TEST(Plan, TheBaselineHasNoKernelsThatWorkBesideSumsWhereThereIsALargerInstructionSet) {
  const bool is_alone = batchnorm::largest_isa() == Isa::baseline;
  const Plan plan = plan_of<float>({Pass::training, {32, 256, 56, 56}, Format::NCHW, 1, made_up_tuning(), Isa::baseline});
  EXPECT_EQ(plan.walk, is_alone ? Walk::groups_side_by_side : Walk::groups);
  EXPECT_TRUE(plan.streams);
}
#endif

TEST(Plan, GroupsAreWholeCacheLinesPerImage) {
  const Plan plan = plan_of<float>({Pass::training, {32, 2048, 7, 7}});
  EXPECT_EQ(plan.walk, Walk::groups_side_by_side);
  // An eighth of the tensor, 1.5 MB, is less than the share of the cache, 2 MB.
  EXPECT_EQ(plan.group, 2048 / 8 / 16 * 16);
}

TEST(Plan, TheSmallestPlanesAreExpandedToPositionsWhileTheNextGroupIsPrefetched) {
  const Plan plan = plan_of<float>({Pass::training, {32, 2048, 5, 5}});
  EXPECT_EQ(plan.walk, Walk::groups);
  EXPECT_TRUE(plan.expands);
  EXPECT_EQ(plan.group, (512 << 10) / (32 * 5 * 5 * 4) / 16 * 16);
  EXPECT_TRUE(plan.prefetches_next);
}

TEST(Plan, MomentsAreSumsAlone) {
  const Plan plan = plan_of<float>({Pass::moments, {32, 256, 56, 56}});
  EXPECT_EQ(plan.walk, Walk::sums);
}

TEST(Plan, WhatFitsTheCacheIsStoredThroughIt) {
  for (const Pass pass : {Pass::training, Pass::backward, Pass::inference}) {
    const Plan plan = plan_of<float>({pass, {4, 64, 16, 16}});
    EXPECT_FALSE(plan.streams);
  }
}

TEST(Plan, NonTemporalStoresBeginAtAShareOfTheThirdLevelCache) {
  Case c{Pass::inference, {1, 1, 1 << 18}};  // 1 MB read, 1 MB written
  c.tuning.inference_stream_share = 0.0625;  // of 32 MB: 2 MB, which is not more than that
  EXPECT_FALSE(plan_of<float>(c).streams);
  c.tuning.inference_stream_share = 0.06;
  EXPECT_TRUE(plan_of<float>(c).streams);
  c.threads = 2;  // twice the share
  EXPECT_FALSE(plan_of<float>(c).streams);
}

TEST(Plan, EveryThreadGetsTwoGroups) {
  for (const int threads : {1, 2, 4, 8}) {
    const Plan plan = plan_of<float>({Pass::training, {8, 64, 28, 28}, Format::NCHW, threads});
    ASSERT_EQ(plan.walk, Walk::groups) << threads;
    if (threads > 1) {
      EXPECT_GE((64 + plan.group - 1) / plan.group, 2 * threads);
    }
    EXPECT_EQ(plan.workers, threads);
  }
}

TEST(Plan, GroupsThatDoNotDivideAmongFewThreadsAreNotMade) {
  EXPECT_EQ(plan_of<float>({Pass::training, {8, 64, 28, 28}, Format::NCHW, 3}).walk, Walk::sums_operation);
}

TEST(Plan, WideRowsShareTheirCoefficientsUnlessTheyAreStreamed) {
  EXPECT_FALSE(plan_of<float>({Pass::inference, {100, 3001}, Format::NHWC}).is_flat);
  EXPECT_TRUE(plan_of<float>({Pass::inference, {10000, 3001}, Format::NHWC}).is_flat);
  EXPECT_FALSE(plan_of<float>({Pass::inference, {10000, 3008}, Format::NHWC}).is_flat);
  EXPECT_TRUE(plan_of<float>({Pass::inference, {100, 1001}, Format::NHWC}).is_flat);
}

TEST(Plan, TooFewChannelsForAllThreadsGoBlockByBlock) {
  EXPECT_EQ(plan_of<float>({Pass::training, {32, 3, 224, 224}, Format::NCHW, 2}).walk, Walk::sums_operation);
  EXPECT_NE(plan_of<float>({Pass::training, {32, 3, 224, 224}}).walk, Walk::sums_operation);
}

TEST(Plan, FewBytesStayOnOneThread) {
  EXPECT_EQ(plan_of<float>({Pass::training, {16, 512}, Format::NCHW, 8}).workers, 1);
  EXPECT_EQ(plan_of<float>({Pass::training, {64, 512}, Format::NCHW, 8}).workers, 2);
}

TEST(Plan, ChannelsLastIsSummedWholeThenNormalised) {
  const Plan plan = plan_of<float>({Pass::training, {32, 56, 56, 64}, Format::NHWC});
  EXPECT_EQ(plan.walk, Walk::sums_operation);
  EXPECT_TRUE(plan.by_rows);
  EXPECT_TRUE(plan.is_flat);
  EXPECT_EQ(plan.period, 512);
  EXPECT_FALSE(plan.is_walked_back);
}

TEST(Plan, ChannelsLastIsWalkedBackWhileHalfOfItIsInCache) {
  const auto reversed = [](std::int64_t rows) {
    return plan_of<float>({Pass::training, {rows, 1024}, Format::NHWC}).is_reversed;
  };
  EXPECT_FALSE(reversed(4 << 10));  // 16 MB: half of the third-level cache
  EXPECT_TRUE(reversed(5 << 10));
  EXPECT_TRUE(reversed(15 << 10));
  EXPECT_FALSE(reversed(16 << 10));  // 64 MB: twice
}

TEST(Plan, SmallPlanesAreNormalisedPositionByPosition) {
  const Plan small = plan_of<float>({Pass::inference, {8, 64, 3, 3}});
  EXPECT_TRUE(small.by_rows);
  EXPECT_EQ(small.period % (64 * 9), 0);
  EXPECT_FALSE(plan_of<float>({Pass::inference, {8, 64, 4, 4}}).by_rows);  // a cache line of float
  EXPECT_TRUE(plan_of<batchnorm::half>({Pass::inference, {8, 64, 4, 4}}).by_rows);
}

TEST(Plan, TasksCoverTheTensor) {
  for (const Shape& shape : {Shape{3, 5, 7}, Shape{64, 3, 128, 128}, Shape{1, 2, 4000000}, Shape{2, 3000, 17, 19}}) {
    for (const int threads : {1, 2, 7}) {
      const Plan plan = plan_of<float>({Pass::inference, shape, Format::NCHW, threads});
      const std::int64_t values = shape.rank() == 3 ? shape[2] : shape[2] * shape[3];
      if (plan.by_rows) {
        EXPECT_GE(plan.tasks * plan.task_images, shape[0]);
      } else {
        EXPECT_GE(plan.tasks * plan.task_images * plan.task_channels * plan.task_length, shape[0] * shape[1] * values);
        EXPECT_TRUE(plan.task_length == values || plan.task_length % 64 == 0);
      }
      EXPECT_GE(plan.tasks, 1);
    }
  }
}

TEST(Plan, GradientsInInferenceGoBlockByBlock) {
  EXPECT_EQ(plan_of<float>({Pass::inference_backward, {32, 64, 28, 28}}).walk, Walk::blocks);
  EXPECT_EQ(plan_of<float>({Pass::inference_backward, {32, 28, 28, 64}, Format::NHWC}).walk, Walk::blocks);
}

TEST(Explain, SaysWalkBlocksStoresAndThreads) {
  const batchnorm::Tensor<float> x(Shape{4, 64, 16, 16});
  const batchnorm::SerialExecutor serial;
  const Tuning tuning = made_up_tuning();
  const batchnorm::CallOptions call{.executor = const_cast<batchnorm::SerialExecutor*>(&serial), .tuning = &tuning};
  EXPECT_EQ(batchnorm::explain<float>(Pass::training, x, Format::NCHW, call),
            "4 images of 64 channels of 256 values: groups of 64 channels, the sums, then the operation; sums in 1 block of up "
            "to 4 images; plain stores; 1 thread; numbers of the caller");
  EXPECT_EQ(batchnorm::explain<float>(Pass::inference, x, Format::NHWC, call),
            "4096 rows of 16 channels: positions in one run in 1 task; plain stores; 1 thread; numbers of the caller");
}

TEST(Explain, AnEmptyBatchDoesNothing) {
  const batchnorm::Tensor<float> x(Shape{0, 3, 4});
  EXPECT_EQ(batchnorm::explain<float>(Pass::training, x, Format::NCHW), "an empty batch: nothing is done");
}

TEST(Explain, RefusesWhatNoCallTakes) {
  EXPECT_THROW(batchnorm::explain<float>(Pass::training, batchnorm::Tensor<float>(Shape{3}), Format::NCHW),
               batchnorm::ShapeError);
}

}  // namespace
