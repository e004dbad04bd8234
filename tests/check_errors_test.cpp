// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/explain.hpp>

#include "support/messages.hpp"

// Errors as values: check() and CallOptions::error say what an exception would say, for every call and everything that can be
// wrong with it, and nothing is written.
namespace {

using batchnorm::BatchNorm;
using batchnorm::CallOptions;
using batchnorm::Error;
using batchnorm::ErrorKind;
using batchnorm::Format;
using batchnorm::Options;
using batchnorm::Shape;
using batchnorm::TensorView;

constexpr std::int64_t N = 2, C = 3, S = 4, elements = N * C * S;

/// What calls are given, of one buffer, which shows whether anything was written.
struct Given {
  std::vector<float> buffer = std::vector<float>(1000);
  std::vector<std::uint8_t> bits = std::vector<std::uint8_t>(16, 0xAA);
  Options options{.is_training = true};
  CallOptions call;
  double epsilon = 1e-5;
  TensorView<float> x = tensor(0), dy = tensor(1), y = tensor(2), dx = tensor(3), ddx = tensor(4), ddy = tensor(5);
  TensorView<float> scale = vector(0), bias = vector(1), mean = vector(2), variance = vector(3), ddscale = vector(4);
  TensorView<float> batch_mean = vector(5), batch_variance = vector(6), dscale = vector(7), dbias = vector(8);
  TensorView<std::uint8_t> mask{bits.data(), Shape{batchnorm::mask_bytes(Shape{N, C, S})}};
  bool has_constant_mean = false;
  batchnorm::LeakyRelu activation{0.5};
  batchnorm::Moments moments = moments_of(C, N* S);
  batchnorm::GradientSums sums = sums_of(C, N* S);
  std::int64_t groups = 1;

  Given() {
    for (std::size_t i = 0; i < buffer.size(); ++i) buffer[i] = 1 + 0.5F * std::sin(static_cast<float>(i));
  }
  Given(const Given&) = delete;  // the views point into this object
  Given& operator=(const Given&) = delete;

  TensorView<float> tensor(std::int64_t number) { return {buffer.data() + number * 32, Shape{N, C, S}}; }
  TensorView<float> vector(std::int64_t number) { return {buffer.data() + 500 + number * 8, Shape{C}}; }

  static batchnorm::Moments moments_of(std::int64_t channels, std::int64_t count) {
    batchnorm::Moments result(channels);
    result.count = count;
    std::fill(result.m2.begin(), result.m2.end(), 2.0);
    return result;
  }
  static batchnorm::GradientSums sums_of(std::int64_t channels, std::int64_t count) {
    batchnorm::GradientSums result(channels);
    result.count = count;
    return result;
  }

  batchnorm::StatisticView<float> running_mean() const {
    if (has_constant_mean) return {static_cast<const float*>(mean.data()), mean.shape()};
    return mean;
  }
  batchnorm::InputViews<float> in() const {
    return {.x = x, .scale = scale, .bias = bias, .mean = running_mean(), .variance = variance};
  }
  batchnorm::GradientInputViews<float> gradient_in() const {
    return {.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance};
  }
  batchnorm::DoubleGradientInputViews<float> double_gradient_in() const {
    return {
        .dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance, .ddx = ddx, .ddscale = ddscale, .ddbias = bias};
  }
  batchnorm::InferenceParameters<float> parameters() const {
    return {.scale = scale, .bias = bias, .mean = mean, .variance = variance};
  }
};

using Call = std::function<void(Given&, const CallOptions&)>;

struct NamedCall {
  const char* name;
  Call call;
};

/// Weights of a linear layer in the memory of dx: [C, S], or nothing where dx is spoiled.
TensorView<const float> weights_of(const Given& g) {
  if (!g.dx.present() || g.dx.shape().rank() != 3) return {g.dx.data(), g.dx.shape()};
  return {g.dx.data(), Shape{C, S}};
}

std::vector<NamedCall> all_calls() {
  return {
      {"batch_norm",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm<float>(Format::NCHW, g.options, g.in(),
                                      {.output_x = g.y, .batch_mean = g.batch_mean, .batch_variance = g.batch_variance},
                                      batchnorm::Identity{}, call);
       }},
      {"batch_norm with a mask",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm<float>(Format::NCHW, g.options, g.in(), {.output_x = g.y, .mask = g.mask}, g.activation, call);
       }},
      {"batch_norm with a mask of nothing",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm<float>(Format::NCHW, g.options, g.in(), {.output_x = g.y, .mask = g.mask}, batchnorm::Identity{},
                                      call);
       }},
      {"batch_norm with a residual",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm<float>(Format::NCHW, g.options, g.in(), {.output_x = g.y}, batchnorm::AddResidual<float>{g.dy},
                                      call);
       }},
      {"batch_norm_backward",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm_backward<float>(Format::NCHW, g.options, g.gradient_in(),
                                               {.dx = g.dx, .dscale = g.dscale, .dbias = g.dbias}, batchnorm::Identity{}, call);
       }},
      {"batch_norm_backward through a mask",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm_backward<float>(Format::NCHW, g.options, g.gradient_in(), {.dx = g.dx, .dresidual = g.ddy},
                                               batchnorm::ThroughMask<batchnorm::LeakyRelu>{g.mask, g.activation}, call);
       }},
      {"batch_norm_backward through the output",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm_backward<float>(Format::NCHW, g.options, g.gradient_in(), {.dx = g.dx},
                                               batchnorm::ThroughOutput<float, batchnorm::LeakyRelu>{g.y, g.activation}, call);
       }},
      {"batch_norm_double_backward",
       [](Given& g, const CallOptions& call) {
         batchnorm::batch_norm_double_backward<float>(Format::NCHW, g.options, g.double_gradient_in(),
                                                      {.dx = g.dx, .ddy = g.ddy, .dscale = g.dscale}, call);
       }},
      {"normalize",
       [](Given& g, const CallOptions& call) {
         batchnorm::normalize<float>(Format::NCHW, g.in(), g.epsilon, g.y, batchnorm::Identity{}, call);
       }},
      {"normalize by moments",
       [](Given& g, const CallOptions& call) {
         batchnorm::normalize<float>(Format::NCHW, g.in(), g.moments, g.epsilon, g.y, batchnorm::Identity{}, call);
       }},
      {"moments", [](Given& g, const CallOptions& call) { batchnorm::moments(g.x, Format::NCHW, call); }},
      {"merge of moments",
       [](Given& g, const CallOptions& call) {
         auto into = Given::moments_of(C, 5);
         batchnorm::merge(into, g.moments, call);
       }},
      {"merge of sums",
       [](Given& g, const CallOptions& call) {
         auto into = Given::sums_of(C, 5);
         batchnorm::merge(into, g.sums, call);
       }},
      {"finalize",
       [](Given& g, const CallOptions& call) {
         batchnorm::finalize<float>(g.moments, g.options,
                                    {.batch_mean = g.batch_mean, .running_mean = g.mean, .running_variance = g.variance}, call);
       }},
      {"gradient_sums",
       [](Given& g, const CallOptions& call) {
         batchnorm::gradient_sums<float>(Format::NCHW, g.gradient_in(), batchnorm::Identity{}, call);
       }},
      {"gradient_sums by moments",
       [](Given& g, const CallOptions& call) {
         batchnorm::gradient_sums<float>(Format::NCHW, g.gradient_in(), g.moments, batchnorm::Identity{}, call);
       }},
      {"input_gradient",
       [](Given& g, const CallOptions& call) {
         batchnorm::input_gradient<float>(Format::NCHW, g.gradient_in(), g.sums, g.epsilon,
                                          {.dx = g.dx, .dscale = g.dscale, .dbias = g.dbias}, batchnorm::Identity{}, call);
       }},
      {"input_gradient by moments",
       [](Given& g, const CallOptions& call) {
         batchnorm::input_gradient<float>(Format::NCHW, g.gradient_in(), g.sums, g.moments, g.epsilon, {.dx = g.dx},
                                          batchnorm::Identity{}, call);
       }},
      {"InPlaceBatchNorm::forward",
       [](Given& g, const CallOptions& call) {
         batchnorm::InPlaceBatchNorm<float>().forward(
             {.x = g.x, .scale = g.scale, .bias = g.bias, .mean = g.mean, .variance = g.variance, .batch_mean = g.batch_mean},
             call);
       }},
      {"InPlaceBatchNorm::backward",
       [](Given& g, const CallOptions& call) {
         batchnorm::InPlaceBatchNorm<float>().backward(
             {.dy = g.dy, .y = g.y, .scale = g.scale, .bias = g.bias, .variance = g.variance}, {.dx = g.dx}, call);
       }},
      {"PreparedInference",
       [](Given& g, const CallOptions& call) {
         const std::vector<float> ones(C, 1.0F);
         batchnorm::PreparedInference<float>(Format::NCHW, {.mean = ones, .variance = ones})(g.x, g.y, batchnorm::Identity{},
                                                                                             call);
       }},
      {"explain",
       [](Given& g, const CallOptions& call) { batchnorm::explain(batchnorm::Pass::training, g.x, Format::NCHW, call); }},
      {"affine_map", [](Given& g, const CallOptions& call) { batchnorm::affine_map<float>(g.parameters(), g.epsilon, call); }},
      {"fold_after",
       [](Given& g, const CallOptions& call) {
         const batchnorm::AffineMap map{{1, 2, 3}, {4, 5, 6}};
         batchnorm::fold_after<float>(weights_of(g), g.bias, map, {{g.ddy.data(), Shape{C, S}}, g.dbias}, call);
       }},
      {"fold_after_transposed",
       [](Given& g, const CallOptions& call) {
         const batchnorm::AffineMap map{{1, 2, 3, 4}, {4, 5, 6, 7}};
         batchnorm::fold_after_transposed<float>(weights_of(g), {}, map, g.groups, call);
       }},
      {"fold_before",
       [](Given& g, const CallOptions& call) {
         const batchnorm::AffineMap map{{1e38, 2, 3, 4}, {4, 5, 6, 7}};
         batchnorm::fold_before<float>(weights_of(g), g.bias, map, {{g.ddy.data(), Shape{C, S}}, g.dbias}, g.groups, call);
       }},
  };
}

struct Spoil {
  const char* name;
  std::function<void(Given&)> apply;
};

/// Everything that may be wrong, and at first nothing.
std::vector<Spoil> all_spoils() {
  std::vector<Spoil> spoils = {
      {"nothing", [](Given&) {}},
      {"nothing, in inference", [](Given& g) { g.options.is_training = false; }},
      {"nothing, by a cumulative average", [](Given& g) { g.call.batch_number = 3; }},
      {"an empty batch",
       [](Given& g) {
         for (TensorView<float>* t : {&g.x, &g.dy, &g.y, &g.dx, &g.ddx, &g.ddy}) *t = {t->data(), Shape{0, C, S}};
         g.mask = {g.bits.data(), Shape{0}};
       }},
      {"epsilon", [](Given& g) { g.options.epsilon = g.epsilon = 2; }},
      {"epsilon that is no number", [](Given& g) { g.options.epsilon = g.epsilon = std::nan(""); }},
      {"momentum", [](Given& g) { g.options.momentum = -1; }},
      {"batch_number", [](Given& g) { g.call.batch_number = -1; }},
      {"a constant mean", [](Given& g) { g.has_constant_mean = true; }},
      {"an activation without gradients", [](Given& g) { g.activation = batchnorm::LeakyRelu{-1}; }},
      {"moments of other channels", [](Given& g) { g.moments = Given::moments_of(C + 1, 4); }},
      {"moments of no values", [](Given& g) { g.moments.count = 0; }},
      {"moments of fewer than none", [](Given& g) { g.moments.count = -1; }},
      {"moments in pieces", [](Given& g) { g.moments.m2.pop_back(); }},
      {"sums of other channels", [](Given& g) { g.sums = Given::sums_of(C + 1, 4); }},
      {"sums of no values", [](Given& g) { g.sums.count = 0; }},
      {"sums in pieces", [](Given& g) { g.sums.dy.pop_back(); }},
      {"groups", [](Given& g) { g.groups = 2; }},
      {"groups below 1", [](Given& g) { g.groups = 0; }},
      {"a small scale", [](Given& g) { g.scale.data()[1] = 1e-30F; }},
      {"a large weight", [](Given& g) { g.dx.data()[0] = 3e38F; }},
      {"vectors of more channels than memory holds",
       [](Given& g) {
         g.scale = g.bias = g.mean = g.variance = {g.mean.data(), Shape{(std::int64_t{1} << 62) + 1}};
       }},
      {"a mask of another size",
       [](Given& g) {
         g.mask = {g.bits.data(), Shape{7}};
       }},
      {"a mask without data",
       [](Given& g) {
         g.mask = {nullptr, g.mask.shape()};
       }},
      {"a mask with gaps",
       [](Given& g) {
         g.mask = {g.bits.data(), g.mask.shape(), {2}};
       }},
      {"no mask", [](Given& g) { g.mask = {}; }},
      {"outputs in one place", [](Given& g) { g.dscale = g.dbias = g.batch_mean = g.mean; }},
      {"tensors in one place, by a shift",
       [](Given& g) {
         g.y = g.dx = {g.x.data() + 1, g.x.shape()};
       }},
      {"outputs in place of dy", [](Given& g) { g.dx = g.ddy = g.dy; }},
  };
  const std::vector<std::pair<const char*, TensorView<float> Given::*>> tensors = {
      {"x", &Given::x}, {"dy", &Given::dy}, {"y", &Given::y}, {"dx", &Given::dx}, {"ddx", &Given::ddx}, {"ddy", &Given::ddy}};
  for (const auto& [name, of] : tensors) {
    const auto add = [&, of = of](const auto& change) { spoils.push_back({name, [of, change](Given& g) { change(g.*of); }}); };
    add([](TensorView<float>& t) { t = {}; });
    add([](TensorView<float>& t) { t = {nullptr, t.shape()}; });
    add([](TensorView<float>& t) { t = {t.data(), Shape{C}}; });
    add([](TensorView<float>& t) { t = {t.data(), Shape{N, C, S + 1}}; });
    add([](TensorView<float>& t) { t = {t.data(), Shape{N, C + 1, S}}; });
    add([](TensorView<float>& t) { t = {t.data(), Shape{N, -C, S}}; });
    add([](TensorView<float>& t) { t = {t.data(), Shape{std::int64_t{1} << 62, C, S}}; });
    add([](TensorView<float>& t) { t = {t.data(), Shape{std::int64_t{1} << 52, C, S}}; });
    add([](TensorView<float>& t) { t = {t.data(), t.shape(), {S * C, 1, C}}; });
    add([](TensorView<float>& t) { t = {t.data(), t.shape(), {S * C, S, 2}}; });
    add([](TensorView<float>& t) { t = {t.data(), t.shape(), {0, S, 1}}; });
    add([](TensorView<float>& t) { t = {t.data(), t.shape(), {std::int64_t{1} << 60, S, 1}}; });
    add([](TensorView<float>& t) { t = {reinterpret_cast<float*>(reinterpret_cast<char*>(t.data()) + 1), t.shape()}; });
  }
  const std::vector<std::pair<const char*, TensorView<float> Given::*>> vectors = {{"scale", &Given::scale},
                                                                                   {"bias", &Given::bias},
                                                                                   {"mean", &Given::mean},
                                                                                   {"variance", &Given::variance},
                                                                                   {"ddscale", &Given::ddscale},
                                                                                   {"batch_mean", &Given::batch_mean},
                                                                                   {"batch_variance", &Given::batch_variance},
                                                                                   {"dscale", &Given::dscale},
                                                                                   {"dbias", &Given::dbias}};
  for (const auto& [name, of] : vectors) {
    const auto add = [&, of = of](const auto& change) { spoils.push_back({name, [of, change](Given& g) { change(g.*of); }}); };
    add([](TensorView<float>& v) { v = {}; });
    add([](TensorView<float>& v) { v = {nullptr, v.shape()}; });
    add([](TensorView<float>& v) { v = {v.data(), Shape{C + 1}}; });
    add([](TensorView<float>& v) { v = {v.data(), Shape{C, 1}}; });
    add([](TensorView<float>& v) { v = {v.data(), Shape{-1}}; });
    add([](TensorView<float>& v) { v = {v.data(), Shape{(std::int64_t{1} << 62) + 1}}; });
    add([](TensorView<float>& v) { v = {v.data(), v.shape(), {2}}; });
    add([](TensorView<float>& v) { v = {reinterpret_cast<float*>(reinterpret_cast<char*>(v.data()) + 1), v.shape()}; });
  }
  return spoils;
}

/// What a call throws, as a value.
std::optional<Error> thrown_by(const std::function<void()>& call) {
  try {
    call();
  } catch (const batchnorm::ShapeError& error) {
    return Error{ErrorKind::shape, error.what()};
  } catch (const batchnorm::ValueError& error) {
    return Error{ErrorKind::value, error.what()};
  }
  return std::nullopt;
}

std::string text_of(const std::optional<Error>& error) {
  if (!error) return "nothing";
  return (error->kind == ErrorKind::shape ? "ShapeError: " : "ValueError: ") + error->message;
}

/// As text, for values that are misaligned or absent change nothing here.
struct Memory {
  std::vector<float> buffer;
  std::vector<std::uint8_t> bits;

  explicit Memory(const Given& g) : buffer(g.buffer), bits(g.bits) {}
  friend bool operator==(const Memory&, const Memory&) = default;
};

TEST(CheckErrors, SayWhatIsThrownForEveryCallAndWriteNothing) {
  std::set<std::string> messages;
  for (const NamedCall& of : all_calls()) {
    std::size_t right = 0;
    for (const Spoil& spoil : all_spoils()) {
      SCOPED_TRACE(std::string(of.name) + ", wrong is " + spoil.name);
      Given throwing, checked, reporting;
      for (Given* g : {&throwing, &checked, &reporting}) spoil.apply(*g);
      const Memory before(checked);

      const auto want = thrown_by([&] { of.call(throwing, throwing.call); });
      EXPECT_TRUE(!want || Memory(throwing) == before);

      const auto got = batchnorm::check([&](const CallOptions& call) { of.call(checked, call); }, checked.call);
      EXPECT_EQ(text_of(got), text_of(want));
      EXPECT_EQ(Memory(checked), before) << "check() wrote something";

      std::optional<Error> error = Error{ErrorKind::shape, "that of an earlier call"};
      CallOptions options = reporting.call;
      options.error = &error;
      of.call(reporting, options);
      EXPECT_EQ(text_of(error), text_of(want));
      EXPECT_EQ(Memory(reporting), Memory(throwing)) << "an error as a value leaves something else than an exception";

      if (want) messages.insert(want->message);
      right += want ? 0 : 1;
    }
    EXPECT_GE(right, of.name == std::string("batch_norm with a mask of nothing") ? 0U : 3U) << of.name;
  }
  EXPECT_GT(messages.size(), 250U);
}

TEST(CheckErrors, OfBatchNorm) {
  Given g;
  const BatchNorm<float> norm(true);
  EXPECT_EQ(norm.check(g.in(), {.output_x = g.y}), std::nullopt);
  EXPECT_EQ(norm.check_backward(g.gradient_in(), {.dx = g.dx}), std::nullopt);
  EXPECT_EQ(norm.check_double_backward(g.double_gradient_in(), {.dx = g.dx}), std::nullopt);
  g.variance = {};
  EXPECT_EQ(text_of(norm.check(g.in(), {.output_x = g.y}, batchnorm::Relu{})),
            "ValueError: batchnorm::BatchNorm: variance is absent while mean is given; they come together");
  EXPECT_EQ(text_of(norm.check_backward(g.gradient_in(), {.dx = g.dx})),
            "ValueError: batchnorm::BatchNorm::backward: variance is absent, the gradient needs it");
  EXPECT_EQ(text_of(norm.check_double_backward(g.double_gradient_in(), {.dx = g.dx})),
            "ValueError: batchnorm::BatchNorm::double_backward: variance is absent, the gradient needs it");
  EXPECT_EQ(g.buffer, Given().buffer);
}

TEST(CheckErrors, OfOwnedOutputsLeaveThemEmpty) {
  Given g;
  g.x = {g.x.data(), Shape{C}};
  std::optional<Error> error;
  const CallOptions call{.error = &error};
  const BatchNorm<float> norm(true);
  EXPECT_EQ(norm(g.in(), batchnorm::Identity{}, call).output_x.size(), 0);
  EXPECT_EQ(text_of(error), "ShapeError: batchnorm::BatchNorm: x has rank 1, expected 2 to 5 (x is [3], NCHW)");
  EXPECT_EQ(norm.output_x(g.x, nullptr, nullptr, nullptr, nullptr, batchnorm::Identity{}, call).size(), 0);
  EXPECT_TRUE(error);
  EXPECT_EQ(norm.backward(g.gradient_in(), batchnorm::Identity{}, call).dx.size(), 0);
  EXPECT_TRUE(error);
  EXPECT_EQ(norm.double_backward(g.double_gradient_in(), call).dx.size(), 0);
  EXPECT_TRUE(error);
  g.x = g.tensor(0);
  EXPECT_EQ(norm(g.in(), batchnorm::Identity{}, call).output_x.size(), elements);
  EXPECT_FALSE(error);
  // Errors that are found when the outputs are there already.
  g.scale = {g.scale.data(), Shape{C + 1}};
  EXPECT_EQ(norm(g.in(), batchnorm::Identity{}, call).output_x.size(), 0);
  EXPECT_TRUE(error);
  EXPECT_EQ(norm.output_x(g.x, g.scale, nullptr, nullptr, nullptr, batchnorm::Identity{}, call).size(), 0);
  EXPECT_TRUE(error);
  EXPECT_EQ(norm.backward(g.gradient_in(), batchnorm::Identity{}, call).dx.size(), 0);
  EXPECT_TRUE(error);
  EXPECT_EQ(norm.double_backward(g.double_gradient_in(), call).dx.size(), 0);
  EXPECT_TRUE(error);
}

TEST(CheckErrors, OfAMapBeyondDoubleAreFoundBeforeTheCall) {
  const std::vector<double> scale{1e308}, mean{0}, variance{0};
  const batchnorm::InferenceParameters<double> parameters{.scale = scale, .mean = mean, .variance = variance};
  const auto want = thrown_by([&] { batchnorm::affine_map<double>(parameters, 1e-10); });
  EXPECT_TRUE(want);
  const auto got = batchnorm::check([&](const CallOptions& call) { batchnorm::affine_map<double>(parameters, 1e-10, call); });
  EXPECT_EQ(text_of(got), text_of(want));
}

TEST(CheckErrors, OfOptions) {
  EXPECT_EQ(batchnorm::check(Options{}), std::nullopt);
  EXPECT_EQ(text_of(batchnorm::check(Options{.epsilon = 2})),
            "ValueError: batchnorm::BatchNorm: epsilon is 2, it must be in (0, 1]");
  EXPECT_EQ(text_of(batchnorm::check(Options{.momentum = 2})),
            "ValueError: batchnorm::BatchNorm: momentum is 2, it must be in [0, 1]");
}

TEST(CheckErrors, OfPreparedInference) {
  Given g;
  using Prepared = batchnorm::PreparedInference<float>;
  const auto of_constructor = [&](double epsilon, const Shape& shape) {
    const auto want = thrown_by([&] { Prepared(Format::NCHW, g.parameters(), epsilon, shape); });
    EXPECT_EQ(text_of(Prepared::check(Format::NCHW, g.parameters(), epsilon, shape)), text_of(want));
    return want.has_value();
  };
  EXPECT_FALSE(of_constructor(1e-5, {}));
  EXPECT_FALSE(of_constructor(1e-5, {N, C, S}));
  EXPECT_TRUE(of_constructor(0, {}));
  EXPECT_TRUE(of_constructor(1e-5, {N, C + 1, S}));
  EXPECT_TRUE(of_constructor(1e-5, {N}));
  EXPECT_TRUE(of_constructor(1e-5, {N, C, -1}));
  EXPECT_TRUE(of_constructor(1e-5, {std::int64_t{1} << 62, C, S}));
  EXPECT_TRUE(of_constructor(1e-5, {std::int64_t{1} << 53, C, S}));

  Prepared prepared(Format::NCHW, g.parameters());
  const auto y_before = [&] {
    prepared(g.x, g.y);
    return std::vector<float>(g.y.data(), g.y.data() + elements);
  };
  const std::vector<float> want = y_before();
  for (const TensorView<float>& wrong :
       {TensorView<float>(), g.vector(1).slice(0, 0, 2), TensorView<float>{nullptr, Shape{C}}}) {
    auto parameters = g.parameters();
    parameters.variance = wrong;
    const auto thrown = thrown_by([&] { prepared.refresh(parameters); });
    EXPECT_TRUE(thrown);
    EXPECT_EQ(text_of(prepared.check_refresh(parameters)), text_of(thrown));
    parameters.variance = g.variance;
    parameters.mean = wrong;
    EXPECT_EQ(text_of(Prepared::check(Format::NCHW, parameters)),
              text_of(thrown_by([&] { Prepared(Format::NCHW, parameters); })));
  }
  auto others = g.parameters();
  others.bias = g.vector(6);
  EXPECT_EQ(prepared.check_refresh(others), std::nullopt);
  EXPECT_EQ(y_before(), want) << "checking refreshed it";
}

/// In a process of its own, where nothing has been called before.
int exit_code_of(const char* variable, const char* value, const std::string& message) {
  setenv(variable, value, 1);
  Given g;
  const auto before = g.buffer;
  const BatchNorm<float> norm(true);
  if (text_of(norm.check(g.in(), {.output_x = g.y})) != "ValueError: " + message) return 1;
  std::optional<Error> error;
  norm(g.in(), {.output_x = g.y}, batchnorm::Identity{}, {.error = &error});
  if (text_of(error) != "ValueError: " + message || g.buffer != before) return 2;
  if (text_of(thrown_by([&] { norm(g.in(), {.output_x = g.y}); })) != "ValueError: " + message) return 3;
  // Of all calls, whatever part of the machine they need.
  for (const NamedCall& of : all_calls()) {
    if (of.name == std::string("PreparedInference")) continue;  // it is made, which throws, before it is called
    for (const bool is_empty : {false, true}) {
      Given throwing, reporting;
      for (Given* given : {&throwing, &reporting}) {
        if (!is_empty) continue;
        for (TensorView<float>* t : {&given->x, &given->dy, &given->y, &given->dx, &given->ddx, &given->ddy}) {
          *t = {t->data(), Shape{0, C, S}};
        }
        given->mask = {given->bits.data(), Shape{0}};
        given->moments.count = 0;
      }
      const auto want = thrown_by([&] { of.call(throwing, {}); });
      of.call(reporting, {.error = &error});
      if (text_of(error) == text_of(want)) continue;
      std::fprintf(stderr, "%s: %s, thrown is %s\n", of.name, text_of(error).c_str(), text_of(want).c_str());
      return 4;
    }
  }
  return 0;
}

TEST(CheckErrors, OfTheEnvironmentAreThoseOfTheCall) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::exit(exit_code_of("BATCHNORM_NUM_THREADS", "many",
                                     "batchnorm: BATCHNORM_NUM_THREADS is 'many', it must be a whole number in [1, 1024]")),
              testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      std::exit(exit_code_of("BATCHNORM_TUNING", "serial_bytes=0",
                             "batchnorm: BATCHNORM_TUNING has 'serial_bytes=0', it must be a whole number of bytes from 1 "
                             "to 2^40, perhaps with K, M or G")),
      testing::ExitedWithCode(0), "");
  std::string known;
  for (const batchnorm::Isa isa : batchnorm::available_isas()) {
    known.append(known.empty() ? "" : ", ").append(batchnorm::to_string(isa));
  }
  EXPECT_EXIT(std::exit(exit_code_of("BATCHNORM_ISA", "z80", "batchnorm: BATCHNORM_ISA is 'z80', available here are " + known)),
              testing::ExitedWithCode(0), "");
}

}  // namespace
