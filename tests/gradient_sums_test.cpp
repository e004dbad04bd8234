// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/gradient_calls.hpp"

// The pieces of backward: gradient_sums, merge, input_gradient. They compose to backward, also when the batch lies in several
// places, and the moments of the forward pass keep the digits that a mean of type float has lost.
namespace {

using namespace support;
using batchnorm::GradientSums;
using batchnorm::Moments;
using batchnorm::TensorView;

template <class Both>
class GradientPieces : public testing::Test {};
TYPED_TEST_SUITE(GradientPieces, EveryTypes, TypesNames);

constexpr Sizes some_sizes[] = {{4, 5, 7}, {2, 3, 613}, {10, 33, 15}, {40, 2, 1}, {18, 67, 1}, {8, 64, 49}, {2, 2, 9001}};

template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      const auto call = ordinary_gradient_call<typename Both::T, typename Both::P>(shape_of(format, 3, sizes), format, true);
      SCOPED_TRACE(text_of(call));
      body(call);
    }
  }
}

template <class T, class P>
batchnorm::GradientViews<T, P> views_of(GradientResult<T, P>& result, const Shape& shape) {
  return {{result.dx.data(), shape}, result.dscale, result.dbias};
}

template <class T, class P>
GradientResult<T, P> run_pieces(const GradientCall<T, P>& call) {
  const TensorView<const P> mean(call.mean);
  const GradientSums sums =
      batchnorm::gradient_sums<T, P>(call.format, {.dy = call.dy_view(), .x = call.x_view(), .mean = mean});
  auto result = blank_result(call);
  batchnorm::input_gradient<T, P>(
      call.format,
      {.dy = call.dy_view(), .x = call.x_view(), .scale = view(call.scale), .mean = mean, .variance = call.variance}, sums,
      call.options.epsilon, views_of(result, call.shape));
  return result;
}

template <class T, class P>
GradientResult<T, P> run_pieces(const GradientCall<T, P>& call, const Moments& moments) {
  const GradientSums sums = batchnorm::gradient_sums<T>(call.format, {.dy = call.dy_view(), .x = call.x_view()}, moments);
  auto result = blank_result(call);
  batchnorm::input_gradient<T, P>(call.format, {.dy = call.dy_view(), .x = call.x_view(), .scale = view(call.scale)}, sums,
                                  moments, call.options.epsilon, views_of(result, call.shape));
  return result;
}

TYPED_TEST(GradientPieces, ComposeToBackward) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    const auto want = expected(call);
    for_each_isa([&](Isa isa) { expect_kept(errors(call, run_pieces(call), want, isa)); });
  });
}

TYPED_TEST(GradientPieces, ComposeWithTheMomentsOfTheForwardPass) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    for_each_isa([&](Isa isa) {
      const Moments moments = batchnorm::moments<T>(call.x_view(), call.format);
      expect_kept(errors(call, run_pieces(call, moments), expected_with(call, moments), isa));
    });
  });
}

// Beside an offset of 1e6 a float holds the mean to 1/32: a saved mean costs digits, the moments do not. The oracle has the
// exact statistics of x here; those of the moments are right to 2^-46, which a float cannot see.
TYPED_TEST(GradientPieces, MomentsLoseNoDigitsToAnOffset) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  if (std::is_same_v<T, double>) GTEST_SKIP() << "the moments of double have errors that dx of double shows";
  for (const double wanted : {1e3, 1e6, -1e6}) {
    const double offset =
        std::clamp(wanted, -std::ldexp(1.0, precision<T>().highest - 1), std::ldexp(1.0, precision<T>().highest - 1));
    for_each_call<TypeParam>([&](GradientCall<T, P> call) {
      for (T& x : call.x) x = element<T>(static_cast<double>(real(x)) + offset);
      save_statistics(call);
      const Extents e = call.extents();
      std::vector<ChannelGradients> want;
      for (std::int64_t c = 0; c < e.c; ++c) {
        Channel channel = call.channel(c);
        channel.saved = statistics<T>(call.x, e, c);
        want.push_back(backward(channel, channel_values<T>(call.dy, e, c), channel_values<T>(call.x, e, c)));
      }
      for_each_isa([&](Isa isa) {
        const Moments moments = batchnorm::moments<T>(call.x_view(), call.format);
        expect_kept(errors(call, run_pieces(call, moments), want, isa));
      });
    });
  }
}

/// Images [first, first + count) of a call, with the whole call's statistics.
template <class T, class P>
GradientCall<T, P> images(const GradientCall<T, P>& call, std::int64_t first, std::int64_t count) {
  GradientCall<T, P> part = call;
  std::vector<std::int64_t> shape(call.shape.extents().begin(), call.shape.extents().end());
  const auto size = static_cast<std::ptrdiff_t>(call.x.size()) / shape[0];
  shape[0] = count;
  part.shape = Shape(shape);
  part.x.assign(call.x.begin() + first * size, call.x.begin() + (first + count) * size);
  part.dy.assign(call.dy.begin() + first * size, call.dy.begin() + (first + count) * size);
  return part;
}

// A batch on three processes, one of which has none of it: every process ends with the whole batch's dscale and dbias, and with
// its part of dx.
TYPED_TEST(GradientPieces, OfPartsOfABatchGiveTheGradientsOfTheWhole) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    const std::int64_t n = call.extents().n, cut = n / 3 + 1;
    const GradientCall<T, P> parts[] = {images(call, 0, cut), images(call, cut, 0), images(call, cut, n - cut)};
    const auto want = expected(call);
    const TensorView<const P> mean(call.mean);
    for_each_isa([&](Isa isa) {
      GradientSums sums(call.extents().c);
      for (const auto& part : parts) {
        batchnorm::merge(sums,
                         batchnorm::gradient_sums<T, P>(call.format, {.dy = part.dy_view(), .x = part.x_view(), .mean = mean}));
      }
      EXPECT_EQ(sums.count, n * call.extents().s);
      GradientResult<T, P> whole = blank_result(call);
      whole.dx.clear();
      for (const auto& part : parts) {
        GradientResult<T, P> result = blank_result(part);
        batchnorm::input_gradient<T, P>(
            call.format,
            {.dy = part.dy_view(), .x = part.x_view(), .scale = view(call.scale), .mean = mean, .variance = call.variance},
            sums, call.options.epsilon, views_of(result, part.shape));
        whole.dx.insert(whole.dx.end(), result.dx.begin(), result.dx.end());
        whole.dscale = result.dscale, whole.dbias = result.dbias;
        expect_kept(errors(call, {{}, result.dscale, result.dbias}, want, isa));
      }
      expect_kept(errors(call, whole, want, isa));
    });
  });
}

TYPED_TEST(GradientPieces, OfPartsOfABatchWithItsMergedMomentsToo) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    const std::int64_t n = call.extents().n, cut = n / 3 + 1;
    const GradientCall<T, P> parts[] = {images(call, 0, cut), images(call, cut, n - cut)};
    for_each_isa([&](Isa isa) {
      Moments moments(call.extents().c);
      for (const auto& part : parts) batchnorm::merge(moments, batchnorm::moments<T>(part.x_view(), call.format));
      GradientSums sums(call.extents().c);
      for (const auto& part : parts) {
        batchnorm::merge(sums, batchnorm::gradient_sums<T>(call.format, {.dy = part.dy_view(), .x = part.x_view()}, moments));
      }
      GradientResult<T, P> whole = blank_result(call);
      whole.dx.clear();
      for (const auto& part : parts) {
        GradientResult<T, P> result = blank_result(part);
        batchnorm::input_gradient<T, P>(call.format, {.dy = part.dy_view(), .x = part.x_view(), .scale = view(call.scale)},
                                        sums, moments, call.options.epsilon, views_of(result, part.shape));
        whole.dx.insert(whole.dx.end(), result.dx.begin(), result.dx.end());
        whole.dscale = result.dscale, whole.dbias = result.dbias;
      }
      expect_kept(errors(call, whole, expected_with(call, moments), isa));
    });
  });
}

TYPED_TEST(GradientPieces, OfAnEmptyBatchAreZeros) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Shape& shape : {Shape{0, 3}, Shape{2, 3, 0, 2}, Shape{0, 3, 4}}) {
    const auto call = ordinary_gradient_call<T, P>(shape, Format::NCHW, true);
    for_each_isa([&](Isa) {
      const TensorView<const P> mean(call.mean);
      const GradientSums sums =
          batchnorm::gradient_sums<T, P>(Format::NCHW, {.dy = call.dy_view(), .x = call.x_view(), .mean = mean});
      EXPECT_EQ(sums.count, 0);
      EXPECT_EQ(sums.dy, std::vector<double>(3));
      EXPECT_EQ(sums.dy_x, std::vector<double>(3));
      const auto got = run_pieces(call);
      EXPECT_TRUE(same_bits(got.dscale, std::vector<P>(3, P(0))) && same_bits(got.dbias, std::vector<P>(3, P(0))));
    });
  }
}

TYPED_TEST(GradientPieces, InThePlaceOfDyAndByHalvesOfTheOutputsAreTheSame) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call) {
    const TensorView<const P> mean(call.mean);
    for_each_isa([&](Isa) {
      const auto want = run_pieces(call);
      const GradientSums sums =
          batchnorm::gradient_sums<T, P>(call.format, {.dy = call.dy_view(), .x = call.x_view(), .mean = mean});
      GradientResult<T, P> got = blank_result(call);
      got.dx = call.dy;
      const TensorView<T> both(got.dx.data(), call.shape);
      const auto input_gradient = [&](const TensorView<const T>& dy, const batchnorm::GradientViews<T, P>& out) {
        batchnorm::input_gradient<T, P>(
            call.format, {.dy = dy, .x = call.x_view(), .scale = view(call.scale), .mean = mean, .variance = call.variance},
            sums, call.options.epsilon, out);
      };
      input_gradient(call.dy_view(), {.dscale = got.dscale});
      input_gradient(call.dy_view(), {.dbias = got.dbias});
      input_gradient(both, {.dx = both});
      EXPECT_TRUE(same(got, want));
    });
  });
}

TEST(GradientSumsOf, NothingAreZerosAndMergeByAddition) {
  EXPECT_EQ(GradientSums(3).count, 0);
  EXPECT_EQ(GradientSums(3).channels(), 3);
  EXPECT_EQ(GradientSums(0).channels(), 0);
  GradientSums into(2), from(2);
  into.count = 3, into.dy = {1, 2}, into.dy_x = {3, 4};
  from.count = 4, from.dy = {10, 20}, from.dy_x = {30, -40};
  batchnorm::merge(into, from);
  EXPECT_EQ(into.count, 7);
  EXPECT_EQ(into.dy, (std::vector<double>{11, 22}));
  EXPECT_EQ(into.dy_x, (std::vector<double>{33, -36}));
  batchnorm::merge(into, GradientSums(2));
  EXPECT_EQ(into.count, 7);
  EXPECT_EQ(into.dy, (std::vector<double>{11, 22}));
}

}  // namespace
