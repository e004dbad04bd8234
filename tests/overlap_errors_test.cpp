// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/calls.hpp"
#include "support/messages.hpp"

// Outputs that share elements with other arguments are refused by name, before anything is written; the other errors of the
// pieces beside the operator.
namespace {

using namespace support;
using batchnorm::Moments;
using batchnorm::ShapeError;
using batchnorm::TensorView;
using batchnorm::ValueError;

constexpr std::int64_t C = 5, size = 2 * C * 12;
const Shape x_shape{2, C, 3, 4};

/// One buffer that every argument of a call is taken from.
struct Arguments {
  std::vector<float> buffer = std::vector<float>(1000, 777);
  batchnorm::Options options{.is_training = true};
  TensorView<const float> x = tensor(0), residual = tensor(size);
  TensorView<const float> scale = vector(600), bias = vector(610);
  TensorView<float> mean = vector(620), variance = vector(630);
  batchnorm::OutputViews<float, float> out{tensor(2 * size), vector(640), vector(650), vector(660), vector(670)};

  TensorView<float> tensor(std::int64_t first) { return {buffer.data() + first, x_shape}; }
  TensorView<float> vector(std::int64_t first) { return {buffer.data() + first, Shape{C}}; }

  Arguments() = default;
  Arguments(const Arguments&) = delete;  // the views point into this object
  Arguments& operator=(const Arguments&) = delete;

  std::string error() {
    return message_of<ValueError>([&] {
      batchnorm::batch_norm<float>(Format::NCHW, options, x, scale, bias, mean, variance, out, LeakySum<float>{residual, {}});
    });
  }
};

template <class Spoil>
void expect_overlap(const std::string& names, Spoil&& spoil) {
  Arguments arguments;
  spoil(arguments);
  const bool tensors = names == "output_x overlaps x" || names == "output_x overlaps residual";
  EXPECT_EQ(arguments.error(),
            "batchnorm::BatchNorm: " + names +
                (tensors ? "; allowed is only output_x in place of x or of the residual, with the same strides"
                         : "; an output shares no element with another argument"));
  EXPECT_EQ(arguments.buffer, std::vector<float>(1000, 777)) << "something was written";
}

template <class Change>
void expect_accepted(Change&& change) {
  Arguments arguments;
  change(arguments);
  EXPECT_EQ(arguments.error(), "<no exception>");
}

TEST(Overlap, OfTheOutputWithXOrTheResidualByAShiftIsRefused) {
  for (const std::int64_t shift : {-1, 1, -16, 16, 59, -119, 119}) {
    expect_overlap("output_x overlaps x", [&](Arguments& a) {
      a.x = a.tensor(2 * size + shift);
      if (shift < 0) a.residual = a.tensor(0);
    });
    expect_overlap("output_x overlaps residual", [&](Arguments& a) { a.residual = a.tensor(2 * size + shift); });
  }
  expect_accepted([](Arguments& a) { a.residual = a.tensor(size), a.x = a.tensor(3 * size); });
}

TEST(Overlap, OfTheOutputInPlaceIsAccepted) {
  expect_accepted([](Arguments& a) { a.x = a.tensor(2 * size); });
  expect_accepted([](Arguments& a) { a.residual = a.tensor(2 * size); });
  expect_accepted([](Arguments& a) { a.x = a.residual = a.tensor(2 * size); });
}

TEST(Overlap, OfTheOutputInPlaceWithOtherStridesIsRefused) {
  const batchnorm::Strides padded{61, 12, 4, 1};
  expect_overlap("output_x overlaps x", [&](Arguments& a) { a.x = {a.out.output_x.data(), x_shape, padded}; });
  expect_overlap("output_x overlaps residual", [&](Arguments& a) { a.residual = {a.out.output_x.data(), x_shape, padded}; });
}

TEST(Overlap, OfInputsIsAccepted) {
  expect_accepted([](Arguments& a) { a.residual = a.x; });
  expect_accepted([](Arguments& a) { a.scale = a.bias; });
  expect_accepted([](Arguments& a) { a.scale = {a.x.data(), {C}}; });
}

// In inference the running statistics are inputs: two arguments that hold the same numbers may be one buffer.
TEST(Overlap, OfStatisticsWithOtherInputsIsAcceptedInInference) {
  expect_accepted([](Arguments& a) { a.options.is_training = false, a.mean = a.vector(610); });
  expect_accepted([](Arguments& a) { a.options.is_training = false, a.variance = a.vector(600); });
  expect_accepted([](Arguments& a) { a.options.is_training = false, a.variance = a.mean; });
}

TEST(Overlap, OfRunningStatisticsIsRefusedInTraining) {
  expect_overlap("mean overlaps bias", [](Arguments& a) { a.mean = a.vector(614); });
  expect_overlap("variance overlaps scale", [](Arguments& a) { a.variance = a.vector(600); });
  expect_overlap("mean overlaps variance", [](Arguments& a) { a.variance = a.vector(622); });
  expect_overlap("mean overlaps x", [](Arguments& a) { a.mean = a.vector(size - 1); });
  expect_overlap("output_x overlaps mean", [](Arguments& a) { a.mean = a.vector(3 * size - 1); });
}

TEST(Overlap, OfOutputsWithOneAnotherIsRefused) {
  expect_overlap("batch_mean overlaps batch_variance", [](Arguments& a) { a.out.batch_variance = a.out.batch_mean; });
  expect_overlap("batch_mean overlaps reserve_space_1", [](Arguments& a) { a.out.reserve_space_1 = a.out.batch_mean; });
  expect_overlap("batch_variance overlaps reserve_space_2", [](Arguments& a) { a.out.reserve_space_2 = a.vector(654); });
  expect_overlap("output_x overlaps batch_mean", [](Arguments& a) { a.out.batch_mean = a.vector(2 * size); });
  expect_overlap("batch_mean overlaps mean", [](Arguments& a) { a.out.batch_mean = a.vector(620); });
  expect_overlap("reserve_space_2 overlaps scale", [](Arguments& a) { a.out.reserve_space_2 = a.vector(604); });
}

TEST(Overlap, OfAnOutputWithItselfIsRefused) {
  for (const batchnorm::Strides& strides : {batchnorm::Strides{0, 12, 4, 1}, {60, 0, 4, 1}, {60, 11, 4, 1}, {59, 12, 4, 1}}) {
    Arguments arguments;
    arguments.out.output_x = {arguments.out.output_x.data(), x_shape, strides};
    EXPECT_EQ(arguments.error(),
              "batchnorm::BatchNorm: output_x overlaps itself: its strides put several elements in one place");
    EXPECT_EQ(arguments.buffer, std::vector<float>(1000, 777)) << "something was written";
  }
  // An input may repeat itself: one image, or one channel, read several times.
  expect_accepted([](Arguments& a) { a.x = {a.x.data(), x_shape, {0, 12, 4, 1}}; });
  expect_accepted([](Arguments& a) { a.residual = {a.residual.data(), x_shape, {60, 0, 4, 1}}; });
}

// Channels that run backwards: served or refused, but an overlap must be seen all the same.
TEST(Overlap, IsSeenWithChannelsThatRunBackwards) {
  const batchnorm::Strides backwards{60, -12, 4, 1};
  Arguments arguments;
  arguments.x = {arguments.buffer.data() + 2 * size + 48, x_shape, backwards};  // exactly the elements of output_x
  EXPECT_NE(arguments.error(), "<no exception>");
  EXPECT_EQ(arguments.buffer, std::vector<float>(1000, 777)) << "something was written";
}

TEST(OwnedOutputs, GiveTheSameErrorsAsTheCallersOwn) {
  const batchnorm::BatchNorm<float> bn(true);
  std::vector<float> x(size), scale(C - 1), mean(C, 777), variance(C, 777);
  EXPECT_EQ(message_of<ShapeError>([&] {
              bn({x.data(), x_shape}, scale, {}, mean, variance);
            }),
            "batchnorm::BatchNorm: scale has 4 elements, expected C = 5 (x is [2, 5, 3, 4], NCHW)");
  EXPECT_EQ(message_of<ShapeError>([&] {
              bn.output_x({x.data(), {5}}, {}, {}, mean, variance);
            }),
            "batchnorm::BatchNorm: x has rank 1, expected 2 to 5 (x is [5], NCHW)");
  EXPECT_EQ(message_of<ShapeError>([&] {
              bn({x.data(), {2, 5, -1}}, {}, {}, mean, variance);
            }),
            "batchnorm::BatchNorm: x has a negative extent, its shape is [2, 5, -1]");
  const std::int64_t huge = std::int64_t{1} << 40;
  EXPECT_EQ(
      message_of<ShapeError>([&] {
        bn.output_x({x.data(), {huge, 5, huge}}, {}, {}, mean, variance);
      }),
      "batchnorm::BatchNorm: the number of elements of x overflows 64 bits, its shape is [1099511627776, 5, 1099511627776]");
  EXPECT_EQ(message_of<ValueError>([&] {
              bn.output_x({nullptr, {huge, 5}}, {}, {}, mean, variance);
            }),
            "batchnorm::BatchNorm: x has a null pointer for its data, its shape is [1099511627776, 5]");
  EXPECT_EQ(message_of<ValueError>([&] { bn({}, {}, {}, mean, variance); }), "batchnorm::BatchNorm: x is absent");
  EXPECT_EQ(mean, std::vector<float>(C, 777));
}

TEST(PiecesErrors, NameThemselvesInTheirErrors) {
  std::vector<float> x(size), y(size, 777), five(C, 1), four(C - 1, 1);
  const TensorView<const float> input(x.data(), x_shape), variance(five);
  EXPECT_EQ(message_of<ShapeError>([&] {
              batchnorm::moments<float>({x.data(), {5}}, Format::NCHW);
            }),
            "batchnorm::moments: x has rank 1, expected 2 to 5 (x is [5], NCHW)");
  const auto normalize = [&](const TensorView<const float>& mean, double epsilon) {
    batchnorm::normalize<float, float>(Format::NCHW, {.x = input, .mean = mean, .variance = variance}, epsilon,
                                       {y.data(), x_shape});
  };
  EXPECT_EQ(message_of<ShapeError>([&] { normalize(four, 1e-5); }),
            "batchnorm::normalize: mean has 4 elements, expected C = 5 (x is [2, 5, 3, 4], NCHW)");
  EXPECT_EQ(message_of<ValueError>([&] { normalize({}, 1e-5); }), "batchnorm::normalize: mean is absent, normalize needs it");
  EXPECT_EQ(message_of<ValueError>([&] { normalize(five, 0); }), "batchnorm::normalize: epsilon is 0, it must be in (0, 1]");
  const auto with_moments = [&](const Moments& moments) {
    batchnorm::normalize<float, float>(Format::NCHW, {.x = input}, moments, 1e-5, {y.data(), x_shape});
  };
  EXPECT_EQ(message_of<ShapeError>([&] { with_moments(Moments(4)); }),
            "batchnorm::normalize: moments have 4 channels, expected C = 5 (x is [2, 5, 3, 4], NCHW)");
  EXPECT_EQ(message_of<ValueError>([&] { with_moments(Moments(5)); }),
            "batchnorm::normalize: moments are those of no values, they cannot normalise x (x is [2, 5, 3, 4], NCHW)");
  EXPECT_EQ(y, std::vector<float>(size, 777));
  Moments five_moments(C), four_moments(C - 1);
  EXPECT_EQ(message_of<ShapeError>([&] { batchnorm::merge(five_moments, four_moments); }),
            "batchnorm::merge: moments of 4 channels cannot be merged into those of 5");
}

TEST(FinalizeErrors, ChecksItsViews) {
  std::vector<float> a(C, 777), four(C - 1, 777);
  Moments moments(C);
  moments.count = 3;
  const auto error = [&](const batchnorm::StatisticsViews<float>& views, const batchnorm::Options& options = {}) {
    const std::string shape = message_of<ShapeError>([&] { batchnorm::finalize<float>(moments, options, views); });
    return shape.starts_with("<another") ? message_of<ValueError>([&] { batchnorm::finalize<float>(moments, options, views); })
                                         : shape;
  };
  EXPECT_EQ(error({.batch_mean = four}), "batchnorm::finalize: batch_mean has 4 elements, expected C = 5");
  EXPECT_EQ(error({.batch_mean = TensorView<float>(a.data(), {1, 5})}),
            "batchnorm::finalize: batch_mean has shape [1, 5], expected [C] = [5]");
  EXPECT_EQ(error({.running_mean = a}),
            "batchnorm::finalize: running_variance is absent while running_mean is given; they come together");
  EXPECT_EQ(error({.batch_mean = a, .batch_variance = a}),
            "batchnorm::finalize: batch_mean overlaps batch_variance; an output shares no element with another argument");
  EXPECT_EQ(error({.batch_mean = a}, {.epsilon = 2}), "batchnorm::finalize: epsilon is 2, it must be in (0, 1]");
  EXPECT_EQ(error({.batch_mean = a}, {.momentum = 2}), "batchnorm::finalize: momentum is 2, it must be in [0, 1]");
  EXPECT_EQ(a, std::vector<float>(C, 777));
}

TEST(ParseFormat, KnowsTwoNamesAndListsThemOtherwise) {
  EXPECT_EQ(batchnorm::parse_format("NCHW"), Format::NCHW);
  EXPECT_EQ(batchnorm::parse_format("NHWC"), Format::NHWC);
  for (const std::string name : {"nchw", "NCL", "", "NCHW "}) {
    EXPECT_EQ(message_of<ValueError>([&] { batchnorm::parse_format(name); }),
              "batchnorm: unknown format '" + name + "', known are NCHW and NHWC");
  }
}

TEST(ShapeOf, MoreThanEightExtentsIsAnError) {
  EXPECT_EQ(message_of<ShapeError>([] { Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}; }),
            "batchnorm::Shape: rank 9 exceeds the largest, 8");
  EXPECT_EQ(message_of<ShapeError>([] {
              batchnorm::Tensor<float>(Shape{2, -3});
            }),
            "batchnorm::Tensor: the tensor has a negative extent, its shape is [2, -3]");
}

}  // namespace
