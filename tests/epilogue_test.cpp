// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/calls.hpp"

// y = activation(normalised [+ residual]), rounded once.
namespace {

using namespace support;
using batchnorm::AddResidual;
using batchnorm::Identity;
using batchnorm::LeakyRelu;
using batchnorm::Relu;
using batchnorm::TensorView;

/// Rounding the sum with the residual, the slope and its product: half an ulp each.
constexpr Real epilogue_ulps = 1.5L;

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 613}, {9, 33, 15}, {41, 2, 1}, {17, 67, 1}};

/// y of the call with an epilogue, between guards.
template <class T, class P, class E>
std::vector<T> run_with(const Call<T, P>& call, const E& epilogue, std::size_t offset = 0) {
  Guarded<T> y(call.x.size(), offset, element<T>(unwritten));
  auto mean = *call.mean, variance = *call.variance;
  batchnorm::batch_norm<T, P>(call.format, call.options, {call.x.data(), call.shape}, view(call.scale), view(call.bias), mean,
                              variance, {{y.data(), call.shape}}, epilogue);
  EXPECT_TRUE(y.guards_intact());
  return {y.values().begin(), y.values().end()};
}

/// Compares y with activation(z + residual) of the oracle, at a magnitude that counts the residual in.
template <class T>
void expect_activated(const std::vector<T>& y, const Expected& want, const std::vector<T>& residual, Isa isa,
                      const std::function<Real(Real)>& activation) {
  for (std::size_t i = 0; i < y.size(); ++i) {
    const Real r = residual.empty() ? 0 : real(residual[i]);
    const Real at = std::max({want.y[i].magnitude, std::abs(r), std::abs(want.y[i].z + r)});
    const Real largest_scale = 2;  // that of ordinary_call; double's bound counts it in
    Normalized bound = want.y[i];
    bound.magnitude = at;
    const Real more = sizeof(T) == 2 ? 0 : epilogue_ulps * ulp_at<T>(at);
    ASSERT_LE(error(y[i], activation(want.y[i].z + r)), allowed_y_error<T>(isa, bound, largest_scale, true) + more) << i;
  }
}

template <class T>
class Epilogues : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(Epilogues, ElementTypes);

template <class T, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(call);
      }
    }
  }
}

TYPED_TEST(Epilogues, ReluKeepsThePositiveAndZeroesTheRest) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    for_each_isa([&](Isa) {
      std::vector<T> want = run(call).y;
      for (T& y : want) y = real(y) > 0 ? y : element<T>(0);
      EXPECT_TRUE(same_bits(run_with(call, Relu{}), want));  // rounding is monotone: ReLU of the rounded is the rounded ReLU
    });
  });
}

TYPED_TEST(Epilogues, ReluOfNotANumberIsNotANumberAndOfMinusZeroIsZero) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Format format : formats) {
    auto call = ordinary_call<T, P>(shape_of(format, 3, 3, 5, 67), format, false);
    call.mean->assign(5, element<P>(0));
    call.bias->assign(5, element<P>(-0.0));
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      call.x[i] = element<T>(i % 3 == 0 ? std::numeric_limits<double>::quiet_NaN() : i % 3 == 1 ? -0.0 : -1.0);
      if (i % 6 == 2) call.x[i] = element<T>(-std::numeric_limits<double>::infinity());
    }
    call.scale->assign(5, element<P>(1));
    for_each_isa([&](Isa) {
      const auto y = run_with(call, Relu{});
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (i % 3 == 0) {
          ASSERT_TRUE(std::isnan(real(y[i])));
        } else {
          ASSERT_TRUE(real(y[i]) == 0 && !std::signbit(real(y[i]))) << "x is " << real(call.x[i]);
        }
      }
    });
  }
}

TYPED_TEST(Epilogues, ResidualAndLeakyReluAreRoundedOnce) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    const Expected want = expected(call);
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -3, 3, 21);
    for (const double slope : {0.01, 0.0, 1.0, 0.25}) {
      for_each_isa([&](Isa isa) {
        const LeakySum<T> epilogue{{residual.data(), call.shape}, {slope}};
        const auto y = run_with(call, epilogue);
        const Real exact = std::is_same_v<T, double> ? static_cast<Real>(slope) : static_cast<Real>(static_cast<float>(slope));
        expect_activated<T>(y, want, residual, isa, [&](Real z) { return z < 0 ? exact * z : z; });
      });
    }
  });
}

TYPED_TEST(Epilogues, ResidualMayBeTheOutputItself) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -3, 3, 22);
    for_each_isa([&](Isa) {
      const auto beside = run_with(call, LeakySum<T>{{residual.data(), call.shape}, {0.25}});
      Guarded<T> y(std::span<const T>(residual), 1);
      auto mean = *call.mean, variance = *call.variance;
      batchnorm::batch_norm(call.format, call.options, {call.x.data(), call.shape}, view(call.scale), view(call.bias), mean,
                            variance, batchnorm::OutputViews<T, batchnorm::parameter_t<T>>{{y.data(), call.shape}},
                            LeakySum<T>{{y.data(), call.shape}, {0.25}});
      EXPECT_TRUE(same_bits(y.values(), beside));
      EXPECT_TRUE(y.guards_intact());
    });
  });
}

TYPED_TEST(Epilogues, ResidualMayHaveStridesOfItsOwn) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    const Extents e = call.extents();
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -3, 3, 23);
    // Three channels more than the residual has: a slice of a larger tensor.
    const std::int64_t wide = e.c + 3;
    std::vector<T> larger(static_cast<std::size_t>(e.n * wide * e.s), element<T>(unwritten));
    const Extents outer{e.n, wide, e.s, e.format};
    for (std::int64_t n = 0; n < e.n; ++n) {
      for (std::int64_t c = 0; c < e.c; ++c) {
        for (std::int64_t s = 0; s < e.s; ++s) larger[outer.index(n, c + 2, s)] = residual[e.index(n, c, s)];
      }
    }
    const auto strides = batchnorm::dense_strides(shape_of(call.format, 4, e.n, wide, e.s));
    const TensorView<const T> slice(larger.data() + outer.index(0, 2, 0), call.shape, strides);
    for_each_isa([&](Isa) {
      const auto dense = run_with(call, LeakySum<T>{{residual.data(), call.shape}, {0.25}});
      EXPECT_TRUE(same_bits(run_with(call, LeakySum<T>{slice, {0.25}}), dense));
    });
  });
}

/// min(max(z, 0), 6), as a user would write it.
struct Relu6 {
  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    const V six = V::broadcast(6);
    return select(z <= V::zero(), V::zero(), select(six < z, six, z));
  }
};

TEST(Activation, MayBeTheUsersOwn) {
  const auto call = ordinary_call<float, float>({9, 33, 15}, Format::NCHW, true);
  for_each_isa([&](Isa) {
    std::vector<float> want = run(call).y;
    for (float& y : want) y = std::min(std::max(y * 1.0F, 0.0F), 6.0F);
    EXPECT_TRUE(same_bits(run_with(call, Relu6{}), want));
  });
}

TEST(Activation, IsAnArgumentOfTheOperatorAndOfNormalizeToo) {
  const auto call = ordinary_call<float, float>({9, 33, 15}, Format::NCHW, true);
  const auto residual = uniform<float>(9 * 33 * 15, -3, 3, 24);
  const TensorView<const float> x(call.x.data(), call.shape);
  const LeakySum<float> epilogue{{residual.data(), call.shape}, {0.25}};
  for_each_isa([&](Isa) {
    const auto want = run_with(call, epilogue);
    auto mean = *call.mean, variance = *call.variance;
    const auto y = batchnorm::BatchNorm<float>(call.options).output_x(x, *call.scale, *call.bias, mean, variance, epilogue);
    EXPECT_TRUE(same_bits(values_of(y), want));
    std::vector<float> normalized(call.x.size());
    batchnorm::normalize<float, float>(call.format, {.x = x, .scale = *call.scale, .bias = *call.bias},
                                       batchnorm::moments(x, call.format), call.options.epsilon,
                                       {normalized.data(), call.shape}, epilogue);
    EXPECT_TRUE(same_bits(normalized, want));
  });
}

TEST(Activation, OfAResidualAloneIsTheSum) {
  const auto call = ordinary_call<float, float>({9, 33, 15}, Format::NCHW, true);
  const auto residual = uniform<float>(9 * 33 * 15, -3, 3, 25);
  const TensorView<const float> view(residual.data(), call.shape);
  for_each_isa([&](Isa) {
    EXPECT_TRUE(same_bits(run_with(call, AddResidual<float>{view}), run_with(call, LeakySum<float>{view, {1}})));
    EXPECT_EQ(run_with(call, AddResidual<float, Relu>{view, {}}), run_with(call, LeakySum<float>{view, {0}}));  // 0 == -0
  });
}

}  // namespace
