// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/calls.hpp"

// Every edge of the operator's meaning: no values, one value, no channels, NaN and infinity, absent arguments, y on x.
namespace {

using namespace support;
using batchnorm::NotFinite;

template <class Both>
class Edges : public testing::Test {};
TYPED_TEST_SUITE(Edges, EveryElement, TypesNames);

// One shape for each kernel family: short and long planes, many images of small planes, few and many channels.
constexpr Sizes edge_sizes[] = {{3, 5, 7}, {2, 3, 600}, {9, 33, 16}, {40, 2, 1}, {17, 70, 1}};

/// body(call) for every shape above, in both formats.
template <class Both, class Body>
void for_each_call(bool is_training, Body&& body) {
  for (const Sizes& sizes : edge_sizes) {
    for (const Format format : formats) {
      const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 4, sizes), format, is_training);
      SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)));
      body(call);
    }
  }
}

/// Equality of everything that belongs to channel c, NaN with NaN.
template <class T, class P>
bool same_channel(const Result<T, P>& a, const Result<T, P>& b, const Extents& e, std::int64_t c) {
  const auto i = static_cast<std::size_t>(c);
  bool same = true;
  for (const auto member : {&Result<T, P>::batch_mean, &Result<T, P>::batch_variance, &Result<T, P>::reserve_space_1,
                            &Result<T, P>::reserve_space_2, &Result<T, P>::mean, &Result<T, P>::variance}) {
    same = same && std::memcmp(&(a.*member)[i], &(b.*member)[i], sizeof(P)) == 0;
  }
  for (std::int64_t j = 0; j < e.n * e.s; ++j) {
    const std::size_t at = e.index(j / e.s, c, j % e.s);
    same = same && std::memcmp(&a.y[at], &b.y[at], sizeof(T)) == 0;
  }
  return same;
}

TYPED_TEST(Edges, OneValuePerChannelYieldsBias) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t c : {1, 3, 8, 65}) {
    for (int rank = 2; rank <= 5; ++rank) {
      for (const Format format : formats) {
        const auto call = ordinary_call<T, P>(shape_of(format, rank, 1, c, 1), format, true);
        for_each_isa([&](Isa) {
          const auto result = run(call);
          for (std::size_t i = 0; i < result.y.size(); ++i) {
            ASSERT_EQ(real(result.y[i]), real(element<T>(static_cast<double>(real((*call.bias)[i])))));
            ASSERT_EQ(real(result.batch_mean[i]), real(element<P>(static_cast<double>(real(call.x[i])))));
            ASSERT_EQ(real(result.batch_variance[i]), 0);
            // The divisor of the unbiased variance is max(m - 1, 1): 0 enters, nothing becomes NaN.
            const Real old = real((*call.variance)[i]);
            ASSERT_LE(error(result.variance[i], updated(old, 0, 0.1)), allowed_variance_error<P>(old));
          }
        });
      }
    }
  }
}

TYPED_TEST(Edges, EmptyBatchLeavesRunningStatisticsAndZeroesTheOthers) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::pair<Format, Shape> empty[] = {{Format::NCHW, {0, 3}},       {Format::NHWC, {0, 3}},
                                            {Format::NCHW, {0, 3, 2, 2}}, {Format::NCHW, {2, 3, 0, 2}},
                                            {Format::NHWC, {0, 2, 2, 3}}, {Format::NHWC, {2, 2, 0, 3}},
                                            {Format::NHWC, {2, 0, 3}},    {Format::NCHW, {2, 3, 2, 2, 0}}};
  for (const auto& [format, shape] : empty) {
    for (const double momentum : {0.1, 1.0}) {
      for (const bool is_training : {true, false}) {
        auto call = ordinary_call<T, P>(shape, format, is_training);
        call.options.momentum = momentum;
        const std::vector<P> zeros(3, P(0));
        SCOPED_TRACE(to_string(call.shape) + (is_training ? " training" : " inference"));
        for_each_isa([&](Isa) {
          const auto result = run(call);
          EXPECT_TRUE(result.y.empty());
          EXPECT_TRUE(same_bits(result.mean, *call.mean));
          EXPECT_TRUE(same_bits(result.variance, *call.variance));
          EXPECT_TRUE(same_bits(result.batch_mean, is_training ? zeros : *call.mean));
          EXPECT_TRUE(same_bits(result.batch_variance, is_training ? zeros : *call.variance));
          EXPECT_TRUE(same_bits(result.reserve_space_1, result.batch_mean));
          EXPECT_TRUE(same_bits(result.reserve_space_2, result.batch_variance));
        });
      }
    }
  }
}

TYPED_TEST(Edges, NoChannelsGivesEmptyOutputs) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::pair<Format, Shape> none[] = {
      {Format::NCHW, {3, 0}}, {Format::NCHW, {2, 0, 4}}, {Format::NHWC, {2, 4, 0}}, {Format::NHWC, {0, 0, 0, 0}}};
  for (const auto& [format, shape] : none) {
    for (const bool is_training : {true, false}) {
      const auto call = ordinary_call<T, P>(shape, format, is_training);
      for_each_isa([&](Isa) {
        const auto result = run(call);
        EXPECT_TRUE(result.y.empty() && result.batch_mean.empty());
      });
    }
  }
}

TYPED_TEST(Edges, NotANumberStaysInItsChannel) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const double infinity = std::numeric_limits<double>::infinity();
  for_each_call<TypeParam>(true, [&](const Call<T, P>& call) {
    const Extents e = call.extents();
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
      for (const std::int64_t position : {std::int64_t{0}, e.n * e.s / 2, e.n * e.s - 1}) {
        auto poisoned = call;
        const std::int64_t channel = e.c / 2;
        poisoned.x[e.index(position / e.s, channel, position % e.s)] = element<T>(bad);
        for_each_isa([&](Isa) {
          const auto clean = run(call), result = run(poisoned);
          for (std::int64_t c = 0; c < e.c; ++c) {
            ASSERT_TRUE(c == channel || same_channel(clean, result, e, c)) << bad << " reached channel " << c;
          }
          const auto i = static_cast<std::size_t>(channel);
          EXPECT_FALSE(std::isfinite(real(result.batch_mean[i])));
          EXPECT_TRUE(std::isnan(real(result.batch_variance[i])));
          EXPECT_FALSE(std::isfinite(real(result.mean[i])));
          EXPECT_TRUE(std::isnan(real(result.variance[i])));
          for (std::int64_t j = 0; j < e.n * e.s; ++j) {
            ASSERT_TRUE(std::isnan(real(result.y[e.index(j / e.s, channel, j % e.s)])));
          }
        });
      }
    }
  });
}

TYPED_TEST(Edges, NotANumberOfInferenceStaysAtItsPlace) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const double infinity = std::numeric_limits<double>::infinity();
  for_each_call<TypeParam>(false, [&](const Call<T, P>& call) {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
      auto poisoned = call;
      const std::size_t at = call.x.size() / 2;
      poisoned.x[at] = element<T>(bad);
      const Expected want = expected(poisoned);
      for_each_isa([&](Isa) {
        auto clean = run(call), result = run(poisoned);
        EXPECT_EQ(error(result.y[at], want.y[at].z), 0) << "x is " << bad;
        clean.y[at] = result.y[at];
        EXPECT_TRUE(same_bits(clean.y, result.y));
      });
    }
  });
}

TYPED_TEST(Edges, KeepLeavesRunningStatisticsOfChannelsThatAreNotFinite) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const double infinity = std::numeric_limits<double>::infinity();
  for_each_call<TypeParam>(true, [&](const Call<T, P>& call) {
    const Extents e = call.extents();
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
      for (const double momentum : {0.1, 1.0}) {
        auto poisoned = call;
        poisoned.options.not_finite = NotFinite::keep;
        poisoned.options.momentum = momentum;
        auto clean = call;
        clean.options.momentum = momentum;
        const auto channel = static_cast<std::size_t>(e.c / 2);
        poisoned.x[e.index(0, e.c / 2, e.s - 1)] = element<T>(bad);
        for_each_isa([&](Isa) {
          auto want = run(clean);
          want.mean[channel] = (*call.mean)[channel];
          want.variance[channel] = (*call.variance)[channel];
          const auto result = run(poisoned);
          EXPECT_TRUE(same_bits(result.mean, want.mean));
          EXPECT_TRUE(same_bits(result.variance, want.variance));
        });
      }
    }
  });
}

// Two values of +-250: the biased variance, 62500, is a half, the unbiased one is not.
TEST(KeepOfHalf, IsDecidedByTheVarianceThatEnters) {
  using batchnorm::half;
  Call<half, half> call{Shape{2, 1}, Format::NCHW, {.is_training = true, .not_finite = NotFinite::keep}};
  call.x = {half(250.0F), half(-250.0F)};
  call.mean = {half(0.5F)}, call.variance = {half(1.0F)};
  for_each_isa([&](Isa) {
    call.options.running_variance = batchnorm::RunningVariance::unbiased;
    const auto kept = run(call);
    EXPECT_TRUE(same_bits(kept.mean, *call.mean) && same_bits(kept.variance, *call.variance));
    call.options.running_variance = batchnorm::RunningVariance::biased;
    const auto updated = run(call);
    EXPECT_FALSE(same_bits(updated.mean, *call.mean) || same_bits(updated.variance, *call.variance));
  });
}

// Finite values whose variance overflows its type: for the running statistics this is the same accident.
TYPED_TEST(Edges, KeepLeavesRunningStatisticsThatWouldOverflowTheirType) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const int exponent = precision<P>().highest / 2 + 2;  // its square is beyond the largest P
  if (exponent > precision<T>().highest) GTEST_SKIP() << "no variance of this type is beyond the largest statistic";
  Call<T, P> call{{2, 1, 3}, Format::NCHW, {.is_training = true, .not_finite = NotFinite::keep}};
  for (const double sign : {1, -1, 1, -1, 1, 1}) call.x.push_back(element<T>(std::ldexp(sign, exponent)));
  call.mean = {element<P>(0.25)};
  call.variance = {element<P>(0.5)};
  for_each_isa([&](Isa) {
    const auto result = run(call);
    EXPECT_TRUE(std::isinf(real(result.batch_variance[0]))) << real(result.batch_variance[0]);
    EXPECT_TRUE(same_bits(result.mean, *call.mean));
    EXPECT_TRUE(same_bits(result.variance, *call.variance));
  });
}

TYPED_TEST(Edges, NegativeVarianceOfInferenceIsNotANumber) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>(false, [&](const Call<T, P>& call) {
    const Extents e = call.extents();
    const std::int64_t channel = e.c / 2;
    auto negative = call;
    (*negative.variance)[static_cast<std::size_t>(channel)] = element<P>(-0.5);
    for_each_isa([&](Isa) {
      const auto clean = run(call), result = run(negative);
      for (std::int64_t c = 0; c < e.c; ++c) {
        ASSERT_TRUE(c == channel || same_channel(clean, result, e, c)) << "NaN reached channel " << c;
      }
      for (std::int64_t j = 0; j < e.n * e.s; ++j) {
        ASSERT_TRUE(std::isnan(real(result.y[e.index(j / e.s, channel, j % e.s)])));
      }
    });
  });
}

TYPED_TEST(Edges, OutputOnItsInputEqualsOutputBesideIt) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    for_each_call<TypeParam>(is_training, [&](const Call<T, P>& call) {
      for_each_isa([&](Isa) {
        const auto beside = run(call);
        auto mean = *call.mean, variance = *call.variance;
        for (std::size_t offset = 0; offset < 3; ++offset) {
          Guarded<T> both(std::span<const T>(call.x), offset);
          mean = *call.mean, variance = *call.variance;
          batchnorm::batch_norm<T, P>(call.format, call.options, {both.data(), call.shape}, view(call.scale), view(call.bias),
                                      mean, variance, {{both.data(), call.shape}});
          EXPECT_TRUE(same_bits(both.values(), beside.y));
          EXPECT_TRUE(both.guards_intact());
        }
        EXPECT_TRUE(same_bits(mean, beside.mean) && same_bits(variance, beside.variance));
      });
    });
  }
}

TYPED_TEST(Edges, AbsentScaleAndBiasAreOnesAndZeros) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    for_each_call<TypeParam>(is_training, [&](const Call<T, P>& call) {
      const auto channels = static_cast<std::size_t>(call.extents().c);
      for (const bool with_scale : {true, false}) {
        for (const bool with_bias : {true, false}) {
          auto absent = call, explicit_call = call;
          if (!with_scale) absent.scale.reset(), explicit_call.scale->assign(channels, element<P>(1));
          if (!with_bias) absent.bias.reset(), explicit_call.bias->assign(channels, element<P>(0));
          for_each_isa([&](Isa) { EXPECT_TRUE(same_bits(run(absent).y, run(explicit_call).y)); });
        }
      }
    });
  }
}

}  // namespace
