// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/c_calls.hpp"

// Activations, residuals, masks and in-place training through the C interface: the bits of the C++ operator, and what is
// refused.
namespace {

using namespace support;
using batchnorm::AddResidual;
using batchnorm::LeakyRelu;
using batchnorm::Relu;
using batchnorm::TensorView;

constexpr double slope = 0.25;

std::int64_t mask_length_of(const Shape& shape) {
  std::int64_t length = -1;
  EXPECT_EQ(c_error(batchnorm_mask_length(shape.rank(), shape.extents().data(), &length)), "");
  return length;
}

/// A training call with a residual, through C and through the template.
template <class T, class P>
struct Training {
  Call<T, P> call;
  std::vector<T> residual, y, want_y;
  std::vector<P> mean, variance, batch_mean, batch_variance, want_batch_mean, want_batch_variance;
  std::vector<std::uint8_t> mask, want_mask;
  batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();

  Training(const Shape& shape, Format format)
      : call(ordinary_call<T, P>(shape, format, true)),
        residual(uniform<T>(element_count(shape), -2, 2, 5)),
        y(call.x.size()),
        want_y(call.x.size()),
        batch_mean(call.scale->size()),
        batch_variance(batch_mean),
        want_batch_mean(batch_mean),
        want_batch_variance(batch_mean),
        mask(static_cast<std::size_t>(mask_length_of(shape))),
        want_mask(mask.size()) {
    set_types_and_shape<T, P>(arguments, call.shape, call.format);
    arguments.x = c_tensor(std::as_const(call.x));
    arguments.scale = c_vector(call.scale);
    arguments.bias = c_vector(call.bias);
    arguments.output_x = c_tensor(y);
    arguments.batch_mean = c_vector(batch_mean);
    arguments.batch_variance = c_vector(batch_variance);
  }
  Training(const Training&) = delete;  // the pointers point into this object
  Training& operator=(const Training&) = delete;

  std::string run_in_c() {
    batchnorm_options options = c_options(call.options);
    return c_error(batchnorm_forward(&options, &arguments));
  }

  template <class E>
  void expect_same(const E& epilogue, bool with_mask) {
    EXPECT_EQ(run_in_c(), "");
    batchnorm::OutputViews<T, P> out{
        .output_x = {want_y.data(), call.shape}, .batch_mean = want_batch_mean, .batch_variance = want_batch_variance};
    if (with_mask) out.mask = want_mask;
    batchnorm::batch_norm<T, P>(call.format, call.options,
                                {.x = {call.x.data(), call.shape}, .scale = view(call.scale), .bias = view(call.bias)}, out,
                                epilogue);
    EXPECT_TRUE(same_bits(y, want_y));
    EXPECT_TRUE(same_bits(batch_mean, want_batch_mean) && same_bits(batch_variance, want_batch_variance));
    EXPECT_TRUE(!with_mask || mask == want_mask);
  }
};

/// The gradients of such a step, through C and through the template.
template <class T, class P>
struct Step {
  Training<T, P>& of;
  std::vector<T> dy, dx, dresidual, want_dx, want_dresidual;
  std::vector<P> dscale, dbias, want_dscale, want_dbias;
  batchnorm_backward_arguments arguments = batchnorm_no_backward_arguments();

  explicit Step(Training<T, P>& training)
      : of(training),
        dy(uniform<T>(element_count(training.call.shape), -1, 1, 9)),
        dx(dy.size()),
        dresidual(dy.size()),
        want_dx(dy.size()),
        want_dresidual(dy.size()),
        dscale(training.batch_mean.size()),
        dbias(dscale),
        want_dscale(dscale),
        want_dbias(dscale) {
    set_types_and_shape<T, P>(arguments, of.call.shape, of.call.format);
    arguments.dy = c_tensor(std::as_const(dy));
    arguments.x = c_tensor(std::as_const(of.call.x));
    arguments.scale = c_vector(of.call.scale);
    arguments.mean = c_vector(std::as_const(of.batch_mean));
    arguments.variance = c_vector(std::as_const(of.batch_variance));
    arguments.dx = c_tensor(dx);
    arguments.dscale = c_vector(dscale);
    arguments.dbias = c_vector(dbias);
    arguments.dresidual = c_tensor(dresidual);
  }
  Step(const Step&) = delete;  // the pointers point into this object
  Step& operator=(const Step&) = delete;

  std::string run_in_c() {
    batchnorm_options options = c_options(of.call.options);
    return c_error(batchnorm_backward(&options, &arguments));
  }

  template <class G>
  void expect_same(const G& through) {
    EXPECT_EQ(run_in_c(), "");
    batchnorm::batch_norm_backward<T, P>(
        of.call.format, of.call.options,
        {.dy = {dy.data(), of.call.shape},
         .x = {of.call.x.data(), of.call.shape},
         .scale = view(of.call.scale),
         .mean = of.batch_mean,
         .variance = of.batch_variance},
        {{want_dx.data(), of.call.shape}, want_dscale, want_dbias, {want_dresidual.data(), of.call.shape}}, through);
    EXPECT_TRUE(same_bits(dx, want_dx) && same_bits(dresidual, want_dresidual));
    EXPECT_TRUE(same_bits(dscale, want_dscale) && same_bits(dbias, want_dbias));
  }
};

template <class Both>
class CInterfaceActivation : public testing::Test {};
TYPED_TEST_SUITE(CInterfaceActivation, EveryTypes, TypesNames);

TYPED_TEST(CInterfaceActivation, ForwardAndBackwardHaveTheBitsOfTheTemplate) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Format format : formats) {
    Training<T, P> step(shape_of(format, 4, 5, 19, 21), format);
    SCOPED_TRACE(to_string(step.call.shape));
    const TensorView<const T> added(step.residual.data(), step.call.shape), y(step.y.data(), step.call.shape);
    auto& forward = step.arguments;
    step.expect_same(batchnorm::Identity{}, false);
    forward.residual = c_tensor(std::as_const(step.residual));
    step.expect_same(AddResidual<T>{added}, false);
    Step<T, P>(step).expect_same(batchnorm::Identity{});

    forward.activation = BATCHNORM_RELU;
    step.expect_same(AddResidual<T, Relu>{added, {}}, false);
    forward.mask = c_vector(step.mask);
    step.expect_same(AddResidual<T, Relu>{added, {}}, true);
    Step<T, P> backward(step);
    backward.arguments.activation = BATCHNORM_RELU;
    backward.arguments.mask = c_vector(std::as_const(step.mask));
    backward.expect_same(batchnorm::ThroughMask<Relu>{step.mask, {}});
    backward.arguments.mask = {};
    backward.arguments.output_x = c_tensor(std::as_const(step.y));
    backward.expect_same(batchnorm::ThroughOutput<T, Relu>{y, {}});

    forward.residual = {};
    forward.activation = backward.arguments.activation = BATCHNORM_LEAKY_RELU;
    forward.slope = backward.arguments.slope = slope;
    step.expect_same(LeakyRelu{slope}, true);
    backward.expect_same(batchnorm::ThroughOutput<T, LeakyRelu>{y, {slope}});
    backward.arguments.output_x = {};
    backward.arguments.mask = c_vector(std::as_const(step.mask));
    backward.expect_same(batchnorm::ThroughMask<LeakyRelu>{step.mask, {slope}});
  }
}

TYPED_TEST(CInterfaceActivation, InPlaceHasTheBitsOfTheTemplate) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto expect = [&]<Format F>(std::integral_constant<Format, F>) {
    auto call = ordinary_call<T, P>(shape_of(F, 4, 5, 19, 21), F, true);
    auto x = call.x, want_x = call.x;
    const std::vector<T> dy = uniform<T>(std::ssize(x), -1, 1, 9);
    std::vector<P> variance(call.scale->size()), want_variance(variance), dscale(variance), want_dscale(variance);
    std::vector<T> dx(x.size()), want_dx(x.size());
    batchnorm_options options = c_options(call.options);

    batchnorm_forward_in_place_arguments forward = batchnorm_no_forward_in_place_arguments();
    set_types_and_shape<T, P>(forward, call.shape, F);
    forward.x = c_tensor(x);
    forward.scale = c_vector(call.scale);
    forward.bias = c_vector(call.bias);
    forward.batch_variance = c_vector(variance);
    forward.slope = slope;
    forward.largest_ratio = 1e4;
    EXPECT_EQ(c_error(batchnorm_forward_in_place(&options, &forward)), "");
    const batchnorm::InPlaceBatchNorm<T, F, P> layer(call.options, {slope}, 1e4);
    layer.forward({.x = {want_x.data(), call.shape},
                   .scale = view(call.scale),
                   .bias = view(call.bias),
                   .batch_variance = want_variance});
    EXPECT_TRUE(same_bits(x, want_x) && same_bits(variance, want_variance));

    batchnorm_backward_in_place_arguments backward = batchnorm_no_backward_in_place_arguments();
    set_types_and_shape<T, P>(backward, call.shape, F);
    backward.dy = c_tensor(dy);
    backward.y = c_tensor(std::as_const(x));
    backward.scale = c_vector(call.scale);
    backward.bias = c_vector(call.bias);
    backward.variance = c_vector(std::as_const(variance));
    backward.dx = c_tensor(dx);
    backward.dscale = c_vector(dscale);
    backward.slope = slope;
    backward.largest_ratio = 1e4;
    EXPECT_EQ(c_error(batchnorm_backward_in_place(&options, &backward)), "");
    layer.backward({.dy = {dy.data(), call.shape},
                    .y = {x.data(), call.shape},
                    .scale = view(call.scale),
                    .bias = view(call.bias),
                    .variance = variance},
                   {.dx = {want_dx.data(), call.shape}, .dscale = want_dscale});
    EXPECT_TRUE(same_bits(dx, want_dx) && same_bits(dscale, want_dscale));
  };
  expect(std::integral_constant<Format, Format::NCHW>());
  expect(std::integral_constant<Format, Format::NHWC>());
}

TEST(CInterfaceActivationCalls, AnEmptyBatchHasGradientsOfZeroThroughAnyActivation) {
  const std::int64_t shape[] = {0, 3};
  std::vector<float> statistics(3, 1.0F), dscale(3, 7.0F), dbias(3, 7.0F);
  batchnorm_options options = batchnorm_default_options();
  options.is_training = 1;
  batchnorm_backward_arguments arguments = batchnorm_no_backward_arguments();
  arguments.type = BATCHNORM_FLOAT;
  arguments.rank = 2;
  arguments.shape = shape;
  arguments.mean = arguments.variance = c_vector(std::as_const(statistics));
  arguments.dscale = c_vector(dscale);
  arguments.dbias = c_vector(dbias);
  for (const int activation : {BATCHNORM_NO_ACTIVATION, BATCHNORM_RELU, BATCHNORM_LEAKY_RELU}) {
    arguments.activation = activation;
    dscale.assign(3, 7.0F), dbias.assign(3, 7.0F);
    EXPECT_EQ(c_error(batchnorm_backward(&options, &arguments)), "");
    EXPECT_EQ(dscale, std::vector<float>(3));
    EXPECT_EQ(dbias, std::vector<float>(3));
  }
}

TEST(CInterfaceActivationErrors, OfForward) {
  Training<float, float> step(Shape{2, 3, 4}, Format::NCHW);
  const auto before = step.y;
  const auto error = [&](const auto& spoil) {
    const auto right = step.arguments;
    spoil(step.arguments);
    const std::string text = step.run_in_c();
    step.arguments = right;
    return text;
  };
  EXPECT_EQ(error([](auto& a) { a.activation = 3; }),
            "2: batchnorm_forward: activation is 3, known are 0 (none), 1 (ReLU), 2 (leaky ReLU)");
  EXPECT_EQ(error([](auto& a) { a.slope = 0.5; }), "2: batchnorm_forward: slope is not 0, it is that of leaky ReLU alone");
  EXPECT_EQ(error([](auto& a) { a.reserved = 1; }), "2: batchnorm_forward: reserved is 1, it must be 0");
  EXPECT_EQ(error([&](auto& a) { a.mask = c_vector(step.mask); }),
            "2: batchnorm::BatchNorm: mask is given, but the epilogue has no activation that fills one");
  EXPECT_EQ(error([&](auto& a) {
              a.activation = BATCHNORM_RELU, a.mask = {step.mask.data(), 2};
            }),
            "1: batchnorm::BatchNorm: mask has shape [2], expected [3], a bit for each element (x is [2, 3, 4], NCHW)");
  EXPECT_EQ(error([&](auto& a) { a.mask = {nullptr, 3}; }), "2: batchnorm_forward: mask.data is NULL while its length is 3");
  EXPECT_EQ(
      error([&](auto& a) {
        a.residual = {step.residual.data(), 23, 0, nullptr, 0};
      }),
      "1: batchnorm_forward: residual.length is 23, expected at least 24 for the shape [2, 3, 4] with strides [12, 4, 1]");
  EXPECT_EQ(step.y, before) << "something was written";
  std::int64_t length = -1;
  EXPECT_EQ(c_error(batchnorm_mask_length(1, step.arguments.shape, &length)),
            "1: batchnorm_mask_length: rank is 1, expected 2 to 5");
  EXPECT_EQ(c_error(batchnorm_mask_length(3, nullptr, &length)), "2: batchnorm_mask_length: shape is NULL");
  EXPECT_EQ(c_error(batchnorm_mask_length(3, step.arguments.shape, nullptr)), "2: batchnorm_mask_length: length is NULL");
  EXPECT_EQ(length, -1);
}

TEST(CInterfaceActivationErrors, OfBackward) {
  Training<float, float> of(Shape{2, 3, 4}, Format::NCHW);
  EXPECT_EQ(of.run_in_c(), "");
  Step<float, float> step(of);
  const auto error = [&](const auto& spoil) {
    const auto right = step.arguments;
    spoil(step.arguments);
    const std::string text = step.run_in_c();
    step.arguments = right;
    return text;
  };
  EXPECT_EQ(error([](auto& a) { a.activation = BATCHNORM_RELU; }),
            "2: batchnorm_backward: mask and output_x are absent, an activation needs one of them");
  EXPECT_EQ(error([&](auto& a) {
              a.activation = BATCHNORM_RELU, a.mask = c_vector(std::as_const(of.mask));
              a.output_x = c_tensor(std::as_const(of.y));
            }),
            "2: batchnorm_backward: mask and output_x are both given, an activation needs one of them");
  EXPECT_EQ(error([&](auto& a) { a.mask = c_vector(std::as_const(of.mask)); }),
            "2: batchnorm_backward: mask or output_x is given, but no activation");
  const std::string text = error([&](auto& a) {
    a.activation = BATCHNORM_LEAKY_RELU, a.slope = -1, a.output_x = c_tensor(std::as_const(of.y));
  });
  EXPECT_TRUE(text.starts_with("2: batchnorm::BatchNorm::backward: gradients cannot pass the activation: its slope")) << text;
  EXPECT_EQ(step.dx, std::vector<float>(24)) << "something was written";
}

TEST(CInterfaceActivationErrors, OfInPlace) {
  const std::int64_t shape[] = {2, 3, 4};
  std::vector<float> x(24, 1.5F);
  const auto before = x;
  const std::vector<float> small(3, 1e-30F), bias(3, 1.0F);
  batchnorm_forward_in_place_arguments arguments = batchnorm_no_forward_in_place_arguments();
  arguments.type = BATCHNORM_FLOAT;
  arguments.rank = 3;
  arguments.shape = shape;
  arguments.x = c_tensor(x);
  EXPECT_EQ(c_error(batchnorm_forward_in_place(nullptr, &arguments)),
            "2: batchnorm::InPlaceBatchNorm: the activation cannot be undone: its slope must be above 0");
  arguments.slope = 0.5;
  arguments.largest_ratio = -1;
  EXPECT_EQ(c_error(batchnorm_forward_in_place(nullptr, &arguments)),
            "2: batchnorm::InPlaceBatchNorm: largest_ratio must be above 0");
  arguments.largest_ratio = 0;
  arguments.scale = c_vector(small);
  arguments.bias = c_vector(bias);
  EXPECT_NE(c_error(batchnorm_forward_in_place(nullptr, &arguments)).find("x could not be recovered from y"),
            std::string::npos);
  EXPECT_EQ(c_error(batchnorm_forward_in_place(nullptr, nullptr)),
            "2: batchnorm_forward_in_place: forward_in_place_arguments is NULL");
  EXPECT_EQ(x, before);
}

}  // namespace
