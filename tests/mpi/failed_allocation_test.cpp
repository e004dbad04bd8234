// SPDX-License-Identifier: MIT
#include <cstdlib>
#include <limits>
#include <new>

#include <gtest/gtest.h>

#include "ranks.hpp"

// A rank that is out of memory, at whichever of its allocations: every rank throws, none waits, nothing is written.
namespace {

/// How many allocations succeed before one fails.
std::int64_t allocations_left = std::numeric_limits<std::int64_t>::max();

void* allocated(std::size_t bytes, std::size_t alignment) {
  if (allocations_left-- == 0) throw std::bad_alloc();
  // aligned_alloc wants a multiple of the alignment.
  void* const memory =
      std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment + (bytes == 0 ? alignment : 0));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocated(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocated(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using namespace support;
using batchnorm::mpi::ParameterGradients;

/// Lets the last rank fail at its first, second, ... allocation, until a call succeeds. `call` returns whether it has thrown;
/// the last rank then knows whether that was for want of memory. Returns the number of failures.
template <class Call>
int failures(const Call& call) {
  for (int k = 0;; ++k) {
    if (rank() == ranks() - 1) allocations_left = k;
    bool threw = false;
    try {
      call();
    } catch (const std::bad_alloc&) {
      threw = true;
    } catch (const batchnorm::mpi::OtherRankError&) {
      threw = true;
    }
    allocations_left = std::numeric_limits<std::int64_t>::max();
    int throwing = threw ? 1 : 0;
    MPI_Allreduce(MPI_IN_PLACE, &throwing, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (throwing == 0) return k;
    EXPECT_EQ(throwing, ranks()) << "where allocation " << k << " fails on the last rank, only some ranks throw";
  }
}

class FailedAllocation : public testing::Test {
 protected:
  void SetUp() override {
    if (ranks() == 1) GTEST_SKIP() << "one rank";
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
