// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/calls.hpp"
#include "support/messages.hpp"

// A layer and a batch norm, computed one after the other, against the folded layer. The layers are computed by their definition
// in long double, the batch norm by the library's operator in double.
namespace {

using namespace support;
using batchnorm::affine_map;
using batchnorm::AffineMap;
using batchnorm::BatchNorm;
using batchnorm::bfloat16;
using batchnorm::fold_after;
using batchnorm::fold_after_transposed;
using batchnorm::fold_before;
using batchnorm::FoldedLayer;
using batchnorm::FoldedLayerViews;
using batchnorm::half;
using batchnorm::ShapeError;
using batchnorm::Tensor;
using batchnorm::TensorView;
using batchnorm::ValueError;

constexpr double epsilon = 1e-3;

using Axes = std::array<std::int64_t, 3>;

/// A convolution with up to three spatial dimensions (extent 1 stands for none), plain or transposed; a linear layer has none.
struct Geometry {
  int spatial = 2;
  std::int64_t groups = 1, stride = 1, dilation = 1, padding = 0;
  bool transposed = false;
  std::int64_t inputs = 6, outputs = 12, images = 2;

  Axes along(Axes extents) const {
    for (std::size_t axis = static_cast<std::size_t>(spatial); axis < 3; ++axis) extents[axis] = 1;
    return extents;
  }
  Axes image() const { return along({5, 4, 3}); }
  Axes kernel() const { return along({2, 3, 2}); }

  std::int64_t out_extent(std::size_t axis) const {
    if (static_cast<int>(axis) >= spatial) return 1;
    const std::int64_t reach = dilation * (kernel()[axis] - 1) + 1;
    return transposed ? (image()[axis] - 1) * stride - 2 * padding + reach : (image()[axis] + 2 * padding - reach) / stride + 1;
  }
  Axes out() const { return {out_extent(0), out_extent(1), out_extent(2)}; }

  Shape shape(std::int64_t first, std::int64_t second, const Axes& extents) const {
    std::vector<std::int64_t> all{first, second};
    all.insert(all.end(), extents.begin(), extents.begin() + spatial);
    return Shape(all);
  }
  Shape weights_shape() const {
    return transposed ? shape(inputs, outputs / groups, kernel()) : shape(outputs, inputs / groups, kernel());
  }
  Shape x_shape() const { return shape(images, inputs, image()); }
  Shape y_shape() const { return shape(images, outputs, out()); }

  std::string text() const {
    return std::to_string(spatial) + "-D, groups " + std::to_string(groups) + ", stride " + std::to_string(stride) +
           ", dilation " + std::to_string(dilation) + ", padding " + std::to_string(padding);
  }
};

/// body(p0, p1, p2) for all positions below the extents.
template <class Body>
void for_each(const Axes& extents, Body&& body) {
  for (std::int64_t p0 = 0; p0 < extents[0]; ++p0) {
    for (std::int64_t p1 = 0; p1 < extents[1]; ++p1) {
      for (std::int64_t p2 = 0; p2 < extents[2]; ++p2) body(Axes{p0, p1, p2});
    }
  }
}

std::size_t flat(std::int64_t first, std::int64_t second, std::int64_t seconds, const Axes& at, const Axes& extents) {
  return static_cast<std::size_t>((((first * seconds + second) * extents[0] + at[0]) * extents[1] + at[1]) * extents[2] +
                                  at[2]);
}

using Reals = std::vector<Real>;

/// y = layer(x) by definition: every weight joins an output with the input that it meets there, if that lies within the image.
Reals layer(const Geometry& g, const Reals& x, const Reals& weights, const Reals& bias) {
  const Axes image = g.image(), kernel = g.kernel(), out = g.out();
  const std::int64_t group_inputs = g.inputs / g.groups, group_outputs = g.outputs / g.groups;
  Reals y;
  for (std::int64_t n = 0; n < g.images; ++n) {
    for (std::int64_t o = 0; o < g.outputs; ++o)
      y.insert(y.end(), static_cast<std::size_t>(out[0] * out[1] * out[2]), bias[static_cast<std::size_t>(o)]);
  }
  // Transposed, the image of the layer is the output of the convolution that it is the transpose of.
  const Axes outer = g.transposed ? image : out, inner = g.transposed ? out : image;
  const auto join = [&](std::int64_t n, std::int64_t o, std::int64_t i, const Axes& k, const Axes& p) {
    Axes q{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      q[axis] = static_cast<int>(axis) < g.spatial ? p[axis] * g.stride + k[axis] * g.dilation - g.padding : 0;
      if (q[axis] < 0 || q[axis] >= inner[axis]) return;
    }
    const Real weight = g.transposed ? weights[flat(i, o % group_outputs, group_outputs, k, kernel)]
                                     : weights[flat(o, i % group_inputs, group_inputs, k, kernel)];
    const Real value = x[flat(n, i, g.inputs, g.transposed ? p : q, image)];
    y[flat(n, o, g.outputs, g.transposed ? q : p, out)] += weight * value;
  };
  for (std::int64_t n = 0; n < g.images; ++n) {
    for (std::int64_t o = 0; o < g.outputs; ++o) {
      const std::int64_t first = o / group_outputs * group_inputs;
      for (std::int64_t i = first; i < first + group_inputs; ++i) {
        for_each(kernel, [&](const Axes& k) { for_each(outer, [&](const Axes& p) { join(n, o, i, k, p); }); });
      }
    }
  }
  return y;
}

template <class Values, class Change = Real (*)(Real)>
Reals reals(
    const Values& values, Change&& change = [](Real value) { return value; }) {
  Reals result;
  for (const auto& value : values) result.push_back(change(real(value)));
  return result;
}

Real magnitude(Real value) { return std::abs(value); }

template <class T>
Real half_ulp(Real value) {
  return ulp_at<T>(std::abs(value)) / 2;
}

/// The statistics and parameters of a batch norm, each of order 1.
template <class P>
struct Norm {
  std::vector<P> mean, variance, scale, bias;

  Norm(std::int64_t channels, std::uint64_t seed)
      : mean(uniform<P>(channels, -2, 2, seed)),
        variance(uniform<P>(channels, 0.1, 3, seed + 1)),
        scale(uniform<P>(channels, -2, 2, seed + 2)),
        bias(uniform<P>(channels, -1, 1, seed + 3)) {}

  AffineMap map() const { return affine_map<P>({.scale = scale, .bias = bias, .mean = mean, .variance = variance}, epsilon); }

  /// By BatchNorm in double.
  Reals apply(const Reals& x, const Shape& shape) const {
    const std::vector<double> values(x.begin(), x.end());
    const auto widened = [](const std::vector<P>& v) { return std::vector<double>(v.begin(), v.end()); };
    std::vector<double> m = widened(mean), v = widened(variance);
    return reals(BatchNorm<double>(false, epsilon).output_x({values.data(), shape}, widened(scale), widened(bias), m, v));
  }

  /// What the digits of a normalised |x| hang on: the largest numbers on the way to it.
  Real size(std::size_t c, Real absolute_x) const {
    const Real factor = std::abs(real(scale[c])) / std::sqrt(real(variance[c]) + static_cast<Real>(epsilon));
    return factor * (absolute_x + std::abs(real(mean[c]))) + std::abs(real(bias[c])) + std::abs(real(scale[c]));
  }
};

template <class T>
struct Layer {
  Geometry geometry;
  std::vector<T> weights, bias;  ///< the bias is empty where there is none

  Layer(const Geometry& g, bool has_bias, std::uint64_t seed)
      : geometry(g), weights(uniform<T>(element_count(g.weights_shape()), -1, 1, seed)) {
    if (has_bias) bias = uniform<T>(g.outputs, -1, 1, seed + 1);
  }

  TensorView<const T> weights_view() const { return {weights.data(), geometry.weights_shape()}; }
  TensorView<const T> bias_view() const { return bias.empty() ? TensorView<const T>() : TensorView<const T>(bias); }
  Reals real_bias() const { return bias.empty() ? Reals(static_cast<std::size_t>(geometry.outputs)) : reals(bias); }
};

// Roundings in double on the way: the convolution's result and the six of the batch norm (2.5 to 3 ulp), three in factor, one
// in shift, two in each folded weight and bias.
constexpr Real double_roundings = 16 * 0x1p-53L;
// On top of these the chain that sums the bias of fold_before: one for each of at most 6 * 12 weights of an output channel.
constexpr Real double_roundings_of_sum = 72 * 0x1p-53L;

/// |got - expected| <= allowed, element by element.
void expect_within(const Reals& got, const Reals& expected, const Reals& allowed) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - expected[i]), allowed[i]) << "at " << i << ": " << got[i] << ", expected " << expected[i];
  }
}

template <class T>
class Fold : public testing::Test {};
using Elements = testing::Types<float, double, half, bfloat16>;
struct ElementNames {
  template <class T>
  static std::string GetName(int) {
    return std::string(batchnorm::element_name<T>());
  }
};
TYPED_TEST_SUITE(Fold, Elements, ElementNames);

/// The error that one rounding of each folded weight and bias may bring into the output.
template <class T>
Reals rounding_bound(const Geometry& g, const Reals& x, const FoldedLayer<T>& folded) {
  return layer(g, reals(x, magnitude), reals(folded.weights, half_ulp<T>), reals(folded.bias, half_ulp<T>));
}

template <class T>
void expect_folds_after(const Geometry& g, bool has_bias) {
  SCOPED_TRACE(g.text() + (has_bias ? ", bias" : ""));
  const Layer<T> before(g, has_bias, 3);
  const Norm<T> norm(g.outputs, 11);
  const Reals x = reals(uniform<double>(element_count(g.x_shape()), -2, 2, 7));
  const Reals linear = layer(g, x, reals(before.weights), before.real_bias());
  const Reals expected = norm.apply(linear, g.y_shape());

  const FoldedLayer<T> folded = g.transposed
                                    ? fold_after_transposed<T>(before.weights_view(), before.bias_view(), norm.map(), g.groups)
                                    : fold_after<T>(before.weights_view(), before.bias_view(), norm.map());
  Reals allowed = rounding_bound(g, x, folded);
  const Reals sizes = layer(g, reals(x, magnitude), reals(before.weights, magnitude), reals(before.real_bias(), magnitude));
  const std::size_t plane = allowed.size() / static_cast<std::size_t>(g.images * g.outputs);
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    allowed[i] += double_roundings * norm.size(i / plane % static_cast<std::size_t>(g.outputs), sizes[i]);
  }
  expect_within(layer(g, x, reals(folded.weights), reals(folded.bias)), expected, allowed);
}

/// body(geometry, has_bias) for ranks 3 to 5, all in groups of 1, 2, 3 and depthwise.
template <class Body>
void for_each_convolution(const std::vector<std::int64_t>& paddings, Body&& body) {
  for (const int spatial : {1, 2, 3}) {
    for (const std::int64_t groups : {1, 2, 3, 6}) {
      for (const std::int64_t padding : paddings) {
        for (const bool has_bias : {true, false}) {
          body(Geometry{.spatial = spatial, .groups = groups, .padding = padding}, has_bias);
          body(Geometry{.spatial = spatial, .groups = groups, .stride = 2, .padding = padding}, has_bias);
        }
        // Only where the dilated kernel, 2 (3 - 1) + 1 wide, fits into an image of 4.
        if (spatial == 1 || padding > 0) {
          body(Geometry{.spatial = spatial, .groups = groups, .stride = 2, .dilation = 2, .padding = padding}, true);
        }
      }
    }
  }
}

TYPED_TEST(Fold, AfterAConvolution) {
  for_each_convolution({0, 1, 2}, [](const Geometry& g, bool has_bias) { expect_folds_after<TypeParam>(g, has_bias); });
}

TYPED_TEST(Fold, AfterATransposedConvolution) {
  for_each_convolution({0, 1}, [](Geometry g, bool has_bias) {
    g.transposed = true;
    expect_folds_after<TypeParam>(g, has_bias);
  });
}

TYPED_TEST(Fold, AfterALinearLayer) {
  for (const bool has_bias : {true, false}) {
    expect_folds_after<TypeParam>({.spatial = 0, .images = 5}, has_bias);
    expect_folds_after<TypeParam>({.spatial = 0, .transposed = true, .images = 5}, has_bias);
  }
}

template <class T>
void expect_folds_before(const Geometry& g, bool has_bias) {
  SCOPED_TRACE(g.text() + (has_bias ? ", bias" : ""));
  const Layer<T> after(g, has_bias, 5);
  const Norm<T> norm(g.inputs, 13);
  const Reals x = reals(uniform<double>(element_count(g.x_shape()), -2, 2, 9));
  const Reals expected = layer(g, norm.apply(x, g.x_shape()), reals(after.weights), after.real_bias());

  const FoldedLayer<T> folded = fold_before<T>(after.weights_view(), after.bias_view(), norm.map(), g.groups);
  Reals sizes = reals(x, magnitude);
  const std::size_t plane = x.size() / static_cast<std::size_t>(g.images * g.inputs);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    sizes[i] = norm.size(i / plane % static_cast<std::size_t>(g.inputs), sizes[i]);
  }
  sizes = layer(g, sizes, reals(after.weights, magnitude), reals(after.real_bias(), magnitude));
  Reals allowed = rounding_bound(g, x, folded);
  for (std::size_t i = 0; i < allowed.size(); ++i) allowed[i] += (double_roundings + double_roundings_of_sum) * sizes[i];
  expect_within(layer(g, x, reals(folded.weights), reals(folded.bias)), expected, allowed);
}

TYPED_TEST(Fold, BeforeAConvolutionWithoutPadding) {
  for_each_convolution({0}, [](const Geometry& g, bool has_bias) { expect_folds_before<TypeParam>(g, has_bias); });
}

TYPED_TEST(Fold, BeforeALinearLayer) {
  for (const bool has_bias : {true, false}) expect_folds_before<TypeParam>({.spatial = 0, .images = 5}, has_bias);
}

// The two give the same inside and differ where the kernel reaches into the padding, as the header says.
TEST(Fold, BeforeAConvolutionWithZeroPaddingDiffersAtTheBorderOnly) {
  const Geometry g{.spatial = 1, .padding = 1};
  const Layer<double> after(g, true, 5);
  const Norm<double> norm(g.inputs, 13);
  const Reals x = reals(uniform<double>(element_count(g.x_shape()), -2, 2, 9));
  const Reals expected = layer(g, norm.apply(x, g.x_shape()), reals(after.weights), after.real_bias());
  const auto folded = fold_before<double>(after.weights_view(), after.bias_view(), norm.map());
  const Reals got = layer(g, x, reals(folded.weights), reals(folded.bias));
  const auto width = static_cast<std::size_t>(g.out()[0]);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool border = i % width == 0 || i % width == width - 1;
    // Inside: some hundred roundings at magnitudes below 100. At the border a sum of six shifts of order 1 is missing.
    EXPECT_EQ(std::abs(got[i] - expected[i]) > 1e-10L, border) << "at " << i;
  }
}

template <class P>
class AffineMapOf : public testing::Test {};
TYPED_TEST_SUITE(AffineMapOf, Elements, ElementNames);

TYPED_TEST(AffineMapOf, IsTheFormulaInDouble) {
  const Norm<TypeParam> norm(50, 21);
  const AffineMap map = norm.map();
  ASSERT_EQ(map.factor.size(), 50U);
  ASSERT_EQ(map.shift.size(), 50U);
  for (std::size_t c = 0; c < 50; ++c) {
    const Real factor = real(norm.scale[c]) / std::sqrt(real(norm.variance[c]) + static_cast<Real>(epsilon));
    const Real product = real(norm.mean[c]) * factor;
    EXPECT_LE(error(map.factor[c], factor), 3 * 0x1p-53L * std::abs(factor)) << "sum, root and quotient round once each";
    EXPECT_LE(error(map.shift[c], real(norm.bias[c]) - product),
              0x1p-53L * (3 * std::abs(product) + std::abs(real(norm.bias[c]) - product)) * 1.01L)
        << "the factor's error, and one rounding";
  }
}

TYPED_TEST(AffineMapOf, AbsentScaleAndBiasAreOneAndZero) {
  using P = TypeParam;
  const Norm<P> norm(9, 21);
  const std::vector<P> ones(9, element<P>(1)), zeros(9, element<P>(0));
  const auto expect_same = [](const AffineMap& a, const AffineMap& b) {
    EXPECT_TRUE(same_bits(a.factor, b.factor) && same_bits(a.shift, b.shift));
  };
  expect_same(affine_map<P>({.bias = norm.bias, .mean = norm.mean, .variance = norm.variance}, epsilon),
              affine_map<P>({.scale = ones, .bias = norm.bias, .mean = norm.mean, .variance = norm.variance}, epsilon));
  expect_same(affine_map<P>({.scale = norm.scale, .mean = norm.mean, .variance = norm.variance}, epsilon),
              affine_map<P>({.scale = norm.scale, .bias = zeros, .mean = norm.mean, .variance = norm.variance}, epsilon));
}

TEST(AffineMap, OfNoChannelsIsEmpty) {
  const std::vector<float> none;
  const AffineMap map = affine_map<float>({.scale = none, .mean = none, .variance = none}, epsilon);
  EXPECT_TRUE(map.factor.empty() && map.shift.empty());
}

TEST(AffineMap, IsNaNWhereTheVarianceIsBelowMinusEpsilon) {
  const std::vector<double> mean{1, 1, 1}, variance{-0.5, -2 * epsilon, 0.25 - epsilon};
  const AffineMap map = affine_map<double>({.mean = mean, .variance = variance}, epsilon);
  for (const std::size_t c : {0U, 1U}) EXPECT_TRUE(std::isnan(map.factor[c]) && std::isnan(map.shift[c]));
  EXPECT_EQ(map.factor[2], 2.0);
  EXPECT_EQ(map.shift[2], -2.0);
}

TEST(Fold, ANaNChannelStaysOne) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<float> weights{1, 0, 3, 4};
  const AffineMap map{{nan, 2}, {nan, 1}};
  const auto after = fold_after<float>({weights.data(), {2, 2}}, nullptr, map);
  EXPECT_TRUE(std::isnan(after.weights[0]) && std::isnan(after.weights[1]) && std::isnan(after.bias[0]));
  EXPECT_EQ(after.weights[2], 6);
  EXPECT_EQ(after.weights[3], 8);
  EXPECT_EQ(after.bias[1], 1);
  // One input that is NaN reaches every output of its group, and none of another group.
  const auto before = fold_before<float>({weights.data(), {4, 1, 1}}, nullptr, map, 2);
  EXPECT_TRUE(std::isnan(before.bias[0]) && std::isnan(before.bias[1]));
  EXPECT_EQ(before.bias[2], 3);
  EXPECT_EQ(before.bias[3], 4);
}

// Small integers and powers of two: everything is exact, so the indices must be right.
TEST(Fold, ExactNumbersOfGroups) {
  const std::vector<float> weights{1, 2, 3, 4, 5, 6, 7, 8};  // [4, 1, 2]
  const TensorView<const float> view(weights.data(), Shape{4, 1, 2});
  const std::vector<float> bias{10, 20, 30, 40};
  const AffineMap two{{2, 4}, {1, -1}}, four{{1, 2, 4, 8}, {1, 2, 3, 4}};
  const auto expect = [](const FoldedLayer<float>& got, const std::vector<float>& folded,
                         const std::vector<float>& folded_bias) {
    EXPECT_EQ(std::vector<float>(got.weights.begin(), got.weights.end()), folded);
    EXPECT_EQ(std::vector<float>(got.bias.begin(), got.bias.end()), folded_bias);
  };
  expect(fold_after<float>(view, bias, four), {1, 2, 6, 8, 20, 24, 56, 64}, {11, 42, 123, 324});
  expect(fold_after<float>(view, nullptr, four), {1, 2, 6, 8, 20, 24, 56, 64}, {1, 2, 3, 4});
  expect(fold_before<float>(view, bias, two, 2), {2, 4, 6, 8, 20, 24, 28, 32}, {13, 27, 19, 25});
  expect(fold_after_transposed<float>(view, {bias.data(), {2}}, two, 2), {2, 4, 6, 8, 20, 24, 28, 32}, {21, 79});
  const AffineMap one{{3}, {-1}};
  expect(fold_after_transposed<float>(view, nullptr, one), {3, 6, 9, 12, 15, 18, 21, 24}, {-1});
}

/// body(fold, layer, map) for each of the folds, with an owned result and one in the caller's buffers.
template <class T>
struct Folds {
  using Owned = std::function<FoldedLayer<T>(const Layer<T>&)>;
  using Into = std::function<void(TensorView<const T>, TensorView<const T>, const FoldedLayerViews<T>&)>;

  Geometry geometry;
  Owned owned;
  Into into;
};

template <class T>
std::vector<Folds<T>> every_fold() {
  const Geometry plain{.groups = 2}, transposed{.groups = 2, .transposed = true};
  const AffineMap out = Norm<T>(plain.outputs, 11).map(), in = Norm<T>(plain.inputs, 13).map();
  return {{plain, [=](const Layer<T>& l) { return fold_after<T>(l.weights_view(), l.bias_view(), out); },
           [=](auto w, auto b, const auto& to) { fold_after<T>(w, b, out, to); }},
          {transposed, [=](const Layer<T>& l) { return fold_after_transposed<T>(l.weights_view(), l.bias_view(), out, 2); },
           [=](auto w, auto b, const auto& to) { fold_after_transposed<T>(w, b, out, to, 2); }},
          {plain, [=](const Layer<T>& l) { return fold_before<T>(l.weights_view(), l.bias_view(), in, 2); },
           [=](auto w, auto b, const auto& to) { fold_before<T>(w, b, in, to, 2); }}};
}

TYPED_TEST(Fold, InPlaceAndInTheCallersBuffersIsTheSame) {
  using T = TypeParam;
  for (const auto& fold : every_fold<T>()) {
    const Layer<T> original(fold.geometry, true, 3);
    const FoldedLayer<T> expected = fold.owned(original);
    const auto expect_same = [&](const std::vector<T>& weights, const std::vector<T>& bias) {
      EXPECT_TRUE(same_bits(weights, values_of(expected.weights)));
      EXPECT_TRUE(same_bits(bias, values_of(expected.bias)));
    };
    const Shape shape = fold.geometry.weights_shape();
    std::vector<T> weights(original.weights.size()), bias(original.bias.size());
    fold.into(original.weights_view(), original.bias_view(), {{weights.data(), shape}, bias});
    expect_same(weights, bias);

    Layer<T> in_place = original;
    fold.into(in_place.weights_view(), in_place.bias_view(), {{in_place.weights.data(), shape}, in_place.bias});
    expect_same(in_place.weights, in_place.bias);
  }
}

// Weights with the input channels innermost, as channels-last convolutions keep them; written backwards.
TYPED_TEST(Fold, StridesAreFollowed) {
  using T = TypeParam;
  for (const auto& fold : every_fold<T>()) {
    const Layer<T> original(fold.geometry, true, 3);
    const FoldedLayer<T> expected = fold.owned(original);
    const Shape shape = fold.geometry.weights_shape();
    const std::int64_t second = shape[1], taps = shape[2] * shape[3];
    const batchnorm::Strides last{second * taps, 1, shape[3] * second, second};
    const batchnorm::Strides backwards{-second * taps, -taps, -shape[3], -1};
    std::vector<T> weights(original.weights.size()), folded(weights.size()), bias(2 * original.bias.size()),
        folded_bias(bias.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      weights[static_cast<std::size_t>((at / (second * taps) * taps + at % taps) * second + at / taps % second)] =
          original.weights[i];
    }
    for (std::size_t o = 0; o < original.bias.size(); ++o) bias[2 * o] = original.bias[o];
    const Shape bias_shape{static_cast<std::int64_t>(original.bias.size())};
    fold.into({weights.data(), shape, last}, {bias.data(), bias_shape, {2}},
              {{folded.data() + folded.size() - 1, shape, backwards}, {folded_bias.data(), bias_shape, {2}}});
    std::reverse(folded.begin(), folded.end());
    EXPECT_TRUE(same_bits(folded, values_of(expected.weights)));
    for (std::size_t o = 0; o < original.bias.size(); ++o) {
      EXPECT_EQ(real(folded_bias[2 * o]), real(expected.bias[static_cast<std::int64_t>(o)]));
      EXPECT_EQ(real(folded_bias[2 * o + 1]), 0) << "between the elements";
    }
  }
}

template <class T>
class FoldRounds : public testing::Test {};
using Short = testing::Types<half, bfloat16>;
TYPED_TEST_SUITE(FoldRounds, Short, ElementNames);

/// The folded weight and bias of weight 1 under that factor, whose product is exact.
template <class T>
void expect_rounds(double factor, double expected) {
  const T one = element<T>(1);
  const auto folded = fold_after<T>({&one, {1, 1}}, nullptr, AffineMap{{factor}, {factor}});
  EXPECT_EQ(real(folded.weights[0]), expected) << std::hexfloat << factor;
  EXPECT_EQ(real(folded.bias[0]), expected) << std::hexfloat << factor;
}

// Near a midpoint of neighbours a rounding by way of float would land on it, and go to the even one.
TYPED_TEST(FoldRounds, OnceToNearestEven) {
  constexpr Precision p = precision<TypeParam>();
  for (const int exponent : {0, 5, -7, p.lowest, p.highest}) {
    for (const double sign : {1.0, -1.0}) {
      for (const int last : {0, 1, 2, 17}) {
        const double scale = sign * std::ldexp(1.0, exponent), ulp = std::ldexp(1.0, 1 - p.digits), below = 1 + last * ulp;
        const double beside = 0x1p-40;  // far below half an ulp of float
        expect_rounds<TypeParam>(scale * (below + ulp / 2 + beside), scale * (below + ulp));
        expect_rounds<TypeParam>(scale * (below + ulp / 2 - beside), scale * below);
        expect_rounds<TypeParam>(scale * (below + ulp / 2), scale * (last % 2 == 0 ? below : below + ulp));
        expect_rounds<TypeParam>(scale * below, scale * below);
      }
    }
  }
}

TYPED_TEST(FoldRounds, AtTheEndsOfTheFormat) {
  constexpr Precision p = precision<TypeParam>();
  const double smallest = std::ldexp(1.0, p.lowest - p.digits + 1);
  const double limit = std::ldexp(1.0, p.highest + 1), ulp = std::ldexp(1.0, p.highest - p.digits + 1);
  expect_rounds<TypeParam>(smallest, smallest);
  expect_rounds<TypeParam>(0.5 * smallest, 0);
  expect_rounds<TypeParam>(0.5 * smallest * (1 + 0x1p-40), smallest);
  expect_rounds<TypeParam>(2.5 * smallest * (1 + 0x1p-40), 3 * smallest);
  expect_rounds<TypeParam>(0x1p-1000, 0);
  expect_rounds<TypeParam>(limit - ulp, limit - ulp);
  expect_rounds<TypeParam>((limit - 0.5 * ulp) * (1 - 0x1p-40), limit - ulp);
  // What rounds to infinity is refused: fold_range_test.cpp.
}

TYPED_TEST(FoldRounds, AndTheBiasMayBeAFloat) {
  const TypeParam one = element<TypeParam>(1);
  const std::vector<float> bias{0x1.000002p0F};
  const AffineMap map{{2}, {0.5}};
  const auto folded = fold_after<TypeParam, float>({&one, {1, 1}}, bias, map);
  static_assert(std::is_same_v<decltype(folded.bias), Tensor<float>>);
  EXPECT_EQ(folded.bias[0], 2 * 0x1.000002p0F + 0.5F);
  EXPECT_EQ(real(folded.weights[0]), 2);
}

TEST(Fold, EmptyWeightsLeaveTheBias) {
  const std::vector<float> bias{1, 2};
  const AffineMap two{{2, 4}, {1, -1}}, none;
  const auto after = fold_after<float>({nullptr, {2, 0, 3}}, bias, two);
  EXPECT_EQ(after.weights.shape(), (Shape{2, 0, 3}));
  EXPECT_EQ(after.bias[0], 3);
  EXPECT_EQ(after.bias[1], 7);
  const auto before = fold_before<float>({nullptr, {2, 0}}, bias, none);
  EXPECT_EQ(before.bias[0], 1);
  EXPECT_EQ(before.bias[1], 2);
  EXPECT_EQ(fold_after<float>({nullptr, {0, 2}}, nullptr, none).bias.size(), 0);
  EXPECT_EQ(fold_before<float>({nullptr, {0, 2}}, nullptr, two, 1).bias.size(), 0);
}

/// A right call of fold_before (groups 2) or fold_after, to be made wrong in one place.
struct Arguments {
  std::vector<float> buffer = std::vector<float>(200, 777);
  Shape shape{4, 3, 2, 2};
  AffineMap in{std::vector<double>(6, 2), std::vector<double>(6, 1)}, out{std::vector<double>(4, 2), std::vector<double>(4, 1)};
  std::int64_t groups = 2;
  TensorView<const float> weights{at(0), shape}, bias{at(48), Shape{4}};
  FoldedLayerViews<float> folded{{at(52), shape}, {at(100), Shape{4}}};

  Arguments() = default;
  Arguments(const Arguments&) = delete;  // the views point into this object
  Arguments& operator=(const Arguments&) = delete;

  float* at(std::int64_t i) { return buffer.data() + i; }
  void before() { fold_before<float>(weights, bias, in, folded, groups); }
  void after() { fold_after<float>(weights, bias, out, folded); }
  void after_transposed() { fold_after_transposed<float>(weights, bias, in, folded, groups); }
};

using Call = void (Arguments::*)();
using Spoil = std::function<void(Arguments&)>;

/// The message of an Error from that call made wrong by `spoil`, which must leave every buffer as it was.
template <class Error>
void expect_error(Call call, const std::string& message, const Spoil& spoil) {
  Arguments arguments;
  spoil(arguments);
  const auto buffer = arguments.buffer;
  EXPECT_EQ(message_of<Error>([&] { (arguments.*call)(); }), "batchnorm::" + message);
  EXPECT_TRUE(same_bits(arguments.buffer, buffer)) << "something was written";
}

/// An error that does not depend on the direction.
template <class Error>
void expect_error(const std::string& message, const Spoil& spoil) {
  expect_error<Error>(&Arguments::before, "fold_before: " + message, spoil);
}

const std::string about_weights = " (weights is [4, 3, 2, 2], groups is 2)";

TEST(FoldErrors, TheCallsThatAreSpoiltBelowAreRight) {
  EXPECT_NO_THROW(Arguments().before());
  EXPECT_NO_THROW(Arguments().after());
  Arguments transposed;
  transposed.bias = {transposed.at(170), Shape{6}};
  transposed.folded.bias = {transposed.at(100), Shape{6}};
  EXPECT_NO_THROW(transposed.after_transposed());
}

TEST(FoldErrors, Weights) {
  expect_error<ValueError>("weights is absent", [](Arguments& a) { a.weights = {}; });
  expect_error<ShapeError>("weights has rank 1, expected 2 to 5 (weights is [48])", [](Arguments& a) {
    a.weights = {a.at(0), {48}};
  });
  expect_error<ShapeError>("weights has rank 6, expected 2 to 5 (weights is [4, 3, 2, 2, 1, 1])", [](Arguments& a) {
    a.weights = {a.at(0), {4, 3, 2, 2, 1, 1}};
  });
  expect_error<ShapeError>("weights has a negative extent, its shape is [4, 3, -2, 2]", [](Arguments& a) {
    a.weights = {a.at(0), {4, 3, -2, 2}};
  });
  expect_error<ValueError>("weights has a null pointer for its data, its shape is [4, 3, 2, 2]", [](Arguments& a) {
    a.weights = {nullptr, a.shape};
  });
  expect_error<ValueError>("weights is misaligned: its address is not a multiple of 4, the alignment of float",
                           [](Arguments& a) {
                             a.weights = {reinterpret_cast<const float*>(reinterpret_cast<const char*>(a.at(0)) + 2), a.shape};
                           });
}

TEST(FoldErrors, Groups) {
  for (const std::int64_t groups : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{3}, std::int64_t{8}}) {
    const std::string message =
        ": groups is " + std::to_string(groups) + ", it must divide 4, the first extent of weights (weights is [4, 3, 2, 2])";
    const auto spoil = [&](Arguments& a) { a.groups = groups; };
    expect_error<ValueError>(&Arguments::before, "fold_before" + message, spoil);
    expect_error<ValueError>(&Arguments::after_transposed, "fold_after_transposed" + message, spoil);
  }
  expect_error<ShapeError>(
      "the number of elements of [groups, channels of a group] overflows 64 bits, its shape is [4611686018427387904, 3]",
      [](Arguments& a) {
        a.weights = {nullptr, {0, 3}};
        a.groups = std::int64_t{1} << 62;
      });
}

TEST(FoldErrors, MapOfAnotherLength) {
  expect_error<ShapeError>("map has 4 channels, expected 6, as many as the layer takes in" + about_weights,
                           [](Arguments& a) { a.in = a.out; });
  expect_error<ShapeError>(
      &Arguments::after, "fold_after: map has 6 channels, expected 4, as many as the layer puts out (weights is [4, 3, 2, 2])",
      [](Arguments& a) { a.out = a.in; });
  expect_error<ShapeError>(
      &Arguments::after_transposed,
      "fold_after_transposed: map has 4 channels, expected 6, as many as the layer puts out" + about_weights,
      [](Arguments& a) { a.in = a.out; });
  expect_error<ShapeError>("map has 6 factors and 5 shifts", [](Arguments& a) { a.in.shift.pop_back(); });
}

TEST(FoldErrors, Bias) {
  const std::string expected = ", expected [4], one element for each channel that the layer puts out" + about_weights;
  for (const Shape& shape : {Shape{3}, Shape{6}, Shape{4, 1}}) {
    expect_error<ShapeError>("bias has shape " + to_string(shape) + expected, [&](Arguments& a) {
      a.bias = {a.at(48), shape};
    });
    expect_error<ShapeError>("folded.bias has shape " + to_string(shape) + expected, [&](Arguments& a) {
      a.folded.bias = {a.at(100), shape};
    });
  }
  expect_error<ShapeError>(&Arguments::after_transposed,
                           "fold_after_transposed: bias has shape [4], expected [6], one element for each channel that the "
                           "layer puts out" +
                               about_weights,
                           [](Arguments&) {});
  expect_error<ValueError>("bias has a null pointer for its data, its shape is [4]", [](Arguments& a) {
    a.bias = {nullptr, {4}};
  });
}

TEST(FoldErrors, Outputs) {
  expect_error<ValueError>("folded.weights is absent", [](Arguments& a) { a.folded.weights = {}; });
  expect_error<ValueError>("folded.bias is absent, a folded layer always has one", [](Arguments& a) { a.folded.bias = {}; });
  expect_error<ShapeError>("folded.weights has shape [4, 3, 4], expected the shape of weights" + about_weights,
                           [](Arguments& a) {
                             a.folded.weights = {a.at(52), {4, 3, 4}};
                           });
  expect_error<ValueError>("folded.weights has a null pointer for its data, its shape is [4, 3, 2, 2]", [](Arguments& a) {
    a.folded.weights = {nullptr, a.shape};
  });
  expect_error<ValueError>("folded.bias is misaligned: its address is not a multiple of 4, the alignment of float",
                           [](Arguments& a) {
                             a.folded.bias = {reinterpret_cast<float*>(reinterpret_cast<char*>(a.at(100)) + 1), Shape{4}};
                           });
}

TEST(FoldErrors, Overlaps) {
  const std::string only_in_place = "; allowed is only its very place, with the same strides";
  const std::string none = "; an output shares no element with another argument";
  expect_error<ValueError>("folded.weights overlaps weights" + only_in_place, [](Arguments& a) {
    a.folded.weights = {a.at(1), a.shape};
    a.bias = {}, a.folded.bias = {a.at(150), Shape{4}};
  });
  expect_error<ValueError>("folded.weights overlaps weights" + only_in_place, [](Arguments& a) {  // its place, transposed
    a.folded.weights = {a.at(0), a.shape, {12, 4, 1, 2}};
  });
  expect_error<ValueError>("folded.weights overlaps bias" + none, [](Arguments& a) { a.bias = {a.at(99), Shape{4}}; });
  expect_error<ValueError>("folded.weights overlaps folded.bias" + none, [](Arguments& a) {
    a.folded.bias = {a.at(99), Shape{4}};
  });
  expect_error<ValueError>("folded.bias overlaps bias" + only_in_place, [](Arguments& a) {
    a.folded.bias = {a.at(48) + 3, Shape{4}, {-1}};
  });
  expect_error<ValueError>("folded.bias overlaps weights" + none, [](Arguments& a) { a.folded.bias = {a.at(44), Shape{4}}; });
  // One input: weights and bias are laid out alike, and still none may take the other's place.
  const auto one_input = [](Arguments& a) {
    a.weights = {a.at(0), {4, 1}}, a.folded.weights = {a.at(52), {4, 1}};
    a.in = {{1}, {1}}, a.groups = 1;
  };
  expect_error<ValueError>("folded.weights overlaps bias" + none, [&](Arguments& a) {
    one_input(a);
    a.folded.weights = {a.at(48), {4, 1}};
  });
  expect_error<ValueError>("folded.bias overlaps weights" + none, [&](Arguments& a) {
    one_input(a);
    a.folded.bias = {a.at(0), Shape{4}};
  });
  const Spoil in_place = [](Arguments& a) { a.folded.weights = {a.at(0), a.shape}, a.folded.bias = {a.at(48), Shape{4}}; };
  Arguments right;
  in_place(right);
  EXPECT_NO_THROW(right.before());
}

TEST(FoldErrors, OutputsWhoseStridesMeet) {
  const std::string message = " overlaps itself: its strides put several elements in one place";
  for (const batchnorm::Strides& strides :
       {batchnorm::Strides{12, 4, 2, 0}, batchnorm::Strides{11, 4, 2, 1}, batchnorm::Strides{12, -3, 2, 1}}) {
    expect_error<ValueError>("folded.weights" + message, [&](Arguments& a) {
      a.folded.weights = {a.at(70), a.shape, strides};
      a.folded.bias = {a.at(190), Shape{4}};
    });
  }
  expect_error<ValueError>("folded.bias" + message, [](Arguments& a) { a.folded.bias = {a.at(100), Shape{4}, {0}}; });
}

TEST(FoldErrors, AreThoseOfTheOwnedFormsToo) {
  Arguments a;
  EXPECT_EQ(message_of<ShapeError>([&] { fold_before<float>(a.weights, a.bias, a.in); }),
            "batchnorm::fold_before: map has 6 channels, expected 3, as many as the layer takes in (weights is [4, 3, 2, 2])");
  EXPECT_EQ(message_of<ShapeError>([&] {
              fold_after<float>({a.at(0), {4}}, a.bias, a.out);
            }),
            "batchnorm::fold_after: weights has rank 1, expected 2 to 5 (weights is [4])");
  EXPECT_EQ(
      message_of<ValueError>([&] { fold_after_transposed<float>(a.weights, a.bias, a.out, 3); }),
      "batchnorm::fold_after_transposed: groups is 3, it must divide 4, the first extent of weights (weights is [4, 3, 2, "
      "2])");
}

TEST(FoldErrors, AffineMap) {
  std::vector<float> three(3, 1), four(4, 1);
  const std::string call = "batchnorm::affine_map: ";
  EXPECT_EQ(message_of<ValueError>([&] { affine_map<float>({.mean = three, .variance = three}, 0); }),
            call + "epsilon is 0, it must be in (0, 1]");
  EXPECT_EQ(message_of<ValueError>([&] { affine_map<float>({.variance = three}, epsilon); }),
            call + "mean is absent, affine_map needs it");
  EXPECT_EQ(message_of<ValueError>([&] { affine_map<float>({.mean = three}, epsilon); }),
            call + "variance is absent, affine_map needs it");
  EXPECT_EQ(message_of<ShapeError>([&] {
              affine_map<float>({.mean = {three.data(), {3, 1}}, .variance = three}, epsilon);
            }),
            call + "mean has shape [3, 1], expected [C]");
  EXPECT_EQ(message_of<ShapeError>([&] { affine_map<float>({.mean = three, .variance = four}, epsilon); }),
            call + "variance has 4 elements, expected C = 3");
  EXPECT_EQ(message_of<ShapeError>([&] { affine_map<float>({.scale = four, .mean = three, .variance = three}, epsilon); }),
            call + "scale has 4 elements, expected C = 3");
  EXPECT_EQ(message_of<ShapeError>(
                [&] { affine_map<float>({.scale = three, .bias = four, .mean = three, .variance = three}, epsilon); }),
            call + "bias has 4 elements, expected C = 3");
  EXPECT_EQ(message_of<ValueError>([&] {
              affine_map<float>({.mean = {nullptr, {3}}, .variance = three}, epsilon);
            }),
            call + "mean has a null pointer for its data, its shape is [3]");
}

}  // namespace
