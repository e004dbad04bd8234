// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <batchnorm/conventions.hpp>
#include <batchnorm/fold.hpp>

#include "support/cases.hpp"
#include "support/messages.hpp"
#include "support/oracle.hpp"

// Darknet's epsilon, which is added to the root of the variance and not to the variance; and inverse deviations that were saved
// with another epsilon than they are read with.
namespace {

using namespace support;
using namespace batchnorm;

const std::vector<float> variances{0, 1e-38F, 1e-20F, 1e-12F, 1e-10F, 1e-5F, 0.3F, 1, 7e4F, 1e30F};

// The factor of a channel: the variance rounds once to float (half an ulp is 6e-8 of it, half that of its root), all else is
// in double.
constexpr Real allowed = 0x1p-24L;

TEST(EpsilonOutsideOfTheRoot, IsDarknetsMapForEveryVarianceDownTo0) {
  for (const double epsilon : {1e-6, static_cast<double>(.000001F), 1e-5, 1e-3, 1.0}) {
    const Options options = from_darknet(epsilon);
    EXPECT_FALSE(options.is_training);
    const std::vector<float> variance = darknet_variance<float>(variances, epsilon), mean(variances.size());
    const AffineMap map = affine_map<float>({.mean = mean, .variance = variance}, options.epsilon);
    for (std::size_t c = 0; c < variances.size(); ++c) {
      const Real want = 1 / (std::sqrt(static_cast<Real>(variances[c])) + static_cast<Real>(epsilon));
      EXPECT_LE(std::abs(static_cast<Real>(map.factor[c]) - want), allowed * want)
          << "variance " << variances[c] << ", epsilon " << epsilon;
    }
  }
}

TEST(EpsilonOutsideOfTheRoot, IsRefusedWhereItsSquareIsNoEpsilon) {
  EXPECT_EQ(message_of<ValueError>([] { from_darknet(0); }),
            "batchnorm::from_darknet: epsilon is 0, it must be in [1e-150, 1]");
  EXPECT_EQ(message_of<ValueError>([] { from_darknet(1e-160); }),
            "batchnorm::from_darknet: epsilon is 1e-160, it must be in [1e-150, 1]");
  EXPECT_EQ(message_of<ValueError>([] { darknet_variance<float>(variances, 1.5); }),
            "batchnorm::darknet_variance: epsilon is 1.5, it must be in [1e-150, 1]");
  EXPECT_EQ(message_of<ValueError>([] { from_darknet(std::numeric_limits<double>::quiet_NaN()); }),
            "batchnorm::from_darknet: epsilon is nan, it must be in [1e-150, 1]");
  EXPECT_TRUE(std::isnan(darknet_variance<double>(std::vector<double>{-1})[0]));
  EXPECT_TRUE(darknet_variance<float>(std::vector<float>{}).empty());
}

TEST(InverseDeviation, SavedWithAnotherEpsilonIsRefusedWhereNoVarianceHasIt) {
  // Of variance 0 with epsilon 1e-6 outside of the root.
  EXPECT_EQ(message_of<ValueError>([] { variance_of_inverse_deviation(1e6, 1e-4); }),
            "batchnorm::variance_of_inverse_deviation: inverse is 1e+06, 1 / sqrt(epsilon) = 100 is the most of a variance "
            "from 0; was "
            "it saved with another epsilon?");
  EXPECT_THROW(variance_of_inverse_deviation(std::numeric_limits<double>::infinity(), 1e-5), ValueError);
}

// Saved as a float, or even as a bfloat16 (0.2 % off): a variance of 0 is 0 but for the rounding.
TEST(InverseDeviation, OfVariance0MayBeRoundedUp) {
  for (const double epsilon : {1e-5, 1e-3, 1e-12}) {
    const double most = 1 / std::sqrt(epsilon);
    EXPECT_NEAR(variance_of_inverse_deviation(static_cast<double>(std::nextafter(static_cast<float>(most), 1e30F)), epsilon), 0,
                0x1p-21 * epsilon);
    EXPECT_NEAR(variance_of_inverse_deviation(most * (1 + 0x1p-9), epsilon), 0, 0x1p-7 * epsilon);
  }
}

}  // namespace
