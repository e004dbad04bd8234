// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/gradient_calls.hpp"

// Gradients through the activation of the forward pass, told by its mask or by its output, and the gradient of the residual.
namespace {

using namespace support;
using batchnorm::LeakyRelu;
using batchnorm::TensorView;

/// The pieces of an activation, bit i % 8 of byte i / 8 for element i.
using Bits = std::vector<std::uint8_t>;

bool bit(const Bits& bits, std::size_t i) { return (bits[i / 8] >> i % 8 & 1) != 0; }

/// A call of the gradient, and an output of the forward pass whose positive elements are those of the bits.
template <class T>
struct ActivatedCall {
  using P = batchnorm::parameter_t<T>;

  GradientCall<T, P> of;
  std::vector<T> y;
  Bits bits;

  TensorView<const T> y_view() const { return {y.data(), of.shape}; }
};

/// About half of the elements pass; 0, -0 and NaN are among the outputs. dy is a multiple of 2^-8, so that a quarter of it is a
/// T.
template <class T>
ActivatedCall<T> activated_call(const Shape& shape, Format format, bool is_training) {
  ActivatedCall<T> call{ordinary_gradient_call<T, batchnorm::parameter_t<T>>(shape, format, is_training), {}, {}};
  Random random(41);
  const std::size_t size = call.of.x.size();
  for (T& dy : call.of.dy) dy = element<T>(std::round(static_cast<double>(real(dy)) * 256) / 256);
  call.bits.resize((size + 7) / 8);
  for (std::size_t i = 0; i < size; ++i) {
    const double values[] = {0.0, -0.0, std::numeric_limits<double>::quiet_NaN(), random.uniform(0.01, 2)};
    const std::int64_t kind = random.integer(0, 9);
    const double y = kind < 3 ? values[kind] : kind < 7 ? values[3] : -values[3];
    call.y.push_back(element<T>(y));
    if (y > 0 || std::isnan(y)) call.bits[i / 8] = static_cast<std::uint8_t>(call.bits[i / 8] | 1U << i % 8);
  }
  return call;
}

template <class T>
struct ActivatedResult {
  GradientResult<T, batchnorm::parameter_t<T>> of;
  std::vector<T> dresidual;
};

template <class T>
testing::AssertionResult same(const ActivatedResult<T>& got, const ActivatedResult<T>& want) {
  const testing::AssertionResult of = same(got.of, want.of);
  return of ? without(difference("dresidual", got.dresidual, want.dresidual)) : of;
}

/// Every gradient of the call, dx and dresidual between guards.
template <class T, class G>
ActivatedResult<T> run_through(const ActivatedCall<T>& call, const G& through, std::size_t offset = 0) {
  using P = batchnorm::parameter_t<T>;
  const auto& of = call.of;
  const auto channels = static_cast<std::size_t>(of.extents().c);
  ActivatedResult<T> result{
      {{}, std::vector<P>(channels, element<P>(unwritten)), std::vector<P>(channels, element<P>(unwritten))}, {}};
  Guarded<T> dx(of.x.size(), offset, element<T>(unwritten)), dresidual(of.x.size(), 2 * offset, element<T>(unwritten));
  batchnorm::batch_norm_backward<T, P>(of.format, of.options, of.dy_view(), of.x_view(), view(of.scale), of.mean, of.variance,
                                       {{dx.data(), of.shape}, result.of.dscale, result.of.dbias, {dresidual.data(), of.shape}},
                                       through);
  EXPECT_TRUE(dx.guards_intact() && dresidual.guards_intact());
  result.of.dx.assign(dx.values().begin(), dx.values().end());
  result.dresidual.assign(dresidual.values().begin(), dresidual.values().end());
  return result;
}

/// The same with dy taken through the activation by hand: exact while slope * dy is a T.
template <class T>
ActivatedResult<T> run_unfused(const ActivatedCall<T>& call, double slope) {
  auto plain = call.of;
  for (std::size_t i = 0; i < plain.dy.size(); ++i) {
    if (bit(call.bits, i)) continue;
    plain.dy[i] = slope == 0 ? element<T>(0) : element<T>(slope * static_cast<double>(real(plain.dy[i])));
  }
  return {run(plain), plain.dy};
}

constexpr Sizes some_sizes[] = {{1, 1, 1},  {3, 5, 7},   {2, 3, 63},  {2, 3, 64},  {2, 3, 613}, {9, 33, 15},
                                {41, 2, 1}, {17, 67, 1}, {5, 257, 1}, {8, 64, 49}, {3, 2, 5003}};

template <class T>
class GradientThroughActivation : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(GradientThroughActivation, ElementTypes);

template <class T, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = activated_call<T>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(text_of(call.of));
        body(call);
      }
    }
  }
}

TYPED_TEST(GradientThroughActivation, OfReluHasTheBitsOfTheUnfusedComputation) {
  using T = TypeParam;
  for_each_call<T>([](const ActivatedCall<T>& call) {
    for_each_isa([&](Isa) {
      const auto want = run_unfused(call, 0);
      EXPECT_TRUE(same(run_through(call, ThroughReluMask{call.bits}), want));
      EXPECT_TRUE(same(run_through(call, ThroughReluOutput<T>{call.y_view()}, 1), want));
    });
  });
}

// Nothing is rounded on the way.
TYPED_TEST(GradientThroughActivation, OfLeakyReluWithAPowerOfTwoHasTheBitsOfTheUnfusedComputation) {
  using T = TypeParam;
  for_each_call<T>([](const ActivatedCall<T>& call) {
    for_each_isa([&](Isa) {
      for (const double slope : {0.25, 1.0}) {
        const auto want = run_unfused(call, slope);
        EXPECT_TRUE(same(run_through(call, ThroughLeakyMask{call.bits, {slope}}), want)) << slope;
        EXPECT_TRUE(same(run_through(call, ThroughLeakyOutput<T>{call.y_view(), {slope}}, 1), want)) << slope;
      }
    });
  });
}

TYPED_TEST(GradientThroughActivation, OfLeakyReluKeepsThePromise) {
  using T = TypeParam;
  const double slope = 0.01;
  // The slope is a constant of the type that computes.
  const Real factor = std::is_same_v<T, double> ? static_cast<Real>(slope) : static_cast<Real>(static_cast<float>(slope));
  for_each_call<T>([&](const ActivatedCall<T>& call) {
    const Extents e = call.of.extents();
    for_each_isa([&](Isa isa) {
      const auto got = run_through(call, ThroughLeakyMask{call.bits, {slope}});
      EXPECT_TRUE(same(run_through(call, ThroughLeakyOutput<T>{call.y_view(), {slope}}), got));
      const Real ulps = leaky_dx_ulps<T>(isa, call.of.options.is_training);
      for (std::int64_t c = 0; c < e.c; ++c) {
        Values dz;
        for (std::int64_t j = 0; j < e.n * e.s; ++j) {
          const std::size_t i = e.index(j / e.s, c, j % e.s);
          dz.push_back((bit(call.bits, i) ? 1 : factor) * real(call.of.dy[i]));
          ASSERT_LE(error(got.dresidual[i], dz.back()), ulp_at<T>(std::abs(dz.back())) * rounded_once_ulps) << i;
        }
        const auto want = backward(call.of.channel(c), dz, channel_values<T>(call.of.x, e, c));
        const auto at = static_cast<std::size_t>(c);
        for (std::int64_t j = 0; j < e.n * e.s; ++j) {
          const Gradient& element = want.dx[static_cast<std::size_t>(j)];
          ASSERT_LE(error(got.of.dx[e.index(j / e.s, c, j % e.s)], element.value), allowed_gradient_error<T>(element, ulps));
        }
        using P = typename ActivatedCall<T>::P;
        ASSERT_LE(error(got.of.dscale[at], want.dscale.value), allowed_sum_error<P>(want.dscale)) << "channel " << c;
        ASSERT_LE(error(got.of.dbias[at], want.dbias.value), allowed_sum_error<P>(want.dbias)) << "channel " << c;
      }
    });
  });
}

TYPED_TEST(GradientThroughActivation, FollowsItsForwardPass) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_call<T>([](const ActivatedCall<T>& given) {
    ActivatedCall<T> call = given;
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.of.x.size()), -3, 3, 42);
    auto mean = call.of.mean, variance = call.of.variance;
    for_each_isa([&](Isa) {
      for (const double slope : {0.0, 0.25}) {
        batchnorm::batch_norm<T, P>(call.of.format, call.of.options, call.of.x_view(), view(call.of.scale), {}, mean, variance,
                                    {.output_x = {call.y.data(), call.of.shape}, .mask = call.bits},
                                    LeakySum<T>{{residual.data(), call.of.shape}, {slope}});
        const auto want = run_unfused(call, slope);
        // As numbers: slope 0 leaves -0 of a negative dy.
        const auto by_mask = run_through(call, ThroughLeakyMask{call.bits, {slope}});
        EXPECT_TRUE(same(run_through(call, ThroughLeakyOutput<T>{call.y_view(), {slope}}), by_mask));
        for (std::size_t i = 0; i < want.dresidual.size(); ++i) {
          ASSERT_EQ(real(by_mask.of.dx[i]), real(want.of.dx[i])) << i;
          ASSERT_EQ(real(by_mask.dresidual[i]), real(want.dresidual[i])) << i;
        }
        EXPECT_TRUE(same_bits(by_mask.of.dscale, want.of.dscale) && same_bits(by_mask.of.dbias, want.of.dbias));
      }
    });
  });
}

TYPED_TEST(GradientThroughActivation, ReadsNoBitBehindTheLastAndTakesAnyAlignmentOfTheMask) {
  using T = TypeParam;
  for_each_call<T>([](const ActivatedCall<T>& call) {
    for_each_isa([&](Isa) {
      const auto want = run_through(call, ThroughReluMask{call.bits});
      for (std::size_t offset = 0; offset < 4; ++offset) {
        Guarded<std::uint8_t> mask(std::span<const std::uint8_t>(call.bits), offset);
        const std::size_t used = call.of.x.size() % 8;
        if (used != 0) mask.values().back() = static_cast<std::uint8_t>(mask.values().back() | 0xFFU << used);
        EXPECT_TRUE(same(run_through(call, ThroughReluMask{mask.values()}, offset), want));
        EXPECT_TRUE(mask.guards_intact());
      }
    });
  });
}

TYPED_TEST(GradientThroughActivation, NotANumberIsStoppedWhereTheActivationDoesNotPass) {
  using T = TypeParam;
  for_each_call<T>([](const ActivatedCall<T>& call) {
    auto poisoned = call;
    for (std::size_t i = 0; i < call.of.dy.size(); ++i) {
      if (!bit(call.bits, i)) poisoned.of.dy[i] = element<T>(i % 2 == 0 ? std::numeric_limits<double>::quiet_NaN() : -INFINITY);
    }
    for_each_isa([&](Isa) {
      EXPECT_TRUE(same(run_through(poisoned, ThroughReluMask{call.bits}), run_through(call, ThroughReluMask{call.bits})));
      EXPECT_TRUE(
          same(run_through(poisoned, ThroughReluOutput<T>{call.y_view()}), run_through(call, ThroughReluMask{call.bits})));
    });
  });
}

// In place of dy: dx, or the residual's gradient; the other beside it.
TYPED_TEST(GradientThroughActivation, InThePlaceOfDyEqualsBesideIt) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_call<T>([](const ActivatedCall<T>& call) {
    const auto& of = call.of;
    const auto expect_same = [&](const auto& through, double slope) {
      const auto want = run_through(call, through);
      for (const bool dx_in_place : {true, false}) {
        std::vector<T> both = of.dy, other(of.dy.size());
        std::vector<P> dscale(of.mean.size()), dbias(of.mean.size());
        const TensorView<T> first(both.data(), of.shape), second(other.data(), of.shape);
        batchnorm::batch_norm_backward<T, P>(
            of.format, of.options, {both.data(), of.shape}, of.x_view(), view(of.scale), of.mean, of.variance,
            {dx_in_place ? first : second, dscale, dbias, dx_in_place ? second : first}, through);
        EXPECT_TRUE(same_bits(dx_in_place ? both : other, want.of.dx)) << slope << (dx_in_place ? " dx" : " dresidual");
        EXPECT_TRUE(same_bits(dx_in_place ? other : both, want.dresidual)) << slope << (dx_in_place ? " dx" : " dresidual");
        EXPECT_TRUE(same_bits(dscale, want.of.dscale) && same_bits(dbias, want.of.dbias));
      }
    };
    for_each_isa([&](Isa) {
      expect_same(ThroughReluMask{call.bits}, 0);
      expect_same(ThroughReluOutput<T>{call.y_view()}, 0);
      expect_same(ThroughLeakyMask{call.bits, {0.01}}, 0.01);
    });
  });
}

// Nothing between y and the residual: its gradient is dy itself.
TYPED_TEST(GradientThroughActivation, WithoutAnActivationTheResidualsGradientIsDy) {
  using T = TypeParam;
  for_each_call<T>([](const ActivatedCall<T>& call) {
    for_each_isa([&](Isa) {
      const auto got = run_through(call, batchnorm::Identity{}, 1);
      EXPECT_TRUE(same_bits(got.dresidual, call.of.dy));
      EXPECT_TRUE(same(got.of, run(call.of)));
    });
  });
}

TEST(GradientThroughAnActivation, IsAnArgumentOfTheOperatorAndOfThePiecesToo) {
  const auto call = activated_call<float>({9, 33, 15}, Format::NCHW, true);
  const auto& of = call.of;
  for_each_isa([&](Isa) {
    const ThroughReluMask through{call.bits};
    const auto want = run_through(call, through);
    const auto owned = batchnorm::BatchNorm<float>(of.options)
                           .backward(of.dy_view(), of.x_view(), view(of.scale), of.mean, of.variance, through);
    EXPECT_TRUE(same_bits(values_of(owned.dx), want.of.dx) && same_bits(values_of(owned.dscale), want.of.dscale));
    EXPECT_TRUE(same_bits(values_of(owned.dbias), want.of.dbias));
    const TensorView<const float> mean(of.mean);
    const auto sums =
        batchnorm::gradient_sums<float, float>(of.format, {.dy = of.dy_view(), .x = of.x_view(), .mean = mean}, through);
    std::vector<float> dresidual(of.dy.size());
    GradientResult<float, float> pieces{std::vector<float>(of.dy.size()), std::vector<float>(33), std::vector<float>(33)};
    batchnorm::input_gradient<float, float>(
        of.format, {.dy = of.dy_view(), .x = of.x_view(), .scale = view(of.scale), .mean = mean, .variance = of.variance}, sums,
        of.options.epsilon, {{pieces.dx.data(), of.shape}, pieces.dscale, pieces.dbias, {dresidual.data(), of.shape}}, through);
    EXPECT_TRUE(same(pieces, want.of));  // the sums' second halves do not reach a float
    EXPECT_TRUE(same_bits(dresidual, want.dresidual));
  });
}

}  // namespace
