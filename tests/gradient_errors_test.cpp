// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/gradient_calls.hpp"
#include "support/messages.hpp"

// Every error of the gradients with its whole text, and that nothing is written when it is thrown.
namespace {

using namespace support;
using batchnorm::GradientSums;
using batchnorm::Moments;
using batchnorm::ShapeError;
using batchnorm::TensorView;
using batchnorm::ValueError;

constexpr std::int64_t C = 6, size = 4 * C * 3 * 2;
const Shape x_shape{4, C, 3, 2};
const std::string about_x = " (x is [4, 6, 3, 2], NCHW)";

/// Every argument of both calls, all of them right, from one buffer; a test makes one of them wrong.
struct Arguments {
  std::vector<float> buffer = std::vector<float>(8 * size, 777);
  std::vector<float> channels = std::vector<float>(20 * C, 777);
  std::vector<std::uint8_t> bits = std::vector<std::uint8_t>(64, 0x55);

  Format format = Format::NCHW;
  batchnorm::Options options{.is_training = true};
  TensorView<const float> x = tensor(0), dy = tensor(1), y = tensor(2), ddx = tensor(3);
  TensorView<const float> scale = vector(0), mean = vector(1), variance = vector(2), ddscale = vector(3), ddbias = vector(4);
  TensorView<const std::uint8_t> mask{bits.data(), Shape{size / 8}};
  double slope = 0.25;
  batchnorm::GradientViews<float, float> out{tensor(4), vector(5), vector(6), tensor(5)};
  batchnorm::DoubleGradientViews<float, float> double_out{tensor(6), tensor(7), vector(7)};

  Arguments() = default;
  Arguments(const Arguments&) = delete;  // the views point into this object
  Arguments& operator=(const Arguments&) = delete;

  TensorView<float> tensor(std::int64_t i) { return shifted(i * size); }
  TensorView<float> shifted(std::int64_t first) { return {buffer.data() + first, x_shape}; }
  TensorView<float> vector(std::int64_t i) { return {channels.data() + 2 * i * C, Shape{C}}; }
  TensorView<float> vector_of(const Shape& shape) { return {channels.data() + 18 * C, shape}; }

  void backward_through_mask() {
    batchnorm::batch_norm_backward<float>(format, options, dy, x, scale, mean, variance, out, ThroughLeakyMask{mask, {slope}});
  }
  void backward_through_output() {
    batchnorm::batch_norm_backward<float>(format, options, dy, x, scale, mean, variance, out,
                                          ThroughLeakyOutput<float>{y, {slope}});
  }
  void double_backward() {
    batchnorm::batch_norm_double_backward<float>(format, options,
                                                 {.dy = dy,
                                                  .x = x,
                                                  .scale = scale,
                                                  .mean = mean,
                                                  .variance = variance,
                                                  .ddx = ddx,
                                                  .ddscale = ddscale,
                                                  .ddbias = ddbias},
                                                 double_out);
  }
};

using Spoil = std::function<void(Arguments&)>;
using Member = void (Arguments::*)();

/// The message of an Error from the call made wrong by `spoil`, which must leave every buffer as it was.
template <class Error>
void expect_error(Member run, const std::string& call, const std::string& message, const Spoil& spoil) {
  Arguments arguments;
  spoil(arguments);
  const auto buffer = arguments.buffer, channels = arguments.channels;
  EXPECT_EQ(message_of<Error>([&] { (arguments.*run)(); }), call + message);
  EXPECT_TRUE(same_bits(arguments.buffer, buffer) && same_bits(arguments.channels, channels)) << "something was written";
}

template <class Error>
void expect_backward_error(const std::string& message, const Spoil& spoil) {
  expect_error<Error>(&Arguments::backward_through_mask, "batchnorm::BatchNorm::backward: ", message, spoil);
}

template <class Error>
void expect_double_error(const std::string& message, const Spoil& spoil) {
  expect_error<Error>(&Arguments::double_backward, "batchnorm::BatchNorm::double_backward: ", message, spoil);
}

template <class Error>
void expect_error_of_both(const std::string& message, const Spoil& spoil) {
  expect_backward_error<Error>(message, spoil);
  expect_double_error<Error>(message, spoil);
}

void expect_accepted(const Spoil& spoil) {
  for (const Member run :
       {&Arguments::backward_through_mask, &Arguments::backward_through_output, &Arguments::double_backward}) {
    Arguments arguments;
    spoil(arguments);
    EXPECT_EQ(message_of<ValueError>([&] { (arguments.*run)(); }), "<no exception>");
  }
}

TEST(GradientErrors, TheCallsThatAreSpoiltBelowAreRight) {
  expect_accepted([](Arguments&) {});
}

TEST(GradientErrors, OptionsOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [epsilon, text] : {std::pair{0.0, "0"}, {-1.0, "-1"}, {1.5, "1.5"}, {nan, "nan"}}) {
    expect_error_of_both<ValueError>("epsilon is " + std::string(text) + ", it must be in (0, 1]",
                                     [value = epsilon](Arguments& a) { a.options.epsilon = value; });
  }
}

TEST(GradientErrors, RankOrExtentsOfX) {
  for (const Shape& shape : {Shape{size}, Shape{1, C, 1, 1, 1, 1}}) {
    expect_error_of_both<ShapeError>(
        "x has rank " + std::to_string(shape.rank()) + ", expected 2 to 5 (x is " + to_string(shape) + ", NCHW)",
        [&](Arguments& a) {
          a.x = {a.x.data(), shape};
        });
  }
  expect_error_of_both<ShapeError>("x has a negative extent, its shape is [4, 6, -3, 2]", [](Arguments& a) {
    a.x = {a.x.data(), {4, C, -3, 2}};
  });
}

TEST(GradientErrors, ArgumentsThatMustBeGiven) {
  expect_error_of_both<ValueError>("x is absent", [](Arguments& a) { a.x = {}; });
  expect_error_of_both<ValueError>("dy is absent", [](Arguments& a) { a.dy = {}; });
  for (const bool is_training : {true, false}) {
    expect_error_of_both<ValueError>("mean is absent, the gradient needs it", [&](Arguments& a) {
      a.options.is_training = is_training;
      a.mean = {};
    });
    expect_error_of_both<ValueError>("variance is absent, the gradient needs it", [&](Arguments& a) {
      a.options.is_training = is_training;
      a.variance = {};
    });
  }
  expect_backward_error<ValueError>("mask is absent, it tells where dy passes the activation",
                                    [](Arguments& a) { a.mask = {}; });
  expect_error<ValueError>(&Arguments::backward_through_output, "batchnorm::BatchNorm::backward: ", "y is absent",
                           [](Arguments& a) { a.y = {}; });
}

TEST(GradientErrors, WhatMayBeAbsentIsNoError) {
  expect_accepted([](Arguments& a) {
    a.scale = a.ddx = a.ddscale = a.ddbias = {};
    a.out = {}, a.double_out = {};
  });
}

/// body(name, put(arguments, view)) for each argument of shape [C] of a call.
using Put = std::function<void(Arguments&, const TensorView<float>&)>;
const std::vector<std::pair<std::string, Put>> backward_vectors{
    {"scale", [](Arguments& a, const TensorView<float>& view) { a.scale = view; }},
    {"mean", [](Arguments& a, const TensorView<float>& view) { a.mean = view; }},
    {"variance", [](Arguments& a, const TensorView<float>& view) { a.variance = view; }},
    {"dscale", [](Arguments& a, const TensorView<float>& view) { a.out.dscale = view; }},
    {"dbias", [](Arguments& a, const TensorView<float>& view) { a.out.dbias = view; }}};
const std::vector<std::pair<std::string, Put>> double_backward_vectors{
    {"scale", [](Arguments& a, const TensorView<float>& view) { a.scale = view; }},
    {"mean", [](Arguments& a, const TensorView<float>& view) { a.mean = view; }},
    {"variance", [](Arguments& a, const TensorView<float>& view) { a.variance = view; }},
    {"ddscale", [](Arguments& a, const TensorView<float>& view) { a.ddscale = view; }},
    {"ddbias", [](Arguments& a, const TensorView<float>& view) { a.ddbias = view; }},
    {"dscale", [](Arguments& a, const TensorView<float>& view) { a.double_out.dscale = view; }}};

/// body(expects, name, put) for each argument of shape [C] of both calls.
template <class Body>
void for_each_vector(Body&& body) {
  for (const auto& [name, put] : backward_vectors) {
    body([](auto error, const std::string& message,
            const Spoil& spoil) { expect_backward_error<decltype(error)>(message, spoil); },
         name, put);
  }
  for (const auto& [name, put] : double_backward_vectors) {
    body([](auto error, const std::string& message,
            const Spoil& spoil) { expect_double_error<decltype(error)>(message, spoil); },
         name, put);
  }
}

// What the lambdas above know an error by.
const ShapeError shape_error("");
const ValueError value_error("");

TEST(GradientErrors, ChannelVectorOfAnotherShapeOrWithUnusableData) {
  for_each_vector([](const auto& expect, const std::string& name, const Put& put) {
    for (const std::int64_t length : {5, 7, 0}) {
      expect(shape_error, name + " has " + std::to_string(length) + " elements, expected C = 6" + about_x,
             [&](Arguments& a) { put(a, a.vector_of({length})); });
    }
    expect(shape_error, name + " has shape [1, 6], expected [C] = [6]" + about_x, [&](Arguments& a) {
      put(a, a.vector_of({1, C}));
    });
    expect(value_error, name + " has a null pointer for its data, its shape is [6]",
           [&](Arguments& a) { put(a, TensorView<float>(nullptr, {C})); });
    expect(value_error, name + " is misaligned: its address is not a multiple of 4, the alignment of float", [&](Arguments& a) {
      put(a, {reinterpret_cast<float*>(reinterpret_cast<char*>(a.vector_of({C}).data()) + 2), {C}});
    });
    expect(value_error, name + " has stride 2, the elements of a channel vector must lie next to each other",
           [&](Arguments& a) { put(a, TensorView<float>(a.vector_of({C}).data(), {C}, {2})); });
  });
}

TEST(GradientErrors, ChannelsAreCountedAlongTheAxisOfTheFormat) {
  expect_error_of_both<ShapeError>("mean has 6 elements, expected C = 2 (x is [4, 6, 3, 2], NHWC)",
                                   [](Arguments& a) { a.format = Format::NHWC; });
}

const std::vector<std::pair<std::string, Put>> backward_tensors{
    {"dy", [](Arguments& a, const TensorView<float>& view) { a.dy = view; }},
    {"dx", [](Arguments& a, const TensorView<float>& view) { a.out.dx = view; }},
    {"dresidual", [](Arguments& a, const TensorView<float>& view) { a.out.dresidual = view; }}};
const std::vector<std::pair<std::string, Put>> double_backward_tensors{
    {"dy", [](Arguments& a, const TensorView<float>& view) { a.dy = view; }},
    {"ddx", [](Arguments& a, const TensorView<float>& view) { a.ddx = view; }},
    {"dx", [](Arguments& a, const TensorView<float>& view) { a.double_out.dx = view; }},
    {"ddy", [](Arguments& a, const TensorView<float>& view) { a.double_out.ddy = view; }}};

/// expect(error, message, spoil) for a tensor of the shape of x.
template <class Expect>
void expect_tensor_errors(const Expect& expect, const std::string& name, const Put& put) {
  const auto free = [](Arguments& a) { return a.tensor(7).data(); };
  for (const Shape& shape : {Shape{4, C, 3}, Shape{4, C, 3, 3}, Shape{4, 3, 2, C}, Shape{}}) {
    expect(shape_error, name + " has shape " + to_string(shape) + ", expected the shape of x" + about_x, [&](Arguments& a) {
      put(a, {free(a), shape});
    });
  }
  expect(value_error, name + " has a null pointer for its data, its shape is [4, 6, 3, 2]", [&](Arguments& a) {
    put(a, {nullptr, x_shape});
  });
  expect(value_error, name + " is misaligned: its address is not a multiple of 4, the alignment of float", [&](Arguments& a) {
    put(a, {reinterpret_cast<float*>(reinterpret_cast<char*>(free(a)) + 1), x_shape});
  });
  expect(value_error,
         name +
             " has strides [36, 1, 12, 6], which is another memory layout than that of x (the values along the last spatial "
             "axis next to each other)" +
             about_x,
         [&](Arguments& a) {
           put(a, {free(a), x_shape, {36, 1, 12, 6}});
         });
}

TEST(GradientErrors, TensorOfAnotherShapeOrLayoutOrWithUnusableData) {
  for (const auto& [name, put] : backward_tensors) {
    expect_tensor_errors([](auto error, const std::string& message,
                            const Spoil& spoil) { expect_backward_error<decltype(error)>(message, spoil); },
                         name, put);
  }
  for (const auto& [name, put] : double_backward_tensors) {
    expect_tensor_errors([](auto error, const std::string& message,
                            const Spoil& spoil) { expect_double_error<decltype(error)>(message, spoil); },
                         name, put);
  }
  const Put put_y = [](Arguments& a, const TensorView<float>& view) { a.y = view; };
  expect_tensor_errors(
      [](auto error, const std::string& message, const Spoil& spoil) {
        expect_error<decltype(error)>(&Arguments::backward_through_output, "batchnorm::BatchNorm::backward: ", message, spoil);
      },
      "y", put_y);
  expect_error_of_both<ValueError>("x has a null pointer for its data, its shape is [4, 6, 3, 2]", [](Arguments& a) {
    a.x = {nullptr, x_shape};
  });
  expect_error_of_both<ValueError>(
      "x has strides [36, 6, 2, 2]; supported are tensors where the channels of a position, or the values along "
      "the last spatial axis, lie next to each other" +
          about_x,
      [](Arguments& a) {
        a.x = {a.x.data(), x_shape, {36, 6, 2, 2}};
      });
}

TEST(GradientErrors, MaskThatDoesNotFit) {
  for (const Shape& shape : {Shape{17}, Shape{19}, Shape{0}, Shape{size}, Shape{1, 18}, Shape{}}) {
    expect_backward_error<ShapeError>(
        "mask has shape " + to_string(shape) + ", expected [18], a bit for each element" + about_x, [&](Arguments& a) {
          a.mask = {a.bits.data(), shape};
        });
  }
  expect_backward_error<ValueError>("mask has a null pointer for its data", [](Arguments& a) {
    a.mask = {nullptr, {size / 8}};
  });
  expect_backward_error<ValueError>("mask has gaps, its bytes must lie next to each other", [](Arguments& a) {
    a.mask = {a.bits.data(), {size / 8}, {2}};
  });
}

TEST(GradientErrors, SlopeThatHidesThePieces) {
  for (const double slope : {-0.01, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    for (const Member run : {&Arguments::backward_through_mask, &Arguments::backward_through_output}) {
      expect_error<ValueError>(
          run, "batchnorm::BatchNorm::backward: ", "gradients cannot pass the activation: its slope must be at least 0",
          [&](Arguments& a) { a.slope = slope; });
    }
  }
}

const std::string no_overlap = "; an output shares no element with another argument";
const std::string only_dy = "; allowed is only dx or dresidual in place of dy, with the same strides";

TEST(GradientOverlap, OfATensorWithAnotherIsRefused) {
  for (const std::int64_t shift : {0, 1, -1, 35}) {
    const auto over = [shift](Arguments& a, std::int64_t i) { return a.shifted(i * size + shift); };
    expect_backward_error<ValueError>("dx overlaps x" + only_dy,
                                      [&](Arguments& a) { a.x = a.tensor(1), a.dy = a.tensor(3), a.out.dx = over(a, 1); });
    expect_backward_error<ValueError>("dresidual overlaps x" + only_dy, [&](Arguments& a) {
      a.x = a.tensor(1), a.dy = a.tensor(3), a.out.dresidual = over(a, 1);
    });
    expect_backward_error<ValueError>("dx overlaps dresidual" + only_dy,
                                      [&](Arguments& a) { a.out.dx = a.tensor(6), a.out.dresidual = over(a, 6); });
    expect_double_error<ValueError>("dx overlaps ddy" + no_overlap, [&](Arguments& a) {
      a.double_out = {a.tensor(5), over(a, 5), a.vector(7)};
    });
    for (const bool of_ddy : {true, false}) {
      const std::string name = of_ddy ? "ddy" : "dx";
      const auto put = [&](Arguments& a, const TensorView<float>& view) {
        (of_ddy ? a.double_out.ddy : a.double_out.dx) = view;
      };
      expect_double_error<ValueError>(name + " overlaps x" + no_overlap,
                                      [&](Arguments& a) { a.x = a.tensor(4), put(a, over(a, 4)); });
      expect_double_error<ValueError>(name + " overlaps dy" + no_overlap,
                                      [&](Arguments& a) { a.dy = a.tensor(4), put(a, over(a, 4)); });
      expect_double_error<ValueError>(name + " overlaps ddx" + no_overlap,
                                      [&](Arguments& a) { a.ddx = a.tensor(4), put(a, over(a, 4)); });
    }
  }
  expect_error<ValueError>(&Arguments::backward_through_output, "batchnorm::BatchNorm::backward: ", "dx overlaps y" + only_dy,
                           [](Arguments& a) { a.out.dx = a.tensor(2); });
}

TEST(GradientOverlap, InThePlaceOfDyIsAcceptedAndBesideItRefused) {
  for (const Member run : {&Arguments::backward_through_mask, &Arguments::backward_through_output}) {
    for (const bool of_dx : {true, false}) {
      Arguments arguments;
      (of_dx ? arguments.out.dx : arguments.out.dresidual) = arguments.tensor(1);
      EXPECT_EQ(message_of<ValueError>([&] { (arguments.*run)(); }), "<no exception>");
    }
  }
  for (const std::int64_t shift : {1, -1, 35}) {
    expect_backward_error<ValueError>("dx overlaps dy" + only_dy,
                                      [&](Arguments& a) { a.dy = a.tensor(6), a.out.dx = a.shifted(6 * size + shift); });
    expect_backward_error<ValueError>("dresidual overlaps dy" + only_dy,
                                      [&](Arguments& a) { a.dy = a.tensor(6), a.out.dresidual = a.shifted(6 * size + shift); });
  }
  expect_backward_error<ValueError>("dx overlaps dy" + only_dy, [](Arguments& a) {
    a.out.dx = {a.buffer.data() + size, x_shape, {37, 6, 2, 1}};  // the same place, other strides
  });
}

TEST(GradientOverlap, OfVectorsIsRefused) {
  expect_backward_error<ValueError>("dscale overlaps dbias" + no_overlap, [](Arguments& a) { a.out.dbias = a.out.dscale; });
  for (const auto& [name, put] : {backward_vectors[0], backward_vectors[1], backward_vectors[2]}) {
    expect_backward_error<ValueError>("dscale overlaps " + name + no_overlap,
                                      [&, to = put](Arguments& a) { to(a, TensorView<float>(a.out.dscale.data() + 1, {C})); });
    expect_backward_error<ValueError>("dbias overlaps " + name + no_overlap,
                                      [&, to = put](Arguments& a) { to(a, a.out.dbias); });
  }
  for (const auto& [name, put] : {double_backward_vectors[0], double_backward_vectors[1], double_backward_vectors[2],
                                  double_backward_vectors[3], double_backward_vectors[4]}) {
    expect_double_error<ValueError>("dscale overlaps " + name + no_overlap,
                                    [&, to = put](Arguments& a) { to(a, a.double_out.dscale); });
  }
  // An output inside a tensor.
  expect_backward_error<ValueError>("dscale overlaps dy" + no_overlap, [](Arguments& a) {
    a.out.dscale = {a.buffer.data() + size + 3, {C}};
  });
  expect_backward_error<ValueError>("dx overlaps dbias" + no_overlap, [](Arguments& a) {
    a.out.dbias = {a.buffer.data() + 4 * size + 3, {C}};
  });
}

TEST(GradientOverlap, OfInputsIsAccepted) {
  expect_accepted([](Arguments& a) { a.dy = a.y = a.ddx = a.x; });
  expect_accepted([](Arguments& a) { a.scale = a.mean = a.variance = a.ddscale = a.ddbias = a.vector(0); });
}

TEST(GradientOverlap, OfAnOutputWithItselfIsRefused) {
  for (const batchnorm::Strides& strides : {batchnorm::Strides{0, 6, 2, 1}, {36, 0, 2, 1}, {35, 6, 2, 1}}) {
    expect_backward_error<ValueError>("dx overlaps itself: its strides put several elements in one place", [&](Arguments& a) {
      a.out.dx = {a.out.dx.data(), x_shape, strides};
    });
    expect_double_error<ValueError>("ddy overlaps itself: its strides put several elements in one place", [&](Arguments& a) {
      a.double_out.ddy = {a.double_out.ddy.data(), x_shape, strides};
    });
  }
}

TEST(GradientErrors, OfOwnedOutputsAreThoseOfTheCallersOwn) {
  const batchnorm::BatchNorm<float> bn(true);
  Arguments a;
  const std::vector<float> five(C - 1);
  EXPECT_EQ(message_of<ShapeError>([&] { bn.backward(a.dy, a.x, five, a.mean, a.variance); }),
            "batchnorm::BatchNorm::backward: scale has 5 elements, expected C = 6" + about_x);
  EXPECT_EQ(message_of<ShapeError>(
                [&] { bn.double_backward({.dy = a.dy, .x = a.x, .scale = a.scale, .mean = a.mean, .variance = five}); }),
            "batchnorm::BatchNorm::double_backward: variance has 5 elements, expected C = 6" + about_x);
  const std::int64_t huge = std::int64_t{1} << 40;
  const TensorView<const float> too_large(a.x.data(), {huge, C, huge});
  const std::string overflow = "the number of elements of x overflows 64 bits, its shape is [1099511627776, 6, 1099511627776]";
  EXPECT_EQ(message_of<ShapeError>([&] { bn.backward(a.dy, too_large, a.scale, a.mean, a.variance); }),
            "batchnorm::BatchNorm::backward: " + overflow);
  EXPECT_EQ(message_of<ShapeError>([&] {
              bn.double_backward({.dy = a.dy, .x = too_large, .scale = a.scale, .mean = a.mean, .variance = a.variance});
            }),
            "batchnorm::BatchNorm::double_backward: " + overflow);
  EXPECT_EQ(message_of<ValueError>([&] { bn.backward(a.dy, {}, a.scale, a.mean, a.variance); }),
            "batchnorm::BatchNorm::backward: x is absent");
  EXPECT_EQ(message_of<ValueError>(
                [&] { bn.double_backward({.dy = a.dy, .x = {}, .scale = a.scale, .mean = a.mean, .variance = a.variance}); }),
            "batchnorm::BatchNorm::double_backward: x is absent");
}

TEST(GradientPiecesErrors, NameThemselves) {
  Arguments a;
  const std::vector<float> five(C - 1);
  const TensorView<const float> short_mean(five), no_vector;
  const auto sums_of = [&](const TensorView<const float>& mean) {
    batchnorm::gradient_sums<float, float>(Format::NCHW, {.dy = a.dy, .x = a.x, .mean = mean});
  };
  EXPECT_EQ(message_of<ShapeError>([&] { sums_of(short_mean); }),
            "batchnorm::gradient_sums: mean has 5 elements, expected C = 6" + about_x);
  EXPECT_EQ(message_of<ValueError>([&] { sums_of(no_vector); }),
            "batchnorm::gradient_sums: mean is absent, it is subtracted from x");
  EXPECT_EQ(message_of<ValueError>(
                [&] { batchnorm::gradient_sums<float, float>(Format::NCHW, {.dy = {}, .x = a.x, .mean = a.mean}); }),
            "batchnorm::gradient_sums: dy is absent");
  EXPECT_EQ(
      message_of<ShapeError>([&] { batchnorm::gradient_sums<float>(Format::NCHW, {.dy = a.dy, .x = a.x}, Moments(C - 1)); }),
      "batchnorm::gradient_sums: moments have 5 channels, expected C = 6" + about_x);

  GradientSums sums(C), five_sums(C - 1);
  const auto gradient_with = [&](const GradientSums& with, double epsilon, const TensorView<const float>& variance) {
    batchnorm::input_gradient<float, float>(
        Format::NCHW, {.dy = a.dy, .x = a.x, .scale = a.scale, .mean = a.mean, .variance = variance}, with, epsilon, a.out);
  };
  EXPECT_EQ(message_of<ValueError>([&] { gradient_with(sums, 1e-5, a.variance); }),
            "batchnorm::input_gradient: sums are those of no values, x has some" + about_x);
  sums.count = 4 * 3 * 2;
  EXPECT_EQ(message_of<ShapeError>([&] { gradient_with(five_sums, 1e-5, a.variance); }),
            "batchnorm::input_gradient: sums have 5 channels, expected C = 6" + about_x);
  EXPECT_EQ(message_of<ValueError>([&] { gradient_with(sums, 0, a.variance); }),
            "batchnorm::input_gradient: epsilon is 0, it must be in (0, 1]");
  EXPECT_EQ(message_of<ValueError>([&] { gradient_with(sums, 1e-5, {}); }),
            "batchnorm::input_gradient: variance is absent, the gradient needs it");
  EXPECT_EQ(message_of<ShapeError>([&] { gradient_with(sums, 1e-5, five); }),
            "batchnorm::input_gradient: variance has 5 elements, expected C = 6" + about_x);
  EXPECT_EQ(message_of<ValueError>([&] {
              batchnorm::input_gradient<float, float>(Format::NCHW, {.dy = a.dy, .x = a.x, .scale = a.scale}, sums, Moments(C),
                                                      1e-5, a.out);
            }),
            "batchnorm::input_gradient: moments are those of no values, they cannot normalise x" + about_x);
  EXPECT_EQ(message_of<ShapeError>([&] { batchnorm::merge(sums, five_sums); }),
            "batchnorm::merge: gradient sums of 5 channels cannot be merged into those of 6");
  EXPECT_EQ(a.buffer, std::vector<float>(8 * size, 777));
  EXPECT_EQ(a.channels, std::vector<float>(20 * C, 777));
}

/// A forward call with a mask, made wrong in one place.
struct MaskedForward {
  std::vector<float> buffer = std::vector<float>(2 * size, 777);
  std::vector<float> mean = std::vector<float>(C, 777), variance = std::vector<float>(C, 777);
  std::vector<std::uint8_t> bits = std::vector<std::uint8_t>(64, 0x55);
  TensorView<std::uint8_t> mask{bits.data(), Shape{size / 8}};

  template <class E>
  void run(const E& epilogue) {
    batchnorm::batch_norm<float>(Format::NCHW, {.is_training = true}, {buffer.data(), x_shape}, {}, {}, mean, variance,
                                 {.output_x = {buffer.data() + size, x_shape}, .mask = mask}, epilogue);
  }
};

template <class Error, class E>
void expect_forward_error(const std::string& message, const E& epilogue, const std::function<void(MaskedForward&)>& spoil) {
  MaskedForward call;
  spoil(call);
  EXPECT_EQ(message_of<Error>([&] { call.run(epilogue); }), "batchnorm::BatchNorm: " + message);
  EXPECT_EQ(call.buffer, std::vector<float>(2 * size, 777)) << "something was written";
  EXPECT_EQ(call.mean, std::vector<float>(C, 777)) << "something was written";
  EXPECT_EQ(call.bits, std::vector<std::uint8_t>(64, 0x55)) << "something was written";
}

TEST(MaskErrors, OfTheForwardPass) {
  const batchnorm::Relu relu;
  const auto right = [](MaskedForward&) {};
  for (const Shape& shape : {Shape{17}, Shape{19}, Shape{1, 18}}) {
    expect_forward_error<ShapeError>("mask has shape " + to_string(shape) + ", expected [18], a bit for each element" + about_x,
                                     relu, [&](MaskedForward& call) {
                                       call.mask = {call.bits.data(), shape};
                                     });
  }
  expect_forward_error<ValueError>("mask has a null pointer for its data", relu, [](MaskedForward& call) {
    call.mask = {nullptr, {size / 8}};
  });
  expect_forward_error<ValueError>("mask has gaps, its bytes must lie next to each other", relu, [](MaskedForward& call) {
    call.mask = {call.bits.data(), {size / 8}, {2}};
  });
  expect_forward_error<ValueError>("mask is given, but the epilogue has no activation that fills one", batchnorm::Identity{},
                                   right);
  std::vector<float> residual(size);
  expect_forward_error<ValueError>("gradients cannot pass the activation: its slope must be at least 0",
                                   LeakySum<float>{{residual.data(), x_shape}, {-0.5}}, right);
  const auto over = [](MaskedForward& call, std::int64_t byte) {
    call.mask = {reinterpret_cast<std::uint8_t*>(call.buffer.data()) + byte, {size / 8}};
  };
  expect_forward_error<ValueError>("mask overlaps x; an output shares no element with another argument", relu,
                                   [&](MaskedForward& call) { over(call, 3); });
  expect_forward_error<ValueError>("output_x overlaps mask; an output shares no element with another argument", relu,
                                   [&](MaskedForward& call) { over(call, 4 * size + 3); });
}

}  // namespace
