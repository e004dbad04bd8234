// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "support/calls.hpp"

// Which outputs are written, by which form of the call, and that nothing else is.
namespace {

using namespace support;
using batchnorm::TensorView;

template <class Both>
class OutputsOf : public testing::Test {};
TYPED_TEST_SUITE(OutputsOf, EveryElement, TypesNames);

constexpr Sizes odd_sizes[] = {{3, 5, 7}, {1, 1, 1}, {2, 3, 613}, {9, 33, 15}, {41, 2, 1}, {17, 67, 1}, {1, 130, 3}};

template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : odd_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(call);
      }
    }
  }
}

TYPED_TEST(OutputsOf, AllFiveAreWrittenAndTheReservesRepeatTheBatchStatistics) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call) {
    for_each_isa([&](Isa) {
      const auto result = run(call);  // into buffers full of 777; no value of an ordinary call comes near it
      for (const T& y : result.y) ASSERT_NE(real(y), real(element<T>(unwritten)));
      for (const auto* statistic : {&result.batch_mean, &result.batch_variance}) {
        for (const P& value : *statistic) ASSERT_NE(real(value), real(element<P>(unwritten)));
      }
      EXPECT_TRUE(same_bits(result.reserve_space_1, result.batch_mean));
      EXPECT_TRUE(same_bits(result.reserve_space_2, result.batch_variance));
    });
  });
}

TYPED_TEST(OutputsOf, InferenceCopiesItsStatisticsBitByBit) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Format format : formats) {
    auto call = ordinary_call<T, P>(shape_of(format, 3, 2, 67, 3), format, false);
    (*call.mean)[0] = element<P>(-0.0);
    (*call.mean)[1] = element<P>(std::numeric_limits<double>::quiet_NaN());
    (*call.mean)[66] = element<P>(-std::numeric_limits<double>::infinity());
    (*call.variance)[0] = element<P>(1e-45);
    (*call.variance)[1] = element<P>(-std::numeric_limits<double>::quiet_NaN());
    for_each_isa([&](Isa) {
      const auto result = run(call);
      EXPECT_TRUE(same_bits(result.batch_mean, *call.mean));
      EXPECT_TRUE(same_bits(result.batch_variance, *call.variance));
      EXPECT_TRUE(same_bits(result.mean, *call.mean));
      EXPECT_TRUE(same_bits(result.variance, *call.variance));
    });
  }
}

/// A call of the operator with the format as a template parameter: owned outputs, or the short form.
template <Format F, class T, class P>
void expect_owned_forms_equal(const Call<T, P>& call, const Result<T, P>& want) {
  const batchnorm::BatchNorm<T, F, P> bn(call.options);
  const TensorView<const T> x(call.x.data(), call.shape);
  auto mean = *call.mean, variance = *call.variance;
  const batchnorm::Outputs<T, P> owned = bn(x, view(call.scale), view(call.bias), mean, variance);
  EXPECT_EQ(owned.output_x.shape(), call.shape);
  EXPECT_EQ(owned.batch_mean.shape(), Shape{call.extents().c});
  EXPECT_TRUE(same_bits(values_of(owned.output_x), want.y));
  EXPECT_TRUE(same_bits(values_of(owned.batch_mean), want.batch_mean));
  EXPECT_TRUE(same_bits(values_of(owned.batch_variance), want.batch_variance));
  EXPECT_TRUE(same_bits(values_of(owned.reserve_space_1), want.reserve_space_1));
  EXPECT_TRUE(same_bits(values_of(owned.reserve_space_2), want.reserve_space_2));
  EXPECT_TRUE(same_bits(mean, want.mean) && same_bits(variance, want.variance));

  mean = *call.mean, variance = *call.variance;
  const batchnorm::Tensor<T> y = bn.output_x(x, view(call.scale), view(call.bias), mean, variance);
  EXPECT_EQ(y.shape(), call.shape);
  EXPECT_TRUE(same_bits(values_of(y), want.y));
  EXPECT_TRUE(same_bits(mean, want.mean) && same_bits(variance, want.variance));

  mean = *call.mean, variance = *call.variance;
  batchnorm::Tensor<T> into(call.shape);
  batchnorm::Tensor<P> reserve(Shape{call.extents().c});
  bn(x, view(call.scale), view(call.bias), mean, variance, {.output_x = into, .reserve_space_2 = reserve});
  EXPECT_TRUE(same_bits(values_of(into), want.y));
  EXPECT_TRUE(same_bits(values_of(reserve), want.reserve_space_2));
  EXPECT_TRUE(same_bits(mean, want.mean) && same_bits(variance, want.variance));
}

TYPED_TEST(OutputsOf, EveryFormOfTheCallGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call) {
    for_each_isa([&](Isa) {
      const auto want = run(call);
      if (call.format == Format::NCHW) {
        expect_owned_forms_equal<Format::NCHW>(call, want);
      } else {
        expect_owned_forms_equal<Format::NHWC>(call, want);
      }
    });
  });
}

TYPED_TEST(OutputsOf, RankTwoMeansTheSameInBothFormats) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    const auto nchw = ordinary_call<T, P>({19, 35}, Format::NCHW, is_training);
    auto nhwc = nchw;
    nhwc.format = Format::NHWC;
    for_each_isa([&](Isa) {
      const auto a = run(nchw), b = run(nhwc);
      EXPECT_TRUE(same_bits(a.y, b.y));
      EXPECT_TRUE(same_bits(a.batch_mean, b.batch_mean) && same_bits(a.batch_variance, b.batch_variance));
      EXPECT_TRUE(same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance));
    });
  }
}

// Every subset of the side outputs, each between guards: what is asked for is written, its surroundings are not.
TYPED_TEST(OutputsOf, AnySubsetIsWrittenAndNothingBesideIt) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call) {
    const auto channels = static_cast<std::size_t>(call.extents().c);
    for_each_isa([&](Isa) {
      const auto want = run(call);
      for (unsigned subset = 0; subset < 16; ++subset) {
        const std::size_t offset = subset % 4;
        Guarded<T> x(std::span<const T>(call.x), offset), y(call.x.size(), 3 - offset, element<T>(unwritten));
        Guarded<P> mean(std::span<const P>(*call.mean), offset), variance(std::span<const P>(*call.variance), 1 + offset);
        std::array<Guarded<P>, 4> sides = {
            Guarded<P>(channels, 0, element<P>(unwritten)), Guarded<P>(channels, 1, element<P>(unwritten)),
            Guarded<P>(channels, 2, element<P>(unwritten)), Guarded<P>(channels, 3, element<P>(unwritten))};
        const auto side = [&](unsigned i) {
          return (subset >> i & 1) != 0 ? TensorView<P>(sides[i].values()) : TensorView<P>();
        };
        batchnorm::batch_norm<T, P>(call.format, call.options, {x.data(), call.shape}, view(call.scale), view(call.bias),
                                    mean.values(), variance.values(),
                                    {{y.data(), call.shape}, side(0), side(1), side(2), side(3)});
        EXPECT_TRUE(same_bits(y.values(), want.y));
        EXPECT_TRUE(same_bits(mean.values(), want.mean) && same_bits(variance.values(), want.variance));
        for (unsigned i = 0; i < 4; ++i) {
          const std::vector<P> untouched(channels, element<P>(unwritten));
          const std::vector<P>& written = i % 2 == 0 ? want.batch_mean : want.batch_variance;
          EXPECT_TRUE(same_bits(sides[i].values(), (subset >> i & 1) != 0 ? written : untouched)) << "side output " << i;
          EXPECT_TRUE(sides[i].guards_intact()) << "side output " << i;
        }
        EXPECT_TRUE(x.guards_intact() && y.guards_intact() && mean.guards_intact() && variance.guards_intact());
      }
    });
  });
}

TEST(Operator, RemembersItsOptions) {
  const batchnorm::BatchNorm<float> bn;
  EXPECT_FALSE(bn.options().is_training);
  EXPECT_EQ(bn.options().epsilon, 1e-5);
  EXPECT_EQ(bn.options().momentum, 0.1);
  const batchnorm::BatchNorm<float, Format::NHWC> other(true, 1e-3, 0.25);
  EXPECT_TRUE(other.options().is_training);
  EXPECT_EQ(other.options().epsilon, 1e-3);
  EXPECT_EQ(other.options().momentum, 0.25);
}

}  // namespace
