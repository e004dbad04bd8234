// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/gradient_calls.hpp"

// Which gradients are written, by which form of the call, in which place, and that nothing else is.
namespace {

using namespace support;
using batchnorm::TensorView;

template <class Both>
class GradientOutputs : public testing::Test {};
TYPED_TEST_SUITE(GradientOutputs, EveryTypes, TypesNames);

constexpr Sizes odd_sizes[] = {{3, 5, 7}, {1, 1, 1}, {2, 3, 613}, {9, 33, 15}, {41, 2, 1}, {17, 67, 1}, {1, 130, 3}};

template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : odd_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call =
            ordinary_gradient_call<typename Both::T, typename Both::P>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(text_of(call));
        body(call);
      }
    }
  }
}

// Every subset, each output between guards: what is asked for has the bits of the whole, nothing else is written.
TYPED_TEST(GradientOutputs, AnySubsetHasTheBitsOfAllAndNothingBesideItIsWritten) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    const std::vector<T> untouched(call.x.size(), element<T>(unwritten));
    const std::vector<P> untouched_sums(call.mean.size(), element<P>(unwritten));
    for_each_isa([&](Isa) {
      const auto want = run(call);
      for (unsigned subset = 0; subset < 16; ++subset) {
        const auto asked = [&](unsigned i) { return (subset >> i & 1) != 0; };
        Guarded<T> dx(std::span<const T>(untouched), subset % 4), dresidual(std::span<const T>(untouched), 3 - subset % 4);
        Guarded<P> dscale(std::span<const P>(untouched_sums), subset % 3), dbias(std::span<const P>(untouched_sums), 1);
        batchnorm::GradientViews<T, P> out;
        if (asked(0)) out.dx = {dx.data(), call.shape};
        if (asked(1)) out.dscale = dscale.values();
        if (asked(2)) out.dbias = dbias.values();
        if (asked(3)) out.dresidual = {dresidual.data(), call.shape};
        batchnorm::batch_norm_backward<T, P>(call.format, call.options, call.dy_view(), call.x_view(), view(call.scale),
                                             call.mean, call.variance, out);
        EXPECT_TRUE(same_bits(dx.values(), asked(0) ? want.dx : untouched)) << subset;
        EXPECT_TRUE(same_bits(dscale.values(), asked(1) ? want.dscale : untouched_sums)) << subset;
        EXPECT_TRUE(same_bits(dbias.values(), asked(2) ? want.dbias : untouched_sums)) << subset;
        EXPECT_TRUE(same_bits(dresidual.values(), asked(3) ? call.dy : untouched)) << subset;
        EXPECT_TRUE(dx.guards_intact() && dresidual.guards_intact() && dscale.guards_intact() && dbias.guards_intact());
      }
    });
  });
}

TYPED_TEST(GradientOutputs, DxInThePlaceOfDyEqualsDxBesideIt) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    for_each_isa([&](Isa) {
      const auto want = run(call);
      for (std::size_t offset = 0; offset < 3; ++offset) {
        Guarded<T> both(std::span<const T>(call.dy), offset);
        std::vector<P> dscale(call.mean.size()), dbias(call.mean.size());
        batchnorm::batch_norm_backward<T, P>(call.format, call.options, {both.data(), call.shape}, call.x_view(),
                                             view(call.scale), call.mean, call.variance,
                                             {{both.data(), call.shape}, dscale, dbias});
        EXPECT_TRUE(same_bits(both.values(), want.dx) && both.guards_intact());
        EXPECT_TRUE(same_bits(dscale, want.dscale) && same_bits(dbias, want.dbias));
      }
    });
  });
}

/// A call of the operator with the format as a template parameter.
template <Format F, class T, class P>
void expect_owned_forms_equal(const GradientCall<T, P>& call, const GradientResult<T, P>& want) {
  const batchnorm::BatchNorm<T, F, P> bn(call.options);
  const batchnorm::Gradients<T, P> owned =
      bn.backward(call.dy_view(), call.x_view(), view(call.scale), call.mean, call.variance);
  EXPECT_EQ(owned.dx.shape(), call.shape);
  EXPECT_EQ(owned.dscale.shape(), Shape{call.extents().c});
  EXPECT_EQ(owned.dbias.shape(), Shape{call.extents().c});
  EXPECT_TRUE(same_bits(values_of(owned.dx), want.dx));
  EXPECT_TRUE(same_bits(values_of(owned.dscale), want.dscale) && same_bits(values_of(owned.dbias), want.dbias));
  batchnorm::Tensor<T> dx(call.shape);
  batchnorm::Tensor<P> dbias(Shape{call.extents().c});
  bn.backward(call.dy_view(), call.x_view(), view(call.scale), call.mean, call.variance, {.dx = dx, .dbias = dbias});
  EXPECT_TRUE(same_bits(values_of(dx), want.dx) && same_bits(values_of(dbias), want.dbias));
}

TYPED_TEST(GradientOutputs, EveryFormOfTheCallGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
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

TYPED_TEST(GradientOutputs, RankTwoMeansTheSameInBothFormats) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const bool is_training : {true, false}) {
    const auto nchw = ordinary_gradient_call<T, P>({19, 35}, Format::NCHW, is_training);
    auto nhwc = nchw;
    nhwc.format = Format::NHWC;
    for_each_isa([&](Isa) { EXPECT_TRUE(same(run(nchw), run(nhwc))); });
  }
}

// y, mean and variance of the forward pass go into backward as they come out.
TEST(Gradients, TakeWhatTheForwardPassReserves) {
  const auto call = ordinary_gradient_call<float, float>({8, 17, 5, 5}, Format::NCHW, true);
  const batchnorm::BatchNorm<float> bn(true);
  for_each_isa([&](Isa isa) {
    const auto forward = bn(call.x_view(), *call.scale, {}, {}, {});
    const auto got = bn.backward(call.dy_view(), call.x_view(), *call.scale, forward.reserve_space_1, forward.reserve_space_2);
    auto saved = call;
    saved.mean.assign(forward.reserve_space_1.begin(), forward.reserve_space_1.end());
    saved.variance.assign(forward.reserve_space_2.begin(), forward.reserve_space_2.end());
    const GradientResult<float, float> result{
        {got.dx.begin(), got.dx.end()}, {got.dscale.begin(), got.dscale.end()}, {got.dbias.begin(), got.dbias.end()}};
    expect_kept(errors(saved, result, expected(saved), isa));
  });
}

}  // namespace
