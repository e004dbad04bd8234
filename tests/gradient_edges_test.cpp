// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/gradient_calls.hpp"

// Every edge of the gradients' meaning: no values, one value, no channels, NaN and infinity, an absent scale.
namespace {

using namespace support;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Both>
class GradientEdges : public testing::Test {};
TYPED_TEST_SUITE(GradientEdges, EveryTypes, TypesNames);

// One shape for each kernel family: short and long planes, many images of small planes, few and many channels.
constexpr Sizes edge_sizes[] = {{3, 5, 7}, {2, 3, 600}, {9, 33, 16}, {40, 2, 1}, {17, 70, 1}};

/// body(call) for every shape above, in both formats.
template <class Both, class Body>
void for_each_call(bool is_training, Body&& body) {
  for (const Sizes& sizes : edge_sizes) {
    for (const Format format : formats) {
      const auto call =
          ordinary_gradient_call<typename Both::T, typename Both::P>(shape_of(format, 4, sizes), format, is_training);
      SCOPED_TRACE(text_of(call));
      body(call);
    }
  }
}

template <class T>
bool same_element(const std::vector<T>& a, const std::vector<T>& b, std::size_t i) {
  return std::memcmp(&a[i], &b[i], sizeof(T)) == 0;
}

/// Equality of everything that belongs to channel c, NaN with NaN.
template <class T, class P>
bool same_channel(const GradientResult<T, P>& a, const GradientResult<T, P>& b, const Extents& e, std::int64_t c) {
  const auto i = static_cast<std::size_t>(c);
  bool same = same_element(a.dscale, b.dscale, i) && same_element(a.dbias, b.dbias, i);
  for (std::int64_t j = 0; j < e.n * e.s; ++j) same = same && same_element(a.dx, b.dx, e.index(j / e.s, c, j % e.s));
  return same;
}

/// body(value of dx) for every element of channel c.
template <class T, class P, class Body>
void for_each_dx(const GradientResult<T, P>& result, const Extents& e, std::int64_t c, Body&& body) {
  for (std::int64_t j = 0; j < e.n * e.s; ++j) body(real(result.dx[e.index(j / e.s, c, j % e.s)]));
}

TYPED_TEST(GradientEdges, AnEmptyBatchGivesZerosForScaleAndBias) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::pair<Format, Shape> empty[] = {{Format::NCHW, {0, 3}},       {Format::NHWC, {0, 3}},
                                            {Format::NCHW, {0, 3, 2, 2}}, {Format::NCHW, {2, 3, 0, 2}},
                                            {Format::NHWC, {0, 2, 2, 3}}, {Format::NHWC, {2, 2, 0, 3}},
                                            {Format::NHWC, {2, 0, 3}},    {Format::NCHW, {2, 3, 2, 2, 0}}};
  for (const auto& [format, shape] : empty) {
    for (const bool is_training : {true, false}) {
      auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
      call.mean.assign(3, element<P>(not_a_number));  // statistics of no values may be anything
      SCOPED_TRACE(text_of(call));
      for_each_isa([&](Isa) {
        const auto result = run(call);
        EXPECT_TRUE(result.dx.empty());
        EXPECT_TRUE(same_bits(result.dscale, std::vector<P>(3, P(0))));
        EXPECT_TRUE(same_bits(result.dbias, std::vector<P>(3, P(0))));
      });
    }
  }
}

TYPED_TEST(GradientEdges, NoChannelsGiveEmptyGradients) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::pair<Format, Shape> none[] = {
      {Format::NCHW, {3, 0}}, {Format::NCHW, {2, 0, 4}}, {Format::NHWC, {2, 4, 0}}, {Format::NHWC, {0, 0, 0, 0}}};
  for (const auto& [format, shape] : none) {
    for (const bool is_training : {true, false}) {
      const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
      for_each_isa([&](Isa) {
        const auto result = run(call);
        EXPECT_TRUE(result.dx.empty() && result.dscale.empty() && result.dbias.empty());
      });
    }
  }
}

TYPED_TEST(GradientEdges, OneValuePerChannelThatIsItsOwnMeanHasNoGradient) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t c : {1, 3, 8, 65}) {
    for (int rank = 2; rank <= 5; ++rank) {
      for (const Format format : formats) {
        for (const double offset : {0.0, 7.0, 240.0}) {  // numbers that every P holds
          auto call = ordinary_gradient_call<T, P>(shape_of(format, rank, 1, c, 1), format, true);
          for (std::size_t i = 0; i < call.x.size(); ++i) {
            call.x[i] = element<T>(offset - static_cast<double>(i % 5));
            call.mean[i] = element<P>(offset - static_cast<double>(i % 5));
          }
          SCOPED_TRACE(text_of(call));
          for_each_isa([&](Isa) {
            const auto result = run(call);
            for (std::size_t i = 0; i < result.dx.size(); ++i) {
              ASSERT_EQ(real(result.dx[i]), 0) << "dy is " << real(call.dy[i]);
              ASSERT_EQ(real(result.dscale[i]), 0);
              ASSERT_EQ(real(result.dbias[i]), real(element<P>(static_cast<double>(real(call.dy[i])))));
            }
          });
        }
      }
    }
  }
}

// A constant channel: x - mean is 0 everywhere, dx only what dy differs from its mean by, at the largest factor there is.
TYPED_TEST(GradientEdges, AConstantChannelHasNoGradientOfScale) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>(true, [](GradientCall<T, P> call) {
    std::fill(call.x.begin(), call.x.end(), element<T>(12));
    save_statistics(call);
    const auto want = expected(call);
    for_each_isa([&](Isa isa) {
      const auto result = run(call);
      expect_kept(errors(call, result, want, isa));
      for (const P& dscale : result.dscale) ASSERT_EQ(real(dscale), 0);
    });
  });
}

TYPED_TEST(GradientEdges, NotANumberAndInfinityStayInTheirChannel) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>(true, [](const GradientCall<T, P>& call) {
    const Extents e = call.extents();
    const std::int64_t channel = e.c / 2;
    const auto i = static_cast<std::size_t>(channel);
    for (const double bad : {not_a_number, infinity, -infinity}) {
      for (const std::int64_t position : {std::int64_t{0}, e.n * e.s / 2, e.n * e.s - 1}) {
        for (const bool in_dy : {true, false}) {
          SCOPED_TRACE(std::to_string(bad) + (in_dy ? " in dy" : " in x") + " at " + std::to_string(position));
          auto poisoned = call;
          (in_dy ? poisoned.dy : poisoned.x)[e.index(position / e.s, channel, position % e.s)] = element<T>(bad);
          for_each_isa([&](Isa) {
            const auto clean = run(call), result = run(poisoned);
            for (std::int64_t c = 0; c < e.c; ++c) {
              ASSERT_TRUE(c == channel || same_channel(clean, result, e, c)) << "it reached channel " << c;
            }
            EXPECT_FALSE(std::isfinite(real(result.dscale[i])));
            if (in_dy) {
              EXPECT_FALSE(std::isfinite(real(result.dbias[i])));
            } else {
              EXPECT_TRUE(same_element(result.dbias, clean.dbias, i));  // the sum of dy does not know x
            }
            for_each_dx(result, e, channel, [](Real dx) { ASSERT_FALSE(std::isfinite(dx)); });
          });
        }
      }
    }
  });
}

TYPED_TEST(GradientEdges, InInferenceTheyStayAtTheirPlace) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>(false, [](const GradientCall<T, P>& call) {
    const std::size_t at = call.x.size() / 2;
    for (const double bad : {not_a_number, infinity, -infinity}) {
      auto bad_dy = call, bad_x = call;
      bad_dy.dy[at] = element<T>(bad);
      bad_x.x[at] = element<T>(bad);
      for_each_isa([&](Isa) {
        const auto clean = run(call), by_x = run(bad_x);
        auto by_dy = run(bad_dy);
        EXPECT_FALSE(std::isfinite(real(by_dy.dx[at])));
        by_dy.dx[at] = clean.dx[at];
        EXPECT_TRUE(same_bits(by_dy.dx, clean.dx));
        EXPECT_TRUE(same_bits(by_x.dx, clean.dx)) << "dx of inference does not know x";
      });
    }
  });
}

TYPED_TEST(GradientEdges, AVarianceBelowMinusEpsilonIsNotANumber) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    for_each_call<TypeParam>(is_training, [](const GradientCall<T, P>& call) {
      const Extents e = call.extents();
      const std::int64_t channel = e.c / 2;
      auto negative = call;
      negative.variance[static_cast<std::size_t>(channel)] = element<P>(-0.5);
      for_each_isa([&](Isa) {
        const auto clean = run(call), result = run(negative);
        for (std::int64_t c = 0; c < e.c; ++c) {
          ASSERT_TRUE(c == channel || same_channel(clean, result, e, c)) << "NaN reached channel " << c;
        }
        EXPECT_TRUE(std::isnan(real(result.dscale[static_cast<std::size_t>(channel)])));
        for_each_dx(result, e, channel, [](Real dx) { ASSERT_TRUE(std::isnan(dx)); });
      });
    });
  }
}

// 1 / sqrt(epsilon) is the largest factor: with the smallest epsilon and a variance of 0 it is beyond a float. What the formula
// gives is then infinite or NaN (0 times it), in that channel alone; nothing is trapped.
TYPED_TEST(GradientEdges, AFactorBeyondItsTypeStaysInItsChannel) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    for_each_call<TypeParam>(is_training, [](GradientCall<T, P> call) {
      const Extents e = call.extents();
      const std::int64_t channel = e.c / 2;
      call.options.epsilon = 1e-300;
      auto zero = call;
      zero.variance[static_cast<std::size_t>(channel)] = P(0);
      for_each_isa([&](Isa) {
        const auto clean = run(call), result = run(zero);
        for (std::int64_t c = 0; c < e.c; ++c) {
          ASSERT_TRUE(c == channel || same_channel(clean, result, e, c)) << "it reached channel " << c;
        }
      });
    });
  }
}

TYPED_TEST(GradientEdges, AnAbsentScaleIsOne) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    for_each_call<TypeParam>(is_training, [](const GradientCall<T, P>& call) {
      auto absent = call, ones = call;
      absent.scale.reset();
      std::fill(ones.scale->begin(), ones.scale->end(), element<P>(1));
      for_each_isa([&](Isa) { EXPECT_TRUE(same(run(absent), run(ones))); });
    });
  }
}

TYPED_TEST(GradientEdges, AScaleOfZeroGivesAGradientOfZero) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>(true, [](GradientCall<T, P> call) {
    const auto with_scale = call;
    std::fill(call.scale->begin(), call.scale->end(), element<P>(0));
    for_each_isa([&](Isa) {
      const auto result = run(call), other = run(with_scale);
      for (const T& dx : result.dx) ASSERT_EQ(real(dx), 0);
      EXPECT_TRUE(same_bits(result.dscale, other.dscale) && same_bits(result.dbias, other.dbias));
    });
  });
}

}  // namespace
