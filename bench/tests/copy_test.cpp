// SPDX-License-Identifier: MIT
#include "../suite/copy.hpp"

#include <gtest/gtest.h>

#include <batchnorm/tensor.hpp>
#include <batchnorm/thread_team.hpp>

namespace {

TEST(Copy, CopiesEveryByteAndNoMore) {
  for (const int threads : {1, 2, 5}) {
    batchnorm::ThreadTeam team(threads);
    for (const std::int64_t size : {0, 1, 15, 16, 17, 33, 64, 250, 1000, 4099}) {
      batchnorm::Tensor<float> from(batchnorm::Shape{size + 1}), to(batchnorm::Shape{size + 1});
      for (std::int64_t i = 0; i <= size; ++i) from[i] = static_cast<float>(i + 1);
      bench::copy(team, to.data(), from.data(), size * 4);
      for (std::int64_t i = 0; i < size; ++i) ASSERT_EQ(to[i], from[i]) << "value " << i << " of " << size;
      EXPECT_EQ(to[size], 0);
    }
  }
}

}  // namespace
