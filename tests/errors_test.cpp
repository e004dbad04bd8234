// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/calls.hpp"
#include "support/messages.hpp"

// Every error of the operator with its whole text, and that nothing is written when it is thrown.
namespace {

using namespace support;
using batchnorm::ShapeError;
using batchnorm::TensorView;
using batchnorm::ValueError;

constexpr std::int64_t C = 64;
const Shape x_shape{8, C, 14, 14};

/// A right call of the operator in training, to be made wrong in one place.
struct Arguments {
  Format format = Format::NCHW;
  batchnorm::Options options{.is_training = true};
  batchnorm::CallOptions call{};
  std::vector<float> buffer = std::vector<float>(4 * 8 * 64 * 14 * 14, 777);  // x, residual, y and some room
  std::vector<float> channels = std::vector<float>(10 * C, 777);

  TensorView<const float> x{at(0), x_shape};
  TensorView<const float> residual{at(100352), x_shape};
  TensorView<const float> scale = vector(0), bias = vector(1);
  TensorView<float> mean = vector(2), variance = vector(3);
  batchnorm::OutputViews<float, float> out{{at(2 * 100352), x_shape}, vector(4), vector(5), vector(6), vector(7)};

  float* at(std::int64_t i) { return buffer.data() + i; }
  TensorView<float> vector(std::int64_t i) { return {channels.data() + i * C, Shape{C}}; }
  TensorView<float> vector_of(const Shape& shape) { return {channels.data() + 8 * C, shape}; }

  Arguments() = default;
  Arguments(const Arguments&) = delete;  // the views point into this object
  Arguments& operator=(const Arguments&) = delete;

  void run() {
    batchnorm::batch_norm<float>(format, options, x, scale, bias, mean, variance, out, LeakySum<float>{residual, {}}, call);
  }
};

using Spoil = std::function<void(Arguments&)>;

/// The message of an Error from the call made wrong by `spoil`, which must leave every buffer as it was.
template <class Error>
void expect_error(const std::string& message, const Spoil& spoil) {
  Arguments arguments;
  spoil(arguments);
  const auto buffer = arguments.buffer, channels = arguments.channels;
  EXPECT_EQ(message_of<Error>([&] { arguments.run(); }), "batchnorm::BatchNorm: " + message);
  EXPECT_TRUE(same_bits(arguments.buffer, buffer) && same_bits(arguments.channels, channels)) << "something was written";
}

const std::string about_x = " (x is [8, 64, 14, 14], NCHW)";

TEST(Errors, TheCallThatIsSpoiltBelowIsRight) { Arguments().run(); }

TEST(Errors, EpsilonOutOfRange) {
  const std::pair<double, std::string> wrong[] = {{0.0, "0"},
                                                  {-1.0, "-1"},
                                                  {1.5, "1.5"},
                                                  {1.0000000000000002, "1.0000000000000002"},
                                                  {std::numeric_limits<double>::quiet_NaN(), "nan"},
                                                  {std::numeric_limits<double>::infinity(), "inf"}};
  for (const auto& [epsilon, text] : wrong) {
    const std::string message = "epsilon is " + text + ", it must be in (0, 1]";
    EXPECT_EQ(message_of<ValueError>([value = epsilon] { batchnorm::BatchNorm<float>(true, value); }),
              "batchnorm::BatchNorm: " + message);
    expect_error<ValueError>(message, [value = epsilon](Arguments& a) { a.options.epsilon = value; });
  }
  EXPECT_NO_THROW(batchnorm::BatchNorm<float>(true, 1.0));
  EXPECT_NO_THROW(batchnorm::BatchNorm<float>(true, std::numeric_limits<double>::denorm_min()));
}

TEST(Errors, MomentumOutOfRange) {
  const std::pair<double, std::string> wrong[] = {{-0.1, "-0.1"},
                                                  {1.1, "1.1"},
                                                  {std::numeric_limits<double>::quiet_NaN(), "nan"},
                                                  {-std::numeric_limits<double>::infinity(), "-inf"}};
  for (const auto& [momentum, text] : wrong) {
    const std::string message = "momentum is " + text + ", it must be in [0, 1]";
    for (const bool is_training : {true, false}) {
      EXPECT_EQ(message_of<ValueError>([&, value = momentum] { batchnorm::BatchNorm<float>(is_training, 1e-5, value); }),
                "batchnorm::BatchNorm: " + message);
    }
    expect_error<ValueError>(message, [value = momentum](Arguments& a) { a.options.momentum = value; });
  }
  EXPECT_NO_THROW(batchnorm::BatchNorm<float>(true, 1e-5, 0.0));
  EXPECT_NO_THROW(batchnorm::BatchNorm<float>(true, 1e-5, 1.0));
}

TEST(Errors, BatchNumberBelowZero) {
  expect_error<ValueError>("batch_number is -1, it must be 0 (use momentum) or count from 1",
                           [](Arguments& a) { a.call.batch_number = -1; });
}

TEST(Errors, RankOfXOutOfRange) {
  expect_error<ShapeError>("x has rank 0, expected 2 to 5", [](Arguments& a) { a.x = {a.x.data(), {}}; });
  for (const Shape& shape : {Shape{64}, Shape{1, 64, 1, 1, 1, 1}}) {
    expect_error<ShapeError>(
        "x has rank " + std::to_string(shape.rank()) + ", expected 2 to 5 (x is " + to_string(shape) + ", NCHW)",
        [&](Arguments& a) {
          a.x = {a.x.data(), shape};
        });
  }
}

TEST(Errors, ExtentOfXNegativeOrTooLarge) {
  expect_error<ShapeError>("x has a negative extent, its shape is [8, 64, -14, 14]", [](Arguments& a) {
    a.x = {a.x.data(), {8, 64, -14, 14}};
  });
  expect_error<ShapeError>("the number of elements of x overflows 64 bits, its shape is [4294967296, 64, 4294967296]",
                           [](Arguments& a) {
                             a.x = {a.x.data(), {std::int64_t{1} << 32, 64, std::int64_t{1} << 32}};
                           });
}

TEST(Errors, ArgumentsThatMustBeGiven) {
  expect_error<ValueError>("x is absent", [](Arguments& a) { a.x = {}; });
  expect_error<ValueError>("output_x is absent", [](Arguments& a) { a.out.output_x = {}; });
  expect_error<ValueError>("residual is absent", [](Arguments& a) { a.residual = {}; });
  expect_error<ValueError>("variance is absent while mean is given; they come together", [](Arguments& a) { a.variance = {}; });
  expect_error<ValueError>("mean is absent while variance is given; they come together", [](Arguments& a) { a.mean = {}; });
  expect_error<ValueError>("mean is absent, inference normalises with it", [](Arguments& a) {
    a.options.is_training = false;
    a.mean = {}, a.variance = {};
  });
}

/// spoil(arguments, view) for each argument of shape [C], with its name.
void for_each_channel_vector(
    const std::function<void(const std::string&, const std::function<void(Arguments&, const TensorView<float>&)>&)>& body) {
  body("scale", [](Arguments& a, const TensorView<float>& view) { a.scale = view; });
  body("bias", [](Arguments& a, const TensorView<float>& view) { a.bias = view; });
  body("mean", [](Arguments& a, const TensorView<float>& view) { a.mean = view; });
  body("variance", [](Arguments& a, const TensorView<float>& view) { a.variance = view; });
  body("batch_mean", [](Arguments& a, const TensorView<float>& view) { a.out.batch_mean = view; });
  body("batch_variance", [](Arguments& a, const TensorView<float>& view) { a.out.batch_variance = view; });
  body("reserve_space_1", [](Arguments& a, const TensorView<float>& view) { a.out.reserve_space_1 = view; });
  body("reserve_space_2", [](Arguments& a, const TensorView<float>& view) { a.out.reserve_space_2 = view; });
}

TEST(Errors, ChannelVectorOfAnotherShape) {
  for_each_channel_vector([](const std::string& name, const auto& put) {
    for (const std::int64_t length : {63, 65, 0, 1}) {
      expect_error<ShapeError>(name + " has " + std::to_string(length) + " elements, expected C = 64" + about_x,
                               [&](Arguments& a) { put(a, a.vector_of({length})); });
    }
    for (const Shape& shape : {Shape{}, Shape{1, 64}, Shape{64, 1}}) {
      expect_error<ShapeError>(name + " has shape " + to_string(shape) + ", expected [C] = [64]" + about_x,
                               [&](Arguments& a) { put(a, a.vector_of(shape)); });
    }
  });
}

TEST(Errors, ChannelsAreCountedAlongTheAxisOfTheFormat) {
  expect_error<ShapeError>("scale has 64 elements, expected C = 14 (x is [8, 64, 14, 14], NHWC)",
                           [](Arguments& a) { a.format = Format::NHWC; });
}

TEST(Errors, ChannelVectorWithoutOrWithUnusableData) {
  for_each_channel_vector([](const std::string& name, const auto& put) {
    expect_error<ValueError>(name + " has a null pointer for its data, its shape is [64]",
                             [&](Arguments& a) { put(a, TensorView<float>(nullptr, {C})); });
    expect_error<ValueError>(name + " is misaligned: its address is not a multiple of 4, the alignment of float",
                             [&](Arguments& a) {
                               put(a, {reinterpret_cast<float*>(reinterpret_cast<char*>(a.vector_of({C}).data()) + 2), {C}});
                             });
    expect_error<ValueError>(name + " has stride 2, the elements of a channel vector must lie next to each other",
                             [&](Arguments& a) { put(a, TensorView<float>(a.vector_of({C}).data(), {C}, {2})); });
  });
}

TEST(Errors, TensorOfAnotherShape) {
  for (const Shape& shape : {Shape{8, 64, 14}, Shape{8, 64, 14, 15}, Shape{8, 14, 14, 64}, Shape{}}) {
    expect_error<ShapeError>("output_x has shape " + to_string(shape) + ", expected the shape of x" + about_x,
                             [&](Arguments& a) {
                               a.out.output_x = {a.out.output_x.data(), shape};
                             });
    expect_error<ShapeError>("residual has shape " + to_string(shape) + ", expected the shape of x" + about_x,
                             [&](Arguments& a) {
                               a.residual = {a.residual.data(), shape};
                             });
  }
}

TEST(Errors, TensorWithoutOrWithUnusableData) {
  const auto odd = [](const float* p) { return reinterpret_cast<float*>(reinterpret_cast<std::uintptr_t>(p) + 1); };
  const std::string null = " has a null pointer for its data, its shape is [8, 64, 14, 14]";
  const std::string misaligned = " is misaligned: its address is not a multiple of 4, the alignment of float";
  expect_error<ValueError>("x" + null, [](Arguments& a) { a.x = {nullptr, x_shape}; });
  expect_error<ValueError>("output_x" + null, [](Arguments& a) { a.out.output_x = {nullptr, x_shape}; });
  expect_error<ValueError>("residual" + null, [](Arguments& a) { a.residual = {nullptr, x_shape}; });
  expect_error<ValueError>("x" + misaligned, [&](Arguments& a) { a.x = {odd(a.x.data()), x_shape}; });
  expect_error<ValueError>("output_x" + misaligned, [&](Arguments& a) {
    a.out.output_x = {odd(a.out.output_x.data()), x_shape};
  });
  expect_error<ValueError>("residual" + misaligned, [&](Arguments& a) { a.residual = {odd(a.residual.data()), x_shape}; });
}

TEST(Errors, StridesThatNoLayoutServes) {
  expect_error<ValueError>(
      "x has strides [12544, 196, 14, 2]; supported are tensors where the channels of a position, or the values "
      "along the last spatial axis, lie next to each other" +
          about_x,
      [](Arguments& a) {
        a.x = {a.x.data(), x_shape, {12544, 196, 14, 2}};
      });
  // Each is a layout of its own, but not that of x.
  expect_error<ValueError>(
      "output_x has strides [12544, 1, 896, 64], which is another memory layout than that of x (the values "
      "along the last spatial axis next to each other)" +
          about_x,
      [](Arguments& a) {
        a.out.output_x = {a.out.output_x.data(), x_shape, {12544, 1, 896, 64}};
      });
  expect_error<ValueError>(
      "output_x has strides [12544, 196, 14, 1], which is another memory layout than that of x (the channels "
      "of a position next to each other)" +
          about_x,
      [](Arguments& a) {
        a.x = {a.x.data(), x_shape, {12544, 1, 896, 64}};
      });
}

// Found by the undefined-behaviour sanitizer: distances in bytes overflowed, and one such output was accepted.
TEST(Errors, StridesBeyondAnyMemory) {
  for (const std::int64_t stride : {INT64_MAX, INT64_MIN, INT64_MAX / 4, -(INT64_MAX / 8)}) {
    for (const int axis : {0, 1, 2, 3}) {
      batchnorm::Strides strides = batchnorm::dense_strides(x_shape);
      strides[static_cast<std::size_t>(axis)] = stride;
      std::string text = "[";
      for (int i = 0; i < 4; ++i) text += (i == 0 ? "" : ", ") + std::to_string(strides[static_cast<std::size_t>(i)]);
      const std::string message = " has strides " + text + "], which reach beyond any memory" + about_x;
      expect_error<ValueError>("x" + message, [&](Arguments& a) { a.x = {a.x.data(), x_shape, strides}; });
      expect_error<ValueError>("output_x" + message, [&](Arguments& a) {
        a.out.output_x = {a.out.output_x.data(), x_shape, strides};
      });
    }
  }
}

}  // namespace
