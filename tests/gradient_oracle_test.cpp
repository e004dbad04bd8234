// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <functional>

#include "support/gradient_calls.hpp"

// The oracle of the gradients is right: it agrees with differences of the forward formula, its second derivatives with
// differences of the first, and both with closed forms. So does the library, in double.
namespace {

using namespace support;

/// One channel, as the forward pass sees it: statistics of its own values in training, given ones in inference.
struct Forward {
  bool is_training = true;
  Real mean = 0.25, variance = 1.5;  ///< of inference
  double epsilon = 1e-3;

  Statistics statistics_of(const Values& x) const {
    const auto m = static_cast<std::int64_t>(x.size());
    if (!is_training) return {m, mean, 0, variance};
    Statistics result{m};
    for (const Real value : x) result.mean += value / static_cast<Real>(m);
    for (const Real value : x) result.variance += (value - result.mean) * (value - result.mean) / static_cast<Real>(m);
    return result;
  }

  Channel saved(const Values& x, Real scale) const { return {is_training, statistics_of(x), epsilon, scale}; }

  /// sum(dy * y): its derivatives are the gradients.
  Real loss(const Values& dy, const Values& x, Real scale, Real bias) const {
    const Statistics statistics = statistics_of(x);
    Real sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += dy[i] * normalized(x[i], statistics, epsilon, scale, bias).z;
    return sum;
  }

  /// sum(g * dx) + gs * dscale + gb * dbias: its derivatives are the double gradients.
  Real gradient_loss(const Values& dy, const Values& x, Real scale, const Values& g, Real gs, Real gb) const {
    const ChannelGradients gradients = backward(saved(x, scale), dy, x);
    Real sum = gs * gradients.dscale.value + gb * gradients.dbias.value;
    for (std::size_t i = 0; i < x.size(); ++i) sum += g[i] * gradients.dx[i].value;
    return sum;
  }
};

// Differences of step h about x: the error of the formula is of order h^4 f^(5) / 30, that of rounding 2^-64 f / h. With h =
// 2^-12 both stay below 2^-48 for the numbers of order 1 here; 2^-36 leaves room for epsilon's part in the derivatives.
constexpr Real step = 0x1p-12L, difference_error = 0x1p-36L;

/// f'(at) by the differences of fourth order.
Real derivative(const std::function<Real(Real)>& f, Real at) {
  return (8 * (f(at + step) - f(at - step)) - (f(at + 2 * step) - f(at - 2 * step))) / (12 * step);
}

void expect_near(Real got, Real difference) { EXPECT_LE(std::abs(got - difference), difference_error) << got; }

Values random_values(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  Values values;
  for (std::size_t i = 0; i < count; ++i) values.push_back(random.uniform(-2, 2));
  return values;
}

/// f as a function of element i of values.
template <class F>
std::function<Real(Real)> along(Values values, std::size_t i, F f) {
  return [=](Real value) mutable {
    values[i] = value;
    return f(values);
  };
}

template <class Body>
void for_each_tiny_channel(Body&& body) {
  for (const bool is_training : {true, false}) {
    for (const std::size_t m : {2U, 3U, 5U, 12U}) {
      SCOPED_TRACE(std::to_string(m) + (is_training ? " values, training" : " values, inference"));
      body(Forward{is_training}, random_values(m, m), random_values(m, m + 100));
    }
  }
}

TEST(GradientOracle, AgreesWithDifferencesOfTheForwardFormula) {
  for_each_tiny_channel([](const Forward& forward, const Values& dy, const Values& x) {
    const Real scale = 1.25, bias = 0.5;
    const ChannelGradients got = backward(forward.saved(x, scale), dy, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto f = along(x, i, [&](const Values& moved) { return forward.loss(dy, moved, scale, bias); });
      expect_near(got.dx[i].value, derivative(f, x[i]));
    }
    expect_near(got.dscale.value, derivative([&](Real moved) { return forward.loss(dy, x, moved, bias); }, scale));
    expect_near(got.dbias.value, derivative([&](Real moved) { return forward.loss(dy, x, scale, moved); }, bias));
  });
}

TEST(GradientOracle, OfTheSecondOrderAgreesWithDifferencesOfTheFirst) {
  for_each_tiny_channel([](const Forward& forward, const Values& dy, const Values& x) {
    const Real scale = 1.25, gs = -0.75, gb = 0.625;
    const Values g = random_values(x.size(), x.size() + 200);
    const ChannelDoubleGradients got = double_backward(forward.saved(x, scale), dy, x, g, gs, gb);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto by_x = along(x, i, [&](const Values& moved) { return forward.gradient_loss(dy, moved, scale, g, gs, gb); });
      const auto by_dy = along(dy, i, [&](const Values& moved) { return forward.gradient_loss(moved, x, scale, g, gs, gb); });
      expect_near(got.dx[i].value, derivative(by_x, x[i]));
      expect_near(got.ddy[i].value, derivative(by_dy, dy[i]));
    }
    const auto by_scale = [&](Real moved) { return forward.gradient_loss(dy, x, moved, g, gs, gb); };
    expect_near(got.dscale.value, derivative(by_scale, scale));
  });
}

// The saved statistics count as they are, right or not: d mean / dx = 1 / m, d variance / dx = 2 (x - mean) / m.
TEST(GradientOracle, TakesTheSavedStatisticsAsTheyAre) {
  const Values x = random_values(5, 31), dy = random_values(5, 32);
  const Channel saved{true, {5, 0.75, 0, 2.5}, 1e-3, 1.25};
  const ChannelGradients got = backward(saved, dy, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto loss = [&](Real moved) {
      const Real by = moved - x[i];
      const Statistics statistics{5, saved.saved.mean + by / 5, 0,
                                  saved.saved.variance + 2 * (x[i] - saved.saved.mean) * by / 5};
      Real sum = 0;
      for (std::size_t j = 0; j < x.size(); ++j) {
        sum += dy[j] * normalized(j == i ? moved : x[j], statistics, saved.epsilon, saved.scale, 0).z;
      }
      return sum;
    };
    expect_near(got.dx[i].value, derivative(loss, x[i]));
  }
}

/// The channel as a call of the library in double: one image of one channel.
GradientCall<double, double> call_of(const Forward& forward, const Values& dy, const Values& x, Real scale) {
  const auto m = static_cast<std::int64_t>(x.size());
  GradientCall<double, double> call{{1, 1, m}, Format::NCHW, {.is_training = forward.is_training, .epsilon = forward.epsilon}};
  call.dy.assign(dy.begin(), dy.end());
  call.x.assign(x.begin(), x.end());
  call.scale = {static_cast<double>(scale)};
  const Statistics statistics = forward.statistics_of(x);
  call.mean = {static_cast<double>(statistics.mean)};
  call.variance = {static_cast<double>(statistics.variance)};
  return call;
}

// Rounding the statistics to double moves the gradients by some 2^-52: the differences remain the larger error.
TEST(GradientsOfTheLibrary, AgreeWithDifferencesOfTheForwardFormula) {
  for_each_tiny_channel([](const Forward& forward, const Values& dy, const Values& x) {
    const Real scale = 1.25;
    const auto call = call_of(forward, dy, x, scale);
    for_each_isa([&](Isa) {
      const auto got = run(call);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const auto f = along(x, i, [&](const Values& moved) { return forward.loss(dy, moved, scale, 0); });
        expect_near(got.dx[i], derivative(f, x[i]));
      }
      expect_near(got.dscale[0], derivative([&](Real moved) { return forward.loss(dy, x, moved, 0); }, scale));
      expect_near(got.dbias[0], derivative([&](Real moved) { return forward.loss(dy, x, scale, moved); }, 0));
    });
  });
}

TEST(GradientsOfTheLibrary, OfTheSecondOrderAgreeWithDifferencesOfTheFirst) {
  for_each_tiny_channel([](const Forward& forward, const Values& dy, const Values& x) {
    const Real scale = 1.25, gs = -0.75, gb = 0.625;
    const Values g = random_values(x.size(), x.size() + 200);
    DoubleGradientCall<double, double> call{call_of(forward, dy, x, scale)};
    call.ddx.emplace(g.begin(), g.end());
    call.ddscale = {static_cast<double>(gs)};
    call.ddbias = {static_cast<double>(gb)};
    for_each_isa([&](Isa) {
      const auto got = run(call);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const auto by_x = along(x, i, [&](const Values& moved) { return forward.gradient_loss(dy, moved, scale, g, gs, gb); });
        const auto by_dy = along(dy, i, [&](const Values& moved) { return forward.gradient_loss(moved, x, scale, g, gs, gb); });
        expect_near(got.dx[i], derivative(by_x, x[i]));
        expect_near(got.ddy[i], derivative(by_dy, dy[i]));
      }
      const auto by_scale = [&](Real moved) { return forward.gradient_loss(dy, x, moved, g, gs, gb); };
      expect_near(got.dscale[0], derivative(by_scale, scale));
    });
  });
}

// r = 1 / sqrt(15 + 1) = 1/4 and xh = +-1/2: every number is a short binary fraction, every result exact.
TEST(GradientsOfTheLibrary, HaveTheClosedFormOfTwoValues) {
  GradientCall<double, double> call{{2, 1}, Format::NCHW, {.is_training = true, .epsilon = 1}};
  call.x = {3 + 2, 3 - 2};
  call.dy = {5, 1};
  call.scale = {2};
  call.mean = {3};
  call.variance = {15};
  for_each_isa([&](Isa) {
    call.options.is_training = true;
    const auto training = run(call);
    EXPECT_EQ(training.dbias[0], 5 + 1);
    EXPECT_EQ(training.dscale[0], 5 * 0.5 - 1 * 0.5);
    EXPECT_EQ(training.dx, (std::vector<double>{0.5 * (5 - 3 - 0.5 * 1), 0.5 * (1 - 3 + 0.5 * 1)}));
    call.options.is_training = false;
    const auto inference = run(call);
    EXPECT_EQ(inference.dbias[0], 5 + 1);
    EXPECT_EQ(inference.dscale[0], 5 * 0.5 - 1 * 0.5);
    EXPECT_EQ(inference.dx, (std::vector<double>{2.5, 0.5}));
  });
}

// dy = 1: the mean of y is the bias, whatever x is. dy = xh: the mean of xh^2 is 1, whatever x is. Neither moves with x. 2^-40:
// what 140 * 2^-53 of the sums, and statistics rounded to double, leave of numbers of order 1.
TEST(GradientsOfTheLibrary, VanishForWhatNormalizationUndoes) {
  GradientCall<double, double> call = ordinary_gradient_call<double, double>({4, 3, 25}, Format::NCHW, true);
  call.options.epsilon = 1e-300;
  const Extents e = call.extents();
  for_each_isa([&](Isa) {
    call.dy.assign(call.x.size(), 1.0);
    for (const double dx : run(call).dx) ASSERT_NEAR(dx, 0, 0x1p-40);
    for (std::int64_t c = 0; c < e.c; ++c) {
      const Channel channel = call.channel(c);
      for (std::int64_t j = 0; j < e.n * e.s; ++j) {
        const std::size_t at = e.index(j / e.s, c, j % e.s);
        call.dy[at] = static_cast<double>((real(call.x[at]) - channel.saved.mean) * channel.r());
      }
    }
    for (const double dx : run(call).dx) ASSERT_NEAR(dx, 0, 0x1p-40);
  });
}

}  // namespace
