// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/gradient_calls.hpp"

// Data whose sums are exact in any order: dy and x are small integers, r is 1/2. The sums must then be the exact numbers, bit
// by bit, on every instruction set and in every layout; and so must dx be where m is a power of two that leaves it short.
namespace {

using namespace support;

/// The integers of channel c, the same in every format. The saved mean is an integer too, the saved variance 3, epsilon 1.
template <class T, class P>
GradientCall<T, P> exact_call(Format format, const Sizes& sizes) {
  GradientCall<T, P> call{shape_of(format, 3, sizes), format, {.is_training = true, .epsilon = 1}};
  const Extents e = call.extents();
  call.dy.resize(static_cast<std::size_t>(e.n * e.c * e.s));
  call.x.resize(call.dy.size());
  for (std::int64_t c = 0; c < e.c; ++c) {
    Random random(static_cast<std::uint64_t>(c) + 21);
    for (std::int64_t j = 0; j < e.n * e.s; ++j) {
      const std::size_t at = e.index(j / e.s, c, j % e.s);
      call.dy[at] = element<T>(static_cast<double>(random.integer(-8, 8)));
      call.x[at] = element<T>(static_cast<double>(random.integer(-4, 4) + c % 7));
    }
    call.mean.push_back(element<P>(static_cast<double>(c % 7)));
  }
  call.scale = filled<P>(e.c, [k = 0]() mutable { return (k++ % 3 - 1) * 2.0; });
  call.variance.assign(static_cast<std::size_t>(e.c), element<P>(3));
  return call;
}

/// The dense values of an NHWC tensor in the order of NCHW.
template <class T>
std::vector<T> to_nchw(const std::vector<T>& values, const Extents& nhwc) {
  Extents nchw = nhwc;
  nchw.format = Format::NCHW;
  std::vector<T> result(values.size());
  for (std::int64_t n = 0; n < nhwc.n; ++n) {
    for (std::int64_t c = 0; c < nhwc.c; ++c) {
      for (std::int64_t s = 0; s < nhwc.s; ++s) result[nchw.index(n, c, s)] = values[nhwc.index(n, c, s)];
    }
  }
  return result;
}

// m to 1024: dx has 10 + 3 binary digits after the point and 10 before. Lengths that are powers of two, in every kernel.
constexpr Sizes short_channels[] = {{2, 3, 1}, {16, 33, 1}, {2, 5, 32}, {8, 17, 16}, {4, 4, 128}, {32, 7, 32}, {1, 2, 1024}};
// Sums of any length are exact: prime lengths, several blocks, few and many channels.
constexpr Sizes any_channels[] = {{3, 5, 7},    {2, 3, 613},   {9, 33, 15},   {41, 2, 1},     {17, 257, 1},
                                  {8, 64, 49},  {3, 2, 5003},  {1, 3, 20011}, {10007, 17, 1}, {1024, 9, 64},
                                  {70, 300, 4}, {2, 2, 16384}, {5, 1, 8193}};

template <class Both>
class ExactGradients : public testing::Test {};
TYPED_TEST_SUITE(ExactGradients, EveryTypes, TypesNames);

TYPED_TEST(ExactGradients, SumsAreTheExactNumbersOnEveryInstructionSetAndInEveryFormat) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : any_channels) {
    for (const Format format : formats) {
      auto call = exact_call<T, P>(format, sizes);
      const auto want = expected(call);
      for (const bool is_training : {true, false}) {
        call.options.is_training = is_training;
        SCOPED_TRACE(text_of(call));
        for_each_isa([&](Isa) {
          const auto got = run(call);
          for (std::size_t c = 0; c < want.size(); ++c) {
            ASSERT_EQ(real(got.dbias[c]), real(element<P>(static_cast<double>(want[c].dbias.value)))) << "channel " << c;
            ASSERT_EQ(real(got.dscale[c]), real(element<P>(static_cast<double>(want[c].dscale.value)))) << "channel " << c;
          }
        });
      }
    }
  }
}

TYPED_TEST(ExactGradients, OfShortChannelsAreTheExactNumbers) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : short_channels) {
    for (const Format format : formats) {
      const auto call = exact_call<T, P>(format, sizes);
      SCOPED_TRACE(text_of(call));
      const Extents e = call.extents();
      const auto want = expected(call);
      for_each_isa([&](Isa) {
        const auto got = run(call);
        for (std::int64_t c = 0; c < e.c; ++c) {
          for (std::int64_t j = 0; j < e.n * e.s; ++j) {
            const Real exact = want[static_cast<std::size_t>(c)].dx[static_cast<std::size_t>(j)].value;
            ASSERT_EQ(real(got.dx[e.index(j / e.s, c, j % e.s)]), real(element<T>(static_cast<double>(exact))));
          }
        }
      });
    }
  }
}

TYPED_TEST(ExactGradients, AreTheSameInBothFormats) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : any_channels) {
    auto nchw = exact_call<T, P>(Format::NCHW, sizes), nhwc = exact_call<T, P>(Format::NHWC, sizes);
    ASSERT_TRUE(same_bits(to_nchw(nhwc.x, nhwc.extents()), nchw.x));
    for (const bool is_training : {true, false}) {
      nchw.options.is_training = nhwc.options.is_training = is_training;
      SCOPED_TRACE(text_of(nchw));
      for_each_isa([&](Isa) {
        const auto a = run(nchw), b = run(nhwc);
        EXPECT_TRUE(same_bits(to_nchw(b.dx, nhwc.extents()), a.dx));
        EXPECT_TRUE(same_bits(b.dscale, a.dscale) && same_bits(b.dbias, a.dbias));
      });
    }
  }
}

TYPED_TEST(ExactGradients, PiecesHoldTheExactSums) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : any_channels) {
    for (const Format format : formats) {
      const auto call = exact_call<T, P>(format, sizes);
      SCOPED_TRACE(text_of(call));
      const auto want = expected(call);
      batchnorm::Moments moments(call.extents().c);
      moments.count = sizes.n * sizes.s;
      for (std::size_t c = 0; c < want.size(); ++c) moments.mean[c] = static_cast<double>(real(call.mean[c]));
      const batchnorm::TensorView<const P> mean(call.mean);
      for_each_isa([&](Isa) {
        const auto by_mean = batchnorm::gradient_sums<T, P>(format, {.dy = call.dy_view(), .x = call.x_view(), .mean = mean});
        const auto by_moments = batchnorm::gradient_sums<T>(format, {.dy = call.dy_view(), .x = call.x_view()}, moments);
        EXPECT_EQ(by_mean.count, sizes.n * sizes.s);
        EXPECT_EQ(by_moments.count, sizes.n * sizes.s);
        for (std::size_t c = 0; c < want.size(); ++c) {
          ASSERT_EQ(by_mean.dy[c], want[c].dbias.value) << "channel " << c;
          ASSERT_EQ(by_mean.dy_x[c], 2 * want[c].dscale.value) << "channel " << c;
          ASSERT_EQ(by_moments.dy[c], want[c].dbias.value) << "channel " << c;
          ASSERT_EQ(by_moments.dy_x[c], 2 * want[c].dscale.value) << "channel " << c;
        }
      });
    }
  }
}

}  // namespace
