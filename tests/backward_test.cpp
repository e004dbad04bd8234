// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/gradient_calls.hpp"

// Every gradient against the oracle, for every length around a vector's, every rank and misalignment, on every instruction set.
namespace {

using namespace support;

template <class Both>
class Backward : public testing::Test {};
TYPED_TEST_SUITE(Backward, EveryTypes, TypesNames);

template <class T, class P>
void expect_promise(const GradientCall<T, P>& call, const Offsets& offsets = {}) {
  SCOPED_TRACE(text_of(call) + ", dy, x and dx at +" + std::to_string(offsets.dy) + ", +" + std::to_string(offsets.x) + ", +" +
               std::to_string(offsets.out));
  const auto want = expected(call);
  for_each_isa([&](Isa isa) { expect_kept(errors(call, run(call, {}, offsets), want, isa)); });
}

/// The ordinary call of that rank and size in both formats, training and inference.
template <class Both>
void expect_promise_in_every_form(int rank, const Sizes& sizes, const Offsets& offsets = {}) {
  for (const Format format : formats) {
    if (rank == 2 && format == Format::NHWC) continue;  // the same as NCHW then
    for (const bool is_training : {true, false}) {
      expect_promise(ordinary_gradient_call<typename Both::T, typename Both::P>(
                         shape_of(format, rank, sizes), format, is_training, static_cast<std::uint64_t>(sizes.s + sizes.c)),
                     offsets);
    }
  }
}

// Half vectors of AVX-512 hold 32 values: every length to 2 L + 1 = 65, then the neighbours of 4 L and 8 L, and primes.
std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> result;
  for (std::int64_t length = 1; length <= 65; ++length) result.push_back(length);
  for (const int length : {97, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1021}) result.push_back(length);
  return result;
}

TYPED_TEST(Backward, EveryPlaneLength) {
  for (const std::int64_t s : lengths()) expect_promise_in_every_form<TypeParam>(3, {2, 3, s});
}

TYPED_TEST(Backward, EveryNumberOfChannels) {
  for (const std::int64_t c : lengths()) {
    expect_promise_in_every_form<TypeParam>(3, {2, c, 3});
    expect_promise_in_every_form<TypeParam>(2, {5, c, 1});
  }
}

TYPED_TEST(Backward, EveryNumberOfImages) {
  for (const std::int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 23, 31, 32, 33, 65, 127}) {
    for (const std::int64_t s : {1, 5, 49}) expect_promise_in_every_form<TypeParam>(3, {n, 5, s});
  }
}

TYPED_TEST(Backward, EveryRank) {
  for (int rank = 2; rank <= 5; ++rank) expect_promise_in_every_form<TypeParam>(rank, {4, 7, rank == 2 ? 1 : 60});
}

TYPED_TEST(Backward, EveryMisalignmentOfDyXAndDx) {
  for (std::size_t dy = 0; dy <= 2; ++dy) {
    for (std::size_t x = 0; x <= 2; ++x) {
      for (std::size_t dx = 0; dx <= 2; ++dx) {
        expect_promise_in_every_form<TypeParam>(3, {9, 16, 67}, {dy, x, dx});
        expect_promise_in_every_form<TypeParam>(4, {9, 5, 49}, {dy, x, dx});
      }
    }
  }
}

TYPED_TEST(Backward, SmallPlanesOfManyImagesAndManyChannels) {
  for (const Sizes& sizes : {Sizes{8, 64, 49},
                             {9, 31, 49},
                             {32, 16, 196},
                             {7, 40, 9},
                             {16, 17, 4},
                             {33, 129, 1},
                             {3, 257, 49},
                             {8, 3, 511},
                             {8, 3, 513},
                             {2, 257, 2}}) {
    expect_promise_in_every_form<TypeParam>(4, sizes);
  }
}

// Blocks of at most 8192 (float, half, bfloat16) and of 1024 (double) values: both borders, from both sides.
TYPED_TEST(Backward, LengthsAroundABlock) {
  for (const std::int64_t s : {1023, 1024, 1025, 5003, 8191, 8192, 8193, 16411}) {
    expect_promise_in_every_form<TypeParam>(3, {1, 2, s});
  }
  for (const Sizes& sizes : {Sizes{8191, 3, 1}, {8193, 17, 1}, {3, 5, 5003}}) expect_promise_in_every_form<TypeParam>(3, sizes);
}

TYPED_TEST(Backward, LargestAndSmallestEpsilon) {
  for (const double epsilon : {1.0, 1e-3, 1e-12, 1e-300}) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        auto call = ordinary_gradient_call<typename TypeParam::T, typename TypeParam::P>(shape_of(format, 4, 3, 4, 15), format,
                                                                                         is_training);
        call.options.epsilon = epsilon;
        expect_promise(call);
      }
    }
  }
}

// With the statistics of x itself nothing is left of dx but what is orthogonal to 1 and to xh. The sums' share of the
// magnitudes: dx is rounded to T (half an ulp of each term, and the promise's own), the statistics to P.
TYPED_TEST(Backward, SumsOfDxAndOfDxTimesXhVanish) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : {Sizes{8, 5, 49}, {3, 2, 613}, {64, 33, 1}}) {
    for (const Format format : formats) {
      auto call = ordinary_gradient_call<T, P>(shape_of(format, 3, sizes), format, true);
      call.options.epsilon = 1e-300;  // sum(xh^2) is m variance / (variance + epsilon)
      SCOPED_TRACE(text_of(call));
      const Extents e = call.extents();
      for_each_isa([&](Isa) {
        const auto dx = run(call).dx;
        for (std::int64_t c = 0; c < e.c; ++c) {
          const Values values = channel_values<T>(dx, e, c);
          const Values xh = call.channel(c).normalized(channel_values<T>(call.x, e, c));
          const auto want = expected(call, c).dx;
          Sum sum, projection;
          Real at = 0;
          for (std::size_t i = 0; i < values.size(); ++i) {
            sum.add(values[i]), projection.add(values[i] * xh[i]);
            at += want[i].at * (1 + std::abs(xh[i]));
          }
          const Real share = 4 * std::ldexp(Real(1), -precision<T>().digits) + 4 * std::ldexp(Real(1), -precision<P>().digits);
          ASSERT_LE(std::abs(sum.value), share * at) << "channel " << c;
          ASSERT_LE(std::abs(projection.value), share * at) << "channel " << c;
        }
      });
    }
  }
}

}  // namespace
