// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <opencv2/core.hpp>

#include <batchnorm/opencv.hpp>

#include "support/adapters.hpp"
#include "support/messages.hpp"

// Pictures of OpenCV: interleaved channels, rows with a step.
namespace {

using namespace support;
using batchnorm::view_of;

template <class M, class T>
concept Viewable = requires(M m) {
  view_of<T>(m);
};
static_assert(Viewable<cv::Mat&, float> && Viewable<const cv::Mat&, const float> && !Viewable<const cv::Mat&, float>);
static_assert(!Viewable<cv::Mat&, batchnorm::bfloat16> && !Viewable<cv::Mat&, int>);

cv::Mat random_picture(int rows, int columns, int type) {
  cv::Mat picture(rows, columns, CV_MAKETYPE(CV_32F, CV_MAT_CN(type)));
  cv::RNG(7).fill(picture, cv::RNG::UNIFORM, -1.0, 3.0);
  cv::Mat converted;
  picture.convertTo(converted, CV_MAT_DEPTH(type));
  return converted;
}

TEST(OpencvAdapter, PictureIsOneImageOfInterleavedChannels) {
  cv::Mat picture = random_picture(6, 9, CV_32FC3);
  const auto view = view_of<float>(picture);
  EXPECT_EQ(view.shape(), (Shape{1, 6, 9, 3}));
  EXPECT_EQ(&view.data()[2 * view.strides()[1] + 5 * view.strides()[2] + 1], &picture.at<cv::Vec3f>(2, 5)[1]);
  expect_normalised_in_place(view, Format::NHWC);

  cv::Mat gray = random_picture(30, 40, CV_64FC1), halves = random_picture(12, 10, CV_16FC4);
  EXPECT_EQ(view_of<double>(gray).shape(), (Shape{1, 30, 40, 1}));
  expect_normalised_in_place(view_of<double>(gray), Format::NHWC);
  expect_normalised_in_place(view_of<batchnorm::half>(halves), Format::NHWC);
}

TEST(OpencvAdapter, RegionOfAPictureIsNormalisedInPlaceAndNothingElseIs) {
  cv::Mat picture = random_picture(50, 70, CV_32FC3);
  const cv::Mat before = picture.clone();
  const cv::Rect rectangle(11, 7, 33, 20);
  cv::Mat region = picture(rectangle);
  ASSERT_FALSE(region.isContinuous());
  EXPECT_EQ(view_of<float>(region).strides()[1], 70 * 3);
  expect_normalised_in_place(view_of<float>(region), Format::NHWC);
  EXPECT_GT(cv::norm(picture(rectangle), before(rectangle)), 1.0);
  before(rectangle).copyTo(region);
  EXPECT_EQ(cv::norm(picture, before), 0.0) << "something outside of the region was written";
}

TEST(OpencvAdapter, TemporariesAreViewedWhereTheirElementsStay) {
  cv::Mat picture = random_picture(8, 8, CV_32FC3);
  const cv::Rect rectangle(1, 2, 5, 4);
  EXPECT_EQ(view_of<float>(picture(rectangle)).data(), picture.ptr<float>(2) + 3);
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<const float>(picture.clone()); }),
            "batchnorm::view_of: the cv::Mat is a temporary that alone holds its elements; give it a name");
}

TEST(OpencvAdapter, StacksAndBlobs) {
  const int stack_sizes[] = {4, 6, 9}, blob_sizes[] = {2, 3, 5, 7};
  cv::Mat stack(3, stack_sizes, CV_32FC3), blob(4, blob_sizes, CV_32F);
  cv::RNG(3).fill(stack, cv::RNG::UNIFORM, -1.0, 3.0);
  cv::RNG(4).fill(blob, cv::RNG::UNIFORM, -1.0, 3.0);
  EXPECT_EQ(view_of<float>(stack).shape(), (Shape{4, 6, 9, 3}));
  expect_normalised_in_place(view_of<float>(stack), Format::NHWC);
  EXPECT_EQ(view_of<float>(blob).shape(), (Shape{2, 3, 5, 7}));
  expect_normalised_in_place(view_of<float>(blob), Format::NCHW);
  const cv::Range parts[] = {cv::Range(1, 3), cv::Range(2, 5), cv::Range(0, 9)};
  cv::Mat part = stack(parts);
  expect_normalised_in_place(view_of<float>(part), Format::NHWC);
}

TEST(OpencvAdapter, EmptyMatIsAnEmptyTensor) {
  const cv::Mat nothing(0, 0, CV_32FC3), default_constructed;
  EXPECT_EQ(view_of<const float>(nothing).shape(), (Shape{1, 0, 0, 3}));
  cv::Mat of_float;
  of_float.convertTo(of_float, CV_32F);
  EXPECT_EQ(batchnorm::element_count(view_of<const float>(nothing).shape()), 0);
  EXPECT_THROW(view_of<const float>(default_constructed), batchnorm::ValueError) << "it holds CV_8U";
}

TEST(OpencvAdapter, WhatCannotBeViewedIsSaid) {
  cv::Mat bytes(4, 5, CV_8UC3);
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<float>(bytes); }),
            "batchnorm::view_of: the cv::Mat holds CV_8U, expected CV_32F; mat.convertTo(other, CV_32F) converts it");
  cv::Mat floats(4, 5, CV_32FC3);
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<batchnorm::half>(floats); }),
            "batchnorm::view_of: the cv::Mat holds CV_32F, expected CV_16F; mat.convertTo(other, CV_16F) converts it");
  const int sizes[] = {1, 1, 1, 1, 1, 1, 1, 2};
  cv::Mat deep(8, sizes, CV_32FC2);
  EXPECT_EQ(message_of<batchnorm::ShapeError>([&] { view_of<float>(deep); }),
            "batchnorm::view_of: the cv::Mat has 8 dimensions, expected up to 7");
}

}  // namespace
