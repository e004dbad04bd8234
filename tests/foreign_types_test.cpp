// SPDX-License-Identifier: MIT
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/explain.hpp>

#include "support/calls.hpp"

// Types at the edge: element types deduced from what holds the elements, and the compiler's own 16-bit types.
namespace {

using namespace support;
using batchnorm::BatchNorm;
using batchnorm::bfloat16;
using batchnorm::half;
using batchnorm::Tensor;
using batchnorm::TensorLike;
using batchnorm::TensorView;

static_assert(TensorLike<Tensor<half>> && TensorLike<TensorView<const float>> && TensorLike<TensorView<double>>);
static_assert(TensorLike<std::vector<float>> && TensorLike<std::span<const bfloat16>> && TensorLike<std::array<double, 3>>);
static_assert(!TensorLike<float> && !TensorLike<std::nullptr_t> && !TensorLike<std::vector<int>>);

template <class T>
Tensor<T> counted(const Shape& shape) {
  Tensor<T> tensor(shape);
  for (std::int64_t i = 0; i < tensor.size(); ++i) tensor[i] = static_cast<T>(static_cast<float>(i * 7 % 11));
  return tensor;
}

TEST(Deduction, FromTensorsAndViews) {
  const Tensor<half> x = counted<half>({4, 3, 5});
  std::vector<float> mean(3), variance(3, 1.0F), same_mean(3), same_variance(3, 1.0F);
  Tensor<half> y(x.shape()), want(x.shape());
  batchnorm::batch_norm<half>(Format::NCHW, {.is_training = true}, {.x = x, .mean = mean, .variance = variance},
                              {.output_x = want});
  batchnorm::batch_norm(Format::NCHW, {.is_training = true}, x, nullptr, nullptr, same_mean, same_variance, {.output_x = y});
  EXPECT_TRUE(same_bits(values_of(y), values_of(want)));
  EXPECT_EQ(same_mean, mean);

  const auto moments = batchnorm::moments(x, Format::NCHW);
  EXPECT_EQ(moments.mean, batchnorm::moments<half>(x, Format::NCHW).mean);
  EXPECT_EQ(batchnorm::moments(x.view(), Format::NCHW).m2, moments.m2);
  EXPECT_EQ(batchnorm::explain(batchnorm::Pass::training, x, Format::NCHW),
            batchnorm::explain<half>(batchnorm::Pass::training, x, Format::NCHW));

  Tensor<half> dx(x.shape()), want_dx(x.shape());
  batchnorm::batch_norm_backward<half>(Format::NCHW, {.is_training = true},
                                       {.dy = y, .x = x, .mean = mean, .variance = variance}, {.dx = want_dx});
  batchnorm::batch_norm_backward(Format::NCHW, {.is_training = true}, y, x, nullptr, mean, variance, {.dx = dx});
  EXPECT_TRUE(same_bits(values_of(dx), values_of(want_dx)));

  const Tensor<float> weights = counted<float>({3, 2});
  const batchnorm::AffineMap map{{1, 2, 3}, {4, 5, 6}};
  EXPECT_TRUE(same_bits(values_of(batchnorm::fold_after(weights, nullptr, map).weights),
                        values_of(batchnorm::fold_after<float>(weights, {}, map).weights)));
}

#if defined(__FLT16_MAX__)
using Own = _Float16;
#elif defined(__STDCPP_FLOAT16_T__)
using Own = std::float16_t;
#endif

#if defined(__FLT16_MAX__) || defined(__STDCPP_FLOAT16_T__)
static_assert(std::is_constructible_v<TensorView<half>, Own*, Shape>);
static_assert(std::is_constructible_v<TensorView<const half>, const Own*, Shape>);
static_assert(!std::is_constructible_v<TensorView<half>, const Own*, Shape>);
static_assert(!std::is_constructible_v<TensorView<bfloat16>, Own*, Shape>);
static_assert(std::is_convertible_v<std::vector<Own>&, TensorView<half>>);
static_assert(!std::is_convertible_v<const std::vector<Own>&, TensorView<half>>);

TEST(OwnFloat16, IsReadAndWrittenAsHalf) {
  const Tensor<half> x = counted<half>({6, 5});
  std::vector<Own> own_x(30), own_y(30), scale(5, Own(2)), mean(5), variance(5, Own(1));
  for (std::size_t i = 0; i < own_x.size(); ++i) own_x[i] = static_cast<Own>(static_cast<float>(x.data()[i]));
  std::vector<half> same_scale(5, half(2.0F)), same_mean(5, half(0.0F)), same_variance(5, half(1.0F));
  const BatchNorm<half, Format::NHWC, half> training(true);
  const auto want = training({.x = x, .scale = same_scale, .mean = same_mean, .variance = same_variance});
  training({.x = {own_x.data(), x.shape()}, .scale = scale, .mean = {mean.data(), {5}}, .variance = {variance.data(), {5}}},
           {.output_x = {own_y.data(), x.shape()}});
  for (std::size_t i = 0; i < own_y.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint16_t>(own_y[i]), std::bit_cast<std::uint16_t>(want.output_x.data()[i])) << i;
  }
  for (std::size_t c = 0; c < 5; ++c) {
    EXPECT_EQ(static_cast<float>(mean[c]), static_cast<float>(same_mean[c]));
    EXPECT_NE(static_cast<float>(mean[c]), 0);
  }
}

TEST(OwnFloat16, ThatIsConstantIsRefusedByTraining) {
  const std::vector<Own> constant(5, Own(1));
  std::vector<Own> x(10), y(10);
  const batchnorm::OutputViews<half, half> out{{y.data(), {2, 5}}};
  const batchnorm::InputViews<half, half> in{
      .x = {x.data(), {2, 5}}, .mean = {constant.data(), {5}}, .variance = {constant.data(), {5}, {1}}};
  EXPECT_TRUE(in.mean.is_constant() && in.variance.is_constant());
  EXPECT_FALSE((BatchNorm<half, Format::NHWC, half>().check(in, out)));
  EXPECT_TRUE((BatchNorm<half, Format::NHWC, half>(true).check(in, out)));
}

// The compiler may take both types for ones that share no memory.
TEST(OwnFloat16, IsWrittenBeforeTheCallAndReadAfterIt) {
  for (int round = 1; round < 50; ++round) {
    std::array<Own, 8> x{}, y{};
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<Own>(static_cast<float>(round) * (i % 2 == 0 ? 1.0F : -1.0F));
    BatchNorm<half>(true)({.x = {x.data(), {4, 2}}, .mean = {}, .variance = {}}, {.output_x = {y.data(), {4, 2}}});
    for (const Own value : y) ASSERT_EQ(static_cast<float>(value), 0.0F) << "a constant channel gives its bias";
    x[0] = static_cast<Own>(static_cast<float>(x[0]) + 1.0F);
    BatchNorm<half>(true)({.x = {x.data(), {4, 2}}, .mean = {}, .variance = {}}, {.output_x = {y.data(), {4, 2}}});
    ASSERT_GT(static_cast<float>(y[0]), 1.0F);
  }
}
#else
TEST(OwnFloat16, IsReadAndWrittenAsHalf) { GTEST_SKIP() << "this compiler has no _Float16 here"; }
#endif

#if defined(__STDCPP_BFLOAT16_T__)
TEST(OwnBfloat16, IsReadAndWrittenAsBfloat16) {
  const Tensor<bfloat16> x = counted<bfloat16>({6, 5});
  std::vector<std::bfloat16_t> own_x(30), own_y(30);
  for (std::size_t i = 0; i < own_x.size(); ++i) own_x[i] = static_cast<std::bfloat16_t>(static_cast<float>(x.data()[i]));
  const BatchNorm<bfloat16, Format::NHWC> training(true);
  const auto want = training({.x = x, .mean = {}, .variance = {}});
  training({.x = {own_x.data(), x.shape()}, .mean = {}, .variance = {}}, {.output_x = {own_y.data(), x.shape()}});
  for (std::size_t i = 0; i < own_y.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint16_t>(own_y[i]), std::bit_cast<std::uint16_t>(want.output_x.data()[i])) << i;
  }
}
#else
TEST(OwnBfloat16, IsReadAndWrittenAsBfloat16) { GTEST_SKIP() << "this compiler has no std::bfloat16_t"; }
#endif

}  // namespace
