// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "ranks.hpp"
#include "support/allocations.hpp"

// A rank that is out of memory, at whichever of its allocations: every rank throws, none waits, nothing is written.
namespace {

using namespace support;
using batchnorm::mpi::ParameterGradients;

/// Lets the last rank fail at its first, second, ... allocation, until a call succeeds. `call` returns whether it has thrown;
/// the last rank then knows whether that was for want of memory. Returns the number of failures.
template <class Call>
int failures(const Call& call) {
  for (int k = 0;; ++k) {
    bool threw = false;
    try {
      const FailingAllocation failing(rank() == ranks() - 1 ? k + 1 : 0);
      call();
    } catch (const std::bad_alloc&) {
      threw = true;
    } catch (const batchnorm::mpi::OtherRankError&) {
      threw = true;
    }
    int throwing = threw ? 1 : 0;
    MPI_Allreduce(MPI_IN_PLACE, &throwing, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (throwing == 0) return k;
    EXPECT_EQ(throwing, ranks()) << "where allocation " << k << " fails on the last rank, only some ranks throw";
  }
}

class FailedAllocation : public testing::Test {
 protected:
  void SetUp() override {
    if (ranks() == 1) GTEST_SKIP() << "one rank leaves nobody waiting";
  }

  static constexpr std::int64_t channels = 600;  // with four ranks in slices
  Shape shape{2, channels, 3};
  std::vector<float> x = std::vector<float>(2 * channels * 3, 1.0F), y = x, mean = std::vector<float>(channels),
                     variance = mean, dscale = mean;
};

TEST_F(FailedAllocation, OfOneRankThrowsOnAllInTraining) {
  const int failed = failures([&] {
    batchnorm::mpi::batch_norm<float>(MPI_COMM_WORLD, Format::NCHW, {.is_training = true}, {x.data(), shape}, {}, {}, mean,
                                      variance, {.output_x = {y.data(), shape}});
  });
  EXPECT_GT(failed, 3);
}

TEST_F(FailedAllocation, OfOneRankThrowsOnAllGoingBackward) {
  for (const bool is_training : {true, false}) {
    for (const auto parameters : {ParameterGradients::of_batch, ParameterGradients::of_rank}) {
      const int failed = failures([&] {
        batchnorm::mpi::batch_norm_backward<float>(
            MPI_COMM_WORLD, Format::NCHW, {.is_training = is_training}, {x.data(), shape}, {x.data(), shape}, {}, mean,
            variance, {.dx = {y.data(), shape}, .dscale = dscale}, batchnorm::Identity{}, {}, parameters);
      });
      EXPECT_GT(failed, 3);
    }
  }
}

TEST_F(FailedAllocation, OfOneRankThrowsOnAllMerging) {
  batchnorm::Moments moments(channels);
  EXPECT_GT(failures([&] { batchnorm::mpi::merge(moments, MPI_COMM_WORLD); }), 3);
  batchnorm::GradientSums sums(channels);
  EXPECT_GT(failures([&] { batchnorm::mpi::merge(sums, MPI_COMM_WORLD); }), 3);
}

}  // namespace
