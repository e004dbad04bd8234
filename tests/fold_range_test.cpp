// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <batchnorm/fold.hpp>

#include "support/buffers.hpp"
#include "support/cases.hpp"
#include "support/messages.hpp"
#include "support/oracle.hpp"

// Folded weights and biases that leave the range of their type, though all that they are made of is finite.
namespace {

using namespace support;
using batchnorm::affine_map;
using batchnorm::AffineMap;
using batchnorm::bfloat16;
using batchnorm::fold_after;
using batchnorm::fold_after_transposed;
using batchnorm::fold_before;
using batchnorm::FoldedLayerViews;
using batchnorm::half;
using batchnorm::TensorView;
using batchnorm::ValueError;

const std::string remedy = "; use a wider type, or keep the batch norm as a layer of its own";

/// Weights [2, 2] of that value, a bias of 1, and where their folded ones go.
template <class T>
struct Layer {
  std::vector<T> weights, bias;

  explicit Layer(double weight) : weights(4, element<T>(weight)), bias(2, element<T>(1)) {}
  TensorView<const T> weights_view() const { return {weights.data(), {2, 2}}; }
  TensorView<const T> bias_view() const { return {bias.data(), {2}}; }
  FoldedLayerViews<T> in_place() { return {{weights.data(), {2, 2}}, {bias.data(), {2}}}; }
};

/// What the fold in place says, once it is seen that it has written nothing.
template <class T, class Fold>
std::string refused(double weight, const Fold& fold) {
  Layer<T> layer(weight);
  const Layer<T> before = layer;
  const std::string message = message_of<ValueError>([&] { fold(layer); });
  EXPECT_TRUE(same_bits(layer.weights, before.weights) && same_bits(layer.bias, before.bias)) << "something was written";
  return message;
}

TEST(FoldBeyondTheRange, OfHalfWeightsByALargeFactorIsAnErrorThatNamesTheChannelAndTheValue) {
  const AffineMap map{{1, 95000}, {0, 0}};
  EXPECT_EQ(
      refused<half>(2, [&](auto& l) { fold_after<half>(l.weights_view(), nullptr, map, l.in_place()); }),
      "batchnorm::fold_after: folded.weights leaves the range of half: in channel 1 of the map 95000 * 2 is 190000" + remedy);
  EXPECT_EQ(refused<half>(-2, [&](auto& l) { fold_after_transposed<half>(l.weights_view(), nullptr, map, l.in_place()); }),
            "batchnorm::fold_after_transposed: folded.weights leaves the range of half: in channel 1 of the map 95000 * -2 is "
            "-190000" +
                remedy);
  EXPECT_EQ(
      refused<half>(2, [&](auto& l) { fold_before<half>(l.weights_view(), nullptr, map, l.in_place()); }),
      "batchnorm::fold_before: folded.weights leaves the range of half: in channel 1 of the map 95000 * 2 is 190000" + remedy);
}

TEST(FoldBeyondTheRange, IsToldOfEveryType) {
  const auto of = [](auto zero, double weight, double factor) {
    using T = decltype(zero);
    return message_of<ValueError>([&] {
      const Layer<T> layer(weight);
      fold_after<T>(layer.weights_view(), nullptr, AffineMap{{factor, 1}, {0, 0}});
    });
  };
  const std::string call = "batchnorm::fold_after: folded.weights leaves the range of ";
  EXPECT_EQ(of(bfloat16(), 0x1p100, 0x1p28), call + "bfloat16: in channel 0 of the map 268435456 * " +
                                                 batchnorm::arguments::to_string(0x1p100) + " is " +
                                                 batchnorm::arguments::to_string(0x1p128) + remedy);
  EXPECT_EQ(of(0.0F, 0x1p100, 0x1p28), call + "float: in channel 0 of the map 268435456 * " +
                                           batchnorm::arguments::to_string(0x1p100) + " is " +
                                           batchnorm::arguments::to_string(0x1p128) + remedy);
  EXPECT_EQ(of(0.0, 1e300, 1e10), call + "double: in channel 0 of the map 1e+10 * 1e+300 is inf" + remedy);
  // The largest numbers are within.
  EXPECT_EQ(of(half(), 65504, 1), "<no exception>");
  EXPECT_EQ(of(half(), 1, 65519), "<no exception>") << "rounds to 65504";
  EXPECT_EQ(of(half(), 1, 65520), call + "half: in channel 0 of the map 65520 * 1 is 65520" + remedy);
}

TEST(FoldBeyondTheRange, OfTheBiasIsAnErrorToo) {
  const AffineMap factor{{1, 70000}, {0, 0}}, shift{{1, 1}, {0, -1e5}};
  EXPECT_EQ(refused<half>(0, [&](auto& l) { fold_after<half>(l.weights_view(), l.bias_view(), factor, l.in_place()); }),
            "batchnorm::fold_after: folded.bias leaves the range of half: in channel 1 it is 70000" + remedy);
  EXPECT_EQ(refused<half>(0, [&](auto& l) { fold_after<half>(l.weights_view(), l.bias_view(), shift, l.in_place()); }),
            "batchnorm::fold_after: folded.bias leaves the range of half: in channel 1 it is -99999" + remedy);
  EXPECT_EQ(refused<half>(1, [&](auto& l) { fold_before<half>(l.weights_view(), l.bias_view(), shift, l.in_place()); }),
            "batchnorm::fold_before: folded.bias leaves the range of half: in channel 0 it is -99999" + remedy);
  // A float bias of half weights holds it.
  const Layer<half> layer(1);
  EXPECT_EQ((fold_after<half, float>(layer.weights_view(), nullptr, shift).bias[1]), -1e5F);
}

TEST(FoldBeyondTheRange, LeavesWhatWasNotFiniteBefore) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Layer<half> layer(1), infinite(infinity);
  const auto by_map = fold_after<half>(layer.weights_view(), nullptr, AffineMap{{infinity, 1}, {1, infinity}});
  EXPECT_EQ(real(by_map.weights[0]), infinity);
  EXPECT_EQ(real(by_map.bias[1]), infinity);
  const auto by_weights = fold_before<half>(infinite.weights_view(), nullptr, AffineMap{{2, 2}, {1, 1}});
  EXPECT_EQ(real(by_weights.weights[3]), infinity);
  EXPECT_EQ(real(by_weights.bias[1]), infinity);
}

TEST(AffineMapBeyondTheRange, OfFiniteParametersIsAnErrorThatNamesTheChannel) {
  const std::vector<double> ones{1, 1}, zeros{0, 0}, large{1, 1e308}, infinite{1, std::numeric_limits<double>::infinity()};
  EXPECT_EQ(
      message_of<ValueError>([&] { affine_map<double>({.scale = large, .mean = ones, .variance = zeros}, 1e-4); }),
      "batchnorm::affine_map: the map leaves the range of double: in channel 1 the factor is inf and the shift -inf" + remedy);
  EXPECT_EQ(
      message_of<ValueError>([&] { affine_map<double>({.scale = ones, .mean = large, .variance = zeros}, 1e-4); }),
      "batchnorm::affine_map: the map leaves the range of double: in channel 1 the factor is 100 and the shift -inf" + remedy);
  EXPECT_EQ(affine_map<double>({.scale = infinite, .mean = zeros, .variance = zeros}, 1e-4).factor[1], infinite[1]);
  EXPECT_EQ(affine_map<double>({.mean = ones, .variance = infinite}, 1e-4).factor[1], 0);
}

}  // namespace
