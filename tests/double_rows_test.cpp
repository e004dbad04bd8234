// SPDX-License-Identifier: MIT

// What the tuning decides, and whether x is overwritten, changes no bit.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/calls.hpp"
#include "support/tunings.hpp"

namespace {

using batchnorm::Format;
using batchnorm::Isa;
using batchnorm::Moments;
using batchnorm::Shape;
using batchnorm::Tensor;
using batchnorm::TensorView;

/// Values of several orders of magnitude: the sum of any two is rounded.
Tensor<double> noise(const Shape& shape) {
  Tensor<double> tensor(shape);
  support::Random random(1);
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    tensor[i] = std::ldexp(random.uniform(-0.4, 0.6), -static_cast<int>(random.integer(0, 5)));
  }
  return tensor;
}

void expect_the_same(const Moments& a, const Moments& b, const std::string& what) {
  EXPECT_TRUE(support::same_bits(a.mean, b.mean)) << what;
  EXPECT_TRUE(support::same_bits(a.mean_low, b.mean_low)) << what;
  EXPECT_TRUE(support::same_bits(a.m2, b.m2)) << what;
}

/// Mean and variance of training, and y.
std::vector<double> training(const Shape& shape, Format format, bool in_place, const batchnorm::CallOptions& call = {}) {
  Tensor<double> x = noise(shape), y(shape);
  const TensorView<double> output = in_place ? x : y;
  const auto channels = static_cast<std::size_t>(shape[format == Format::NCHW ? 1 : shape.rank() - 1]);
  std::vector<double> mean(channels), variance(channels);
  batchnorm::batch_norm<double, double>(format, {.is_training = true}, x, nullptr, nullptr, nullptr, nullptr,
                                        {.output_x = output, .batch_mean = mean, .batch_variance = variance},
                                        batchnorm::Identity{}, call);
  std::vector<double> results = std::move(mean);
  results.insert(results.end(), variance.begin(), variance.end());
  results.insert(results.end(), output.data(), output.data() + x.size());
  return results;
}

void check_tunings(const Shape& shape, Format format) {
  const Tensor<double> x = noise(shape);
  support::for_each_isa([&](Isa isa) {
    const Moments expected = batchnorm::moments<double>(x, format);
    const std::vector<double> expected_results = training(shape, format, false);
    for (const auto& [name, tuning] : support::tunings()) {
      const std::string what = to_string(shape) + ", " + std::string(to_string(isa)) + ", " + name;
      expect_the_same(batchnorm::moments<double>(x, format, {.tuning = &tuning}), expected, what);
      EXPECT_TRUE(support::same_bits(training(shape, format, false, {.tuning = &tuning}), expected_results)) << what;
    }
  });
}

// Sums of double add two rows at a time. The last columns of a group were added row by row where nothing may be read after
// them, so that the mean depended, in its last digit, on which channels shared a group.
TEST(RowsOfDouble, ArePairedAlikeForEachTuningInSmallPlanes) {
  for (const std::int64_t n : {2, 5, 8, 9, 31}) {
    check_tunings({n, 7, 4}, Format::NCHW);
    check_tunings({n, 13, 3}, Format::NCHW);
    check_tunings({n, 5, 2, 3}, Format::NCHW);
  }
}

// The rows of a tile were as many as its columns leave room for, and an odd number of them ended with a row of its own.
TEST(RowsOfDouble, ArePairedAlikeForEachTuningInTiles) {
  for (const std::int64_t c : {6, 80, 176, 208}) check_tunings({2, 59, c}, Format::NHWC);
}

// Nor which output the call has: x that is overwritten may not be read past its columns.
TEST(RowsOfDouble, ArePairedAlikeWhereXIsOverwritten) {
  for (const auto& [shape, format] : {std::pair{Shape{8, 7, 4}, Format::NCHW}, std::pair{Shape{5, 9, 6}, Format::NHWC}}) {
    support::for_each_isa([&, f = format, s = shape](Isa) {
      EXPECT_TRUE(support::same_bits(training(s, f, true), training(s, f, false))) << to_string(s);
    });
  }
}

}  // namespace
