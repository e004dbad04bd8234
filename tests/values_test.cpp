// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/calls.hpp"

// Every output against the oracle, for every length around a vector's, every rank and misalignment, on every instruction set.
namespace {

using namespace support;

template <class Both>
class Values : public testing::Test {};
TYPED_TEST_SUITE(Values, EveryTypes, TypesNames);

template <class T, class P>
void expect_promise(const Call<T, P>& call, std::size_t x_offset = 0, std::size_t y_offset = 0) {
  SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(call.format)) +
               (call.options.is_training ? " training" : " inference") + ", x at +" + std::to_string(x_offset) + ", y at +" +
               std::to_string(y_offset));
  const Expected want = expected(call);
  for_each_isa([&](Isa isa) { expect_kept(errors(call, run(call, {}, x_offset, y_offset), want, isa)); });
}

/// body(shape(n, c, s), format, is_training) for both formats, training and inference.
template <class Body>
void for_each_form(int rank, std::int64_t n, std::int64_t c, std::int64_t s, Body&& body) {
  for (const Format format : formats) {
    for (const bool is_training : {true, false}) body(shape_of(format, rank, n, c, s), format, is_training);
  }
}

// Half vectors of AVX-512 hold 32 values: every length to 2 L + 1 = 65, then the neighbours of 4 L and 8 L, and primes.
std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> result;
  for (std::int64_t length = 1; length <= 65; ++length) result.push_back(length);
  for (const int length : {79, 97, 113, 127, 128, 129, 191, 199, 255, 256, 257, 509, 521, 1021}) result.push_back(length);
  return result;
}

TYPED_TEST(Values, EveryPlaneLength) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t s : lengths()) {
    for_each_form(3, 2, 3, s, [&](const Shape& shape, Format format, bool is_training) {
      expect_promise(ordinary_call<T, P>(shape, format, is_training, static_cast<std::uint64_t>(s)));
    });
  }
}

TYPED_TEST(Values, EveryNumberOfChannels) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t c : lengths()) {
    for_each_form(3, 2, c, 3, [&](const Shape& shape, Format format, bool is_training) {
      expect_promise(ordinary_call<T, P>(shape, format, is_training, static_cast<std::uint64_t>(c)));
    });
    expect_promise(ordinary_call<T, P>({5, c}, Format::NCHW, true));
  }
}

TYPED_TEST(Values, EveryNumberOfImages) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 23, 31, 32, 33, 65, 127}) {
    for (const std::int64_t s : {1, 5, 49}) {
      for_each_form(3, n, 5, s, [&](const Shape& shape, Format format, bool is_training) {
        expect_promise(ordinary_call<T, P>(shape, format, is_training, static_cast<std::uint64_t>(n)));
      });
    }
  }
}

TYPED_TEST(Values, EveryRank) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (int rank = 2; rank <= 5; ++rank) {
    for_each_form(rank, 4, 7, rank == 2 ? 1 : 60, [&](const Shape& shape, Format format, bool is_training) {
      ASSERT_EQ(shape.rank(), rank);
      expect_promise(ordinary_call<T, P>(shape, format, is_training));
    });
  }
}

TYPED_TEST(Values, EveryMisalignmentOfXAndY) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (std::size_t x_offset = 0; x_offset <= 3; ++x_offset) {
    for (std::size_t y_offset = 0; y_offset <= 3; ++y_offset) {
      for (const std::int64_t c : {5, 16, 33}) {
        for_each_form(3, 9, c, 67, [&](const Shape& shape, Format format, bool is_training) {
          expect_promise(ordinary_call<T, P>(shape, format, is_training), x_offset, y_offset);
        });
      }
    }
  }
}

TYPED_TEST(Values, SmallPlanesOfManyImages) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const auto& [n, c, s] : std::initializer_list<Sizes>{
           {8, 64, 49}, {9, 31, 49}, {32, 16, 196}, {7, 40, 9}, {16, 17, 4}, {33, 129, 1}, {8, 3, 511}, {8, 3, 513}}) {
    for_each_form(4, n, c, s, [&](const Shape& shape, Format format, bool is_training) {
      expect_promise(ordinary_call<T, P>(shape, format, is_training));
    });
  }
}

// Blocks of at most 8192 (float, half, bfloat16) and of 1024 (double) values: both borders, from both sides.
TYPED_TEST(Values, LengthsAroundABlock) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const std::int64_t s : {1023, 1024, 1025, 8191, 8192, 8193, 16411}) {
    for_each_form(3, 1, 2, s, [&](const Shape& shape, Format format, bool is_training) {
      expect_promise(ordinary_call<T, P>(shape, format, is_training));
    });
  }
}

TYPED_TEST(Values, LargestAndSmallestEpsilon) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const double epsilon : {1.0, 1e-3, 1e-12, 1e-300}) {
    for_each_form(4, 3, 4, 15, [&](const Shape& shape, Format format, bool is_training) {
      auto call = ordinary_call<T, P>(shape, format, is_training);
      call.options.epsilon = epsilon;
      expect_promise(call);
    });
  }
}

}  // namespace
