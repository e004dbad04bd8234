// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/reference.hpp>

// The formulas of reference.hpp against numbers computed by hand, and the library against the formulas.
namespace {

namespace reference = batchnorm::reference;
using batchnorm::Format, batchnorm::Shape, batchnorm::TensorView;

const Format formats[] = {Format::NCHW, Format::NHWC};

template <class T>
using Parameters = std::vector<batchnorm::parameter_t<T>>;

// Two images of two channels of two values. Channel 0 holds 5, 1, 1, 1: mean 2, variance 12 / 4 = 3, unbiased 12 / 3 = 4, and
// with epsilon 1 r = 1 / 2. Channel 1 is constant. All numbers are exact in every type.
template <class T>
class Reference : public testing::Test {
 public:
  /// [n, c, s] in the order of the format.
  static std::vector<T> ordered(Format format, const std::vector<double>& nchw) {
    std::vector<T> values;
    for (const std::size_t i : format == Format::NCHW ? std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7}
                                                      : std::vector<std::size_t>{0, 2, 1, 3, 4, 6, 5, 7}) {
      values.push_back(static_cast<T>(nchw[i]));
    }
    return values;
  }
  static std::vector<T> x(Format format) { return ordered(format, {5, 1, 6, 6, 1, 1, 6, 6}); }
  static std::vector<T> dy(Format format) { return ordered(format, {4, 0, 1, 2, 2, 2, 3, -2}); }
  static reference::Extents extents(Format format) { return reference::extents_of(Shape{2, 2, 2}, format); }

  const Parameters<T> scale{4, 3}, bias{1, -2};
  reference::Channels channels;
};
using Types = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(Reference, Types);

TYPED_TEST(Reference, Training) {
  for (const Format format : formats) {
    std::vector<TypeParam> y(8);
    Parameters<TypeParam> running_mean{10, 6}, running_variance{8, 4};
    reference::training(this->extents(format), this->x(format).data(), this->scale.data(), this->bias.data(), 1, 0.25, y.data(),
                        running_mean.data(), running_variance.data(), this->channels);
    EXPECT_EQ(y, this->ordered(format, {7, -1, -2, -2, -1, -1, -2, -2}));
    EXPECT_EQ(this->channels.mean, (std::vector<double>{2, 6}));
    EXPECT_EQ(this->channels.variance, (std::vector<double>{3, 0}));
    EXPECT_EQ(running_mean, (Parameters<TypeParam>{8, 6}));
    EXPECT_EQ(running_variance, (Parameters<TypeParam>{7, 3}));
  }
}

TYPED_TEST(Reference, Inference) {
  for (const Format format : formats) {
    std::vector<TypeParam> y(8);
    const Parameters<TypeParam> mean{1, 4}, variance{15, 3};  // r = 1 / 4, 1 / 2
    reference::inference(this->extents(format), this->x(format).data(), this->scale.data(), this->bias.data(), mean.data(),
                         variance.data(), 1, y.data(), this->channels);
    EXPECT_EQ(y, this->ordered(format, {5, 1, 1, 1, 1, 1, 1, 1}));
  }
}

// Channel 0: dbias = 8, dscale = (4 * 3 - 0 - 2 - 2) / 2 = 4, dx = 2 * (dy - 2 - xh) with xh = 1.5, -0.5, -0.5, -0.5.
// Channel 1: dbias = 4, dscale = 0, dx = 3 * (dy - 1).
TYPED_TEST(Reference, BackwardOfTraining) {
  for (const Format format : formats) {
    std::vector<TypeParam> dx(8);
    const Parameters<TypeParam> mean{2, 6}, variance{3, 0};
    reference::backward_training(this->extents(format), this->dy(format).data(), this->x(format).data(), this->scale.data(),
                                 mean.data(), variance.data(), 1, dx.data(), this->channels);
    EXPECT_EQ(dx, this->ordered(format, {1, -3, 0, 3, 1, 1, 6, -9}));
    EXPECT_EQ(this->channels.dscale, (std::vector<double>{4, 0}));
    EXPECT_EQ(this->channels.dbias, (std::vector<double>{8, 4}));
  }
}

TYPED_TEST(Reference, BackwardOfInference) {
  for (const Format format : formats) {
    std::vector<TypeParam> dx(8);
    const Parameters<TypeParam> mean{1, 4}, variance{15, 3};  // xh = (x - 1) / 4 and (x - 4) / 2
    reference::backward_inference(this->extents(format), this->dy(format).data(), this->x(format).data(), this->scale.data(),
                                  mean.data(), variance.data(), 1, dx.data(), this->channels);
    EXPECT_EQ(dx, this->ordered(format, {4, 0, 1.5, 3, 2, 2, 4.5, -3}));
    EXPECT_EQ(this->channels.dscale, (std::vector<double>{4, 4}));
    EXPECT_EQ(this->channels.dbias, (std::vector<double>{8, 4}));
  }
}

TEST(ReferenceExtents, OfEveryRankAndBothFormats) {
  for (const auto& [shape, format] :
       {std::pair{Shape{2, 3}, Format::NCHW}, std::pair{Shape{2, 3}, Format::NHWC}, std::pair{Shape{2, 3, 20}, Format::NCHW},
        std::pair{Shape{2, 4, 5, 3}, Format::NHWC}, std::pair{Shape{2, 3, 2, 2, 5}, Format::NCHW}}) {
    const reference::Extents e = reference::extents_of(shape, format);
    EXPECT_EQ(e.format, format);
    EXPECT_EQ(e.n, 2);
    EXPECT_EQ(e.c, 3);
    EXPECT_EQ(e.s, shape.rank() == 2 ? 1 : 20);
  }
}

TEST(ReferenceTraining, AnEmptyBatchChangesNothing) {
  float running_mean = 5, running_variance = 7;
  const float scale = 1, bias = 0;
  reference::Channels channels;
  reference::training<float>({Format::NCHW, 0, 1, 4}, nullptr, &scale, &bias, 1e-5, 0.1, nullptr, &running_mean,
                             &running_variance, channels);
  EXPECT_EQ(running_mean, 5);
  EXPECT_EQ(running_variance, 7);
}

TEST(ReferenceTraining, OneValuePerChannelYieldsBias) {
  const float x = 3, scale = 2, bias = 0.5F;
  float y = 0, running_mean = 0, running_variance = 1;
  reference::Channels channels;
  reference::training({Format::NHWC, 1, 1, 1}, &x, &scale, &bias, 1e-5, 0.5, &y, &running_mean, &running_variance, channels);
  EXPECT_EQ(y, bias);
  EXPECT_EQ(running_mean, 1.5F);
  EXPECT_EQ(running_variance, 0.5F);
}

// What may lie between the two, in epsilons of the type at the largest term: no term of y or dx below exceeds 8. The library
// computes y and dx of float in float and promises 5.5 ulp at most (docs/numerics.md), and an ulp below 8 is half of 8
// epsilons. In double the reference is the worse one: a plain sum of m values strays by about the root of m <= 5740 roundings,
// and the mean enters every y.
template <class T>
constexpr double units_allowed = std::is_same_v<T, float> ? 4 : 40;
constexpr double largest_term = 8;

template <class T>
class ReferenceAndLibrary : public testing::Test {};
using ComputedTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(ReferenceAndLibrary, ComputedTypes);

/// Values about an offset of 3, and room for what both make of them.
template <class T>
struct Problem {
  Shape shape;
  Format format;
  reference::Extents e = reference::extents_of(shape, format);
  std::vector<T> x, dy, y, dx, want;
  std::vector<T> scale, bias, mean, variance, dscale, dbias, batch_mean, batch_variance;
  reference::Channels channels{};

  Problem(const Shape& given_shape, Format given_format) : shape(given_shape), format(given_format) {
    std::mt19937 random(1);
    const auto fill = [&](std::vector<T>& values, std::int64_t count, double low, double high) {
      values.resize(static_cast<std::size_t>(count));
      for (T& value : values) value = static_cast<T>(std::uniform_real_distribution<double>(low, high)(random));
    };
    for (auto* tensor : {&dy, &y, &dx, &want}) fill(*tensor, e.c * e.m(), -2, 2);
    for (auto* vector : {&scale, &bias, &dscale, &dbias, &batch_mean, &batch_variance}) fill(*vector, e.c, -2, 2);
    fill(x, e.c * e.m(), 1, 5);
    fill(mean, e.c, 2, 4);
    fill(variance, e.c, 1, 2);
  }

  TensorView<const T> view(const std::vector<T>& values) const { return {values.data(), shape}; }
  TensorView<T> view(std::vector<T>& values) const { return {values.data(), shape}; }
};

/// Each result against what it should be, to within `tolerance`.
template <class T, class Wanted>
void expect_near(const std::vector<T>& results, const std::vector<Wanted>& wanted, double tolerance, const char* what) {
  double worst = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    worst = std::max(worst, std::abs(reference::real(results[i]) - reference::real(wanted[i])));
  }
  EXPECT_LE(worst, tolerance) << what;
}

template <class T>
double tolerance() {
  return units_allowed<T> * largest_term * std::numeric_limits<T>::epsilon();
}

/// body(problem) for shapes of every rank, in both formats.
template <class T, class Body>
void for_each_problem(Body body) {
  for (const Format format : formats) {
    for (const Shape& shape :
         {Shape{37, 24}, Shape{4, 19, 33}, Shape{3, 16, 17, 16}, Shape{2, 5, 3, 7, 11}, Shape{2, 3, 70, 41}}) {
      SCOPED_TRACE(to_string(shape) + " " + std::string(to_string(format)));
      body(Problem<T>(shape, format));
    }
  }
}

TYPED_TEST(ReferenceAndLibrary, Training) {
  using T = TypeParam;
  for_each_problem<T>([](Problem<T> p) {
    std::vector<T> running_mean = p.mean, running_variance = p.variance;
    batchnorm::batch_norm<T>(p.format, {.is_training = true, .epsilon = 1e-3, .momentum = 0.3}, p.view(p.x), p.scale, p.bias,
                             running_mean, running_variance,
                             {.output_x = p.view(p.y), .batch_mean = p.batch_mean, .batch_variance = p.batch_variance});
    reference::training(p.e, p.x.data(), p.scale.data(), p.bias.data(), 1e-3, 0.3, p.want.data(), p.mean.data(),
                        p.variance.data(), p.channels);
    expect_near(p.y, p.want, tolerance<T>(), "y");
    expect_near(p.batch_mean, p.channels.mean, tolerance<T>(), "batch mean");
    expect_near(p.batch_variance, p.channels.variance, tolerance<T>(), "batch variance");
    expect_near(running_mean, p.mean, tolerance<T>(), "running mean");
    expect_near(running_variance, p.variance, tolerance<T>(), "running variance");
  });
}

TYPED_TEST(ReferenceAndLibrary, Inference) {
  using T = TypeParam;
  for_each_problem<T>([](Problem<T> p) {
    batchnorm::batch_norm<T>(p.format, {.epsilon = 1e-3}, p.view(p.x), p.scale, p.bias, p.mean, p.variance,
                             {.output_x = p.view(p.y)});
    reference::inference(p.e, p.x.data(), p.scale.data(), p.bias.data(), p.mean.data(), p.variance.data(), 1e-3, p.want.data(),
                         p.channels);
    expect_near(p.y, p.want, tolerance<T>(), "y");
  });
}

TYPED_TEST(ReferenceAndLibrary, Backward) {
  using T = TypeParam;
  for (const bool is_training : {true, false}) {
    SCOPED_TRACE(is_training ? "training" : "inference");
    for_each_problem<T>([is_training](Problem<T> p) {
      if (is_training) {
        reference::statistics(p.e, p.x.data(), p.channels);
        std::ranges::transform(p.channels.mean, p.mean.begin(), [](double value) { return static_cast<T>(value); });
        std::ranges::transform(p.channels.variance, p.variance.begin(), [](double value) { return static_cast<T>(value); });
      }
      batchnorm::batch_norm_backward<T>(p.format, {.is_training = is_training, .epsilon = 1e-3}, p.view(p.dy), p.view(p.x),
                                        p.scale, p.mean, p.variance,
                                        {.dx = p.view(p.dx), .dscale = p.dscale, .dbias = p.dbias});
      const auto backward = is_training ? reference::backward_training<T, T, T> : reference::backward_inference<T, T, T>;
      backward(p.e, p.dy.data(), p.x.data(), p.scale.data(), p.mean.data(), p.variance.data(), 1e-3, p.want.data(), p.channels);
      expect_near(p.dx, p.want, tolerance<T>(), "dx");
      const double terms = std::sqrt(reference::real(p.e.m()));  // their roundings grow with the root of m
      expect_near(p.dscale, p.channels.dscale, terms * tolerance<T>(), "dscale");
      expect_near(p.dbias, p.channels.dbias, terms * tolerance<T>(), "dbias");
    });
  }
}

}  // namespace
