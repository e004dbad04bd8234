// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <batchnorm/fold.hpp>
#include <limits>

#include "support/messages.hpp"

// Folding, as every call: strides and extents that nobody means are errors, and slices of one buffer that share no element are
// none.
namespace {

using batchnorm::AffineMap;
using batchnorm::Shape;
using batchnorm::ShapeError;
using batchnorm::TensorView;
using batchnorm::ValueError;
using support::message_of;

const AffineMap two{{2, 3}, {5, 7}};

TEST(FoldMemory, ThatStridesLeaveIsRefused) {
  std::vector<float> weights(6, 1), bias(2), folded(6, 777);
  for (const std::int64_t stride : {std::int64_t{1} << 61, -(std::int64_t{1} << 61), std::numeric_limits<std::int64_t>::min(),
                                    std::numeric_limits<std::int64_t>::max(), std::int64_t{-1} << 46}) {
    const TensorView<const float> far(weights.data(), {2, 3}, {stride, 1});
    const TensorView<float> far_output(folded.data(), {2, 3}, {stride, 1}), near(folded.data(), {2, 3});
    const std::string what = " has strides [" + std::to_string(stride) + ", 1], which reach beyond any memory";
    EXPECT_EQ(message_of<ValueError>([&] {
                batchnorm::fold_after<float>(far, {}, two, {near, bias});
              }),
              "batchnorm::fold_after: weights" + what);
    EXPECT_EQ(message_of<ValueError>([&] {
                batchnorm::fold_after<float>({weights.data(), {2, 3}}, {}, two, {far_output, bias});
              }),
              "batchnorm::fold_after: folded.weights" + what);
    EXPECT_EQ(message_of<ValueError>([&] {
                batchnorm::fold_after<float>({weights.data(), {2, 3}}, {bias.data(), {2}, {stride}}, two, {near, bias});
              }),
              "batchnorm::fold_after: bias has strides [" + std::to_string(stride) + "], which reach beyond any memory");
  }
  EXPECT_EQ(folded, std::vector<float>(6, 777));
}

TEST(FoldMemory, OfABroadcastLayerWithTooManyChannelsIsRefused) {
  const float weight = 1;
  const std::int64_t many = std::int64_t{1} << 61;
  EXPECT_EQ(message_of<ShapeError>([&] {
              batchnorm::fold_before<float>({&weight, {many, 2}, {}}, {}, two, batchnorm::FoldedLayerViews<float>{});
            }),
            "batchnorm::fold_before: weights has more than 2^53 elements or channels (weights is [2305843009213693952, 2])");
}

// The loops over the extents that are not 0 would take years.
TEST(FoldMemory, OfALayerWithoutWeightsIsNotWalked) {
  std::vector<float> bias = {1, 2}, folded(2, 777);
  const Shape shape{2, std::int64_t{1} << 50, 0};
  const TensorView<float> none(nullptr, shape);
  batchnorm::fold_after<float>(none, TensorView<const float>(bias), two, {none, folded});
  EXPECT_EQ(folded, (std::vector<float>{7, 13}));
}

TEST(FoldMemory, OfInterleavedBuffersThatShareNoElementIsAccepted) {
  std::vector<float> buffer = {1, 777, 2, 777, 3, 777, 4, 777, 5, 777, 6, 777}, bias(2);
  batchnorm::fold_after<float>({buffer.data(), {2, 3}, {6, 2}}, {}, two, {{buffer.data() + 1, {2, 3}, {6, 2}}, bias});
  EXPECT_EQ(buffer, (std::vector<float>{1, 2, 2, 4, 3, 6, 4, 12, 5, 15, 6, 18}));
  EXPECT_EQ(
      message_of<ValueError>([&] {
        batchnorm::fold_after<float>({buffer.data(), {2, 3}, {6, 2}}, {}, two, {{buffer.data() + 2, {2, 3}, {3, 1}}, bias});
      }),
      "batchnorm::fold_after: folded.weights overlaps weights; allowed is only its very place, with the same strides");
}

}  // namespace
