// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/gradient_calls.hpp"

// The gradients of the gradients against the oracle; what is absent; the edges.
namespace {

using namespace support;

template <class Both>
class DoubleBackward : public testing::Test {};
TYPED_TEST_SUITE(DoubleBackward, EveryTypes, TypesNames);

template <class T, class P>
void expect_near(const DoubleGradientCall<T, P>& call, const Offsets& offsets = {}) {
  SCOPED_TRACE(text_of(call.of) + ", dy, x and dx at +" + std::to_string(offsets.dy) + ", +" + std::to_string(offsets.x) +
               ", +" + std::to_string(offsets.out));
  const auto want = expected(call);
  for_each_isa([&](Isa isa) { expect_kept(errors(call, run(call, {}, offsets), want, isa)); });
}

/// body(call) for the ordinary call of that rank and size in both formats, training and inference.
template <class Both, class Body>
void for_each_form(int rank, const Sizes& sizes, Body&& body) {
  for (const Format format : formats) {
    if (rank == 2 && format == Format::NHWC) continue;  // the same as NCHW then
    for (const bool is_training : {true, false}) {
      const auto call = ordinary_double_gradient_call<typename Both::T, typename Both::P>(
          shape_of(format, rank, sizes), format, is_training, static_cast<std::uint64_t>(sizes.s + sizes.c));
      SCOPED_TRACE(text_of(call.of));
      body(call);
    }
  }
}

template <class Both>
void expect_near_in_every_form(int rank, const Sizes& sizes, const Offsets& offsets = {}) {
  for_each_form<Both>(rank, sizes, [&](const auto& call) { expect_near(call, offsets); });
}

TYPED_TEST(DoubleBackward, EveryPlaneLengthAndEveryNumberOfChannels) {
  for (const std::int64_t length :
       {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 49, 63, 64, 65, 127, 129, 257, 511, 512, 513}) {
    expect_near_in_every_form<TypeParam>(3, {2, 3, length});
    expect_near_in_every_form<TypeParam>(3, {2, length, 3});
    expect_near_in_every_form<TypeParam>(2, {5, length, 1});
  }
}

TYPED_TEST(DoubleBackward, EveryRank) {
  for (int rank = 2; rank <= 5; ++rank) expect_near_in_every_form<TypeParam>(rank, {4, 7, rank == 2 ? 1 : 60});
}

TYPED_TEST(DoubleBackward, EveryMisalignment) {
  for (std::size_t offset = 0; offset <= 2; ++offset) {
    expect_near_in_every_form<TypeParam>(3, {9, 16, 67}, {offset, 2 - offset, 1});
    expect_near_in_every_form<TypeParam>(4, {9, 5, 49}, {1, offset, offset});
  }
}

TYPED_TEST(DoubleBackward, SmallPlanesOfManyImagesAndLongPlanes) {
  for (const Sizes& sizes :
       {Sizes{8, 64, 49}, Sizes{33, 129, 1}, Sizes{7, 40, 9}, Sizes{3, 2, 5003}, Sizes{1, 2, 8193}, Sizes{2049, 17, 1}}) {
    expect_near_in_every_form<TypeParam>(4, sizes);
  }
}

TYPED_TEST(DoubleBackward, OffsetsCostNoDigits) {
  using T = typename TypeParam::T;
  for (const double offset : {1e3, -1e4}) {
    for (const Sizes& sizes : {Sizes{16, 5, 49}, Sizes{3, 2, 2003}, Sizes{64, 37, 1}}) {
      for_each_form<TypeParam>(3, sizes, [&](auto call) {
        for (auto* tensor : {&call.of.x, &call.of.dy, &*call.ddx}) {
          auto moved = call;
          auto& values = tensor == &call.of.x ? moved.of.x : tensor == &call.of.dy ? moved.of.dy : *moved.ddx;
          for (T& value : values) value = element<T>(static_cast<double>(real(value)) + offset);
          save_statistics(moved.of);
          expect_near(moved);
        }
      });
    }
  }
}

TYPED_TEST(DoubleBackward, WhatIsAbsentCountsAsZero) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : {Sizes{3, 5, 7}, Sizes{2, 3, 600}, Sizes{41, 2, 1}, Sizes{17, 70, 1}}) {
    for_each_form<TypeParam>(4, sizes, [&](const DoubleGradientCall<T, P>& call) {
      for (unsigned present = 0; present < 8; ++present) {
        auto absent = call;
        if ((present & 1) == 0) absent.ddx.reset();
        if ((present & 2) == 0) absent.ddscale.reset();
        if ((present & 4) == 0) absent.ddbias.reset();
        SCOPED_TRACE(present);
        expect_near(absent);
      }
    });
  }
}

TYPED_TEST(DoubleBackward, AnAbsentScaleIsOne) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_form<TypeParam>(4, {3, 5, 49}, [&](const DoubleGradientCall<T, P>& call) {
    auto absent = call, ones = call;
    absent.of.scale.reset();
    ones.of.scale->assign(5, element<P>(1));
    for_each_isa([&](Isa) { EXPECT_TRUE(same(run(absent), run(ones))); });
  });
}

// Each subset of the outputs, each between guards: what is asked for has the bits of the whole, nothing else is written.
TYPED_TEST(DoubleBackward, AnySubsetOfTheOutputsHasTheBitsOfAll) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : {Sizes{3, 5, 7}, Sizes{2, 3, 600}, Sizes{41, 2, 1}, Sizes{17, 70, 1}}) {
    for_each_form<TypeParam>(4, sizes, [&](const DoubleGradientCall<T, P>& call) {
      const GradientCall<T, P>& of = call.of;
      for_each_isa([&](Isa) {
        const auto want = run(call);
        for (unsigned subset = 0; subset < 8; ++subset) {
          Guarded<T> dx(of.x.size(), 1, element<T>(unwritten)), ddy(of.x.size(), 2, element<T>(unwritten));
          Guarded<P> dscale(want.dscale.size(), 3, element<P>(unwritten));
          batchnorm::DoubleGradientViews<T, P> out;
          if ((subset & 1) != 0) out.dx = {dx.data(), of.shape};
          if ((subset & 2) != 0) out.ddy = {ddy.data(), of.shape};
          if ((subset & 4) != 0) out.dscale = dscale.values();
          batchnorm::batch_norm_double_backward<T, P>(of.format, of.options,
                                                      {.dy = of.dy_view(),
                                                       .x = of.x_view(),
                                                       .scale = view(of.scale),
                                                       .mean = of.mean,
                                                       .variance = of.variance,
                                                       .ddx = call.ddx_view(),
                                                       .ddscale = view(call.ddscale),
                                                       .ddbias = view(call.ddbias)},
                                                      out);
          const std::vector<T> untouched(of.x.size(), element<T>(unwritten));
          const std::vector<P> untouched_dscale(want.dscale.size(), element<P>(unwritten));
          EXPECT_TRUE(same_bits(dx.values(), (subset & 1) != 0 ? want.dx : untouched)) << subset;
          EXPECT_TRUE(same_bits(ddy.values(), (subset & 2) != 0 ? want.ddy : untouched)) << subset;
          EXPECT_TRUE(same_bits(dscale.values(), (subset & 4) != 0 ? want.dscale : untouched_dscale)) << subset;
          EXPECT_TRUE(dx.guards_intact() && ddy.guards_intact() && dscale.guards_intact()) << subset;
        }
      });
    });
  }
}

template <Format F, class T, class P>
void expect_owned_forms_equal(const DoubleGradientCall<T, P>& call, const DoubleGradientResult<T, P>& want) {
  const GradientCall<T, P>& of = call.of;
  const batchnorm::BatchNorm<T, F, P> bn(of.options);
  const batchnorm::DoubleGradients<T, P> owned = bn.double_backward({.dy = of.dy_view(),
                                                                     .x = of.x_view(),
                                                                     .scale = view(of.scale),
                                                                     .mean = of.mean,
                                                                     .variance = of.variance,
                                                                     .ddx = call.ddx_view(),
                                                                     .ddscale = view(call.ddscale),
                                                                     .ddbias = view(call.ddbias)});
  EXPECT_EQ(owned.dx.shape(), of.shape);
  EXPECT_EQ(owned.ddy.shape(), of.shape);
  EXPECT_EQ(owned.dscale.shape(), Shape{of.extents().c});
  EXPECT_TRUE(same_bits(values_of(owned.dx), want.dx) && same_bits(values_of(owned.ddy), want.ddy));
  EXPECT_TRUE(same_bits(values_of(owned.dscale), want.dscale));
  batchnorm::Tensor<T> ddy(of.shape);
  bn.double_backward({.dy = of.dy_view(),
                      .x = of.x_view(),
                      .scale = view(of.scale),
                      .mean = of.mean,
                      .variance = of.variance,
                      .ddx = call.ddx_view(),
                      .ddscale = view(call.ddscale),
                      .ddbias = view(call.ddbias)},
                     {.ddy = ddy});
  EXPECT_TRUE(same_bits(values_of(ddy), want.ddy));
}

TYPED_TEST(DoubleBackward, EveryFormOfTheCallGivesTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_form<TypeParam>(4, {3, 17, 49}, [&](const DoubleGradientCall<T, P>& call) {
    for_each_isa([&](Isa) {
      const auto want = run(call);
      if (call.of.format == Format::NCHW) {
        expect_owned_forms_equal<Format::NCHW>(call, want);
      } else {
        expect_owned_forms_equal<Format::NHWC>(call, want);
      }
    });
  });
}

TYPED_TEST(DoubleBackward, AnEmptyBatchGivesZeroForScaleAndNothingElse) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::pair<Format, Shape> empty[] = {{Format::NCHW, {0, 3}},       {Format::NCHW, {2, 3, 0, 2}},
                                            {Format::NHWC, {0, 2, 2, 3}}, {Format::NHWC, {2, 0, 3}},
                                            {Format::NCHW, {2, 0, 4}},    {Format::NHWC, {0, 0, 0, 0}}};
  for (const auto& [format, shape] : empty) {
    for (const bool is_training : {true, false}) {
      const auto call = ordinary_double_gradient_call<T, P>(shape, format, is_training);
      SCOPED_TRACE(text_of(call.of));
      for_each_isa([&](Isa) {
        const auto got = run(call);
        EXPECT_TRUE(got.dx.empty() && got.ddy.empty());
        EXPECT_TRUE(same_bits(got.dscale, std::vector<P>(static_cast<std::size_t>(call.of.extents().c), P(0))));
      });
    }
  }
}

// One value per channel, saved as its mean: xh is 0, and every value is its own mean. All is exact.
TYPED_TEST(DoubleBackward, OneValuePerChannelLeavesOnlyTheGradientOfBias) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t c : {1, 3, 8, 65}) {
    for (int rank = 2; rank <= 5; ++rank) {
      for (const Format format : formats) {
        auto call = ordinary_double_gradient_call<T, P>(shape_of(format, rank, 1, c, 1), format, true);
        for (std::size_t i = 0; i < call.of.x.size(); ++i) {
          call.of.x[i] = element<T>(static_cast<double>(i % 7) - 3);  // a number that every P holds
          call.of.mean[i] = element<P>(static_cast<double>(i % 7) - 3);
          (*call.ddbias)[i] = element<P>(0.5 * static_cast<double>(i % 3));
        }
        SCOPED_TRACE(text_of(call.of));
        for_each_isa([&](Isa) {
          const auto got = run(call);
          for (std::size_t i = 0; i < got.dx.size(); ++i) {
            ASSERT_EQ(real(got.dx[i]), 0);
            ASSERT_EQ(real(got.ddy[i]), real((*call.ddbias)[i]));
            ASSERT_EQ(real(got.dscale[i]), 0);
          }
        });
      }
    }
  }
}

TYPED_TEST(DoubleBackward, NotANumberStaysInItsChannel) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const double bad = std::numeric_limits<double>::quiet_NaN();
  for (const Sizes& sizes : {Sizes{3, 5, 7}, Sizes{2, 3, 600}, Sizes{40, 33, 1}, Sizes{9, 33, 16}}) {
    for_each_form<TypeParam>(4, sizes, [&](const DoubleGradientCall<T, P>& call) {
      if (!call.of.options.is_training) return;
      const Extents e = call.of.extents();
      const std::int64_t channel = e.c / 2, position = e.n * e.s / 2;
      const std::size_t at = e.index(position / e.s, channel, position % e.s);
      for (int which = 0; which < 3; ++which) {
        auto poisoned = call;
        (which == 0 ? poisoned.of.x : which == 1 ? poisoned.of.dy : *poisoned.ddx)[at] = element<T>(bad);
        for_each_isa([&](Isa) {
          const auto clean = run(call), got = run(poisoned);
          EXPECT_TRUE(std::isnan(real(got.dscale[static_cast<std::size_t>(channel)])));
          for (std::int64_t c = 0; c < e.c; ++c) {
            const auto i = static_cast<std::size_t>(c);
            ASSERT_TRUE(c == channel || std::memcmp(&got.dscale[i], &clean.dscale[i], sizeof(P)) == 0);
            for (std::int64_t j = 0; j < e.n * e.s; ++j) {
              const std::size_t k = e.index(j / e.s, c, j % e.s);
              if (c == channel) {
                ASSERT_TRUE(std::isnan(real(got.dx[k]))) << which;
                ASSERT_TRUE(which == 1 || std::isnan(real(got.ddy[k]))) << which;  // ddy has no dy in it
              } else {
                ASSERT_EQ(std::memcmp(&got.dx[k], &clean.dx[k], sizeof(T)), 0) << "NaN reached channel " << c;
                ASSERT_EQ(std::memcmp(&got.ddy[k], &clean.ddy[k], sizeof(T)), 0) << "NaN reached channel " << c;
              }
            }
          }
        });
      }
    });
  }
}

}  // namespace
