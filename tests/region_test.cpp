// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <batchnorm/call/region.hpp>
#include <bitset>
#include <random>
#include <vector>

// Whether two arguments share memory, against the bytes that they have, one by one.
namespace {

using batchnorm::Shape;
using batchnorm::Strides;
using batchnorm::TensorView;
using batchnorm::arguments::Region;
using batchnorm::arguments::Replaceable;
using batchnorm::arguments::Role;

constexpr std::int64_t memory = 2048;  // elements; the addresses are only compared
alignas(8) unsigned char anywhere[memory * 8];

using Bytes = std::bitset<memory * 8>;

struct Argument {
  Region region;
  Bytes bytes;
};

/// A tensor whose elements, of `size` bytes, are all within the memory.
template <class T>
Argument argument(std::int64_t first, const Shape& shape, const Strides& strides) {
  Argument made{
      {"a", Role::output, TensorView<const T>(reinterpret_cast<const T*>(anywhere) + first, shape, strides), Replaceable::no},
      {}};
  const std::int64_t count = batchnorm::element_count(shape);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t rest = i, place = first;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      place += rest % shape[axis] * strides[static_cast<std::size_t>(axis)];
      rest /= shape[axis];
    }
    for (std::size_t b = 0; b < sizeof(T); ++b) made.bytes.set(static_cast<std::size_t>(place) * sizeof(T) + b);
  }
  return made;
}

class Pairs {
 public:
  void compare(const Argument& a, const Argument& b) {
    const bool is_disjoint = (a.bytes & b.bytes).none(), one_way = a.region.is_disjoint(b.region);
    ASSERT_EQ(one_way, b.region.is_disjoint(a.region)) << "accepted one way and refused the other";
    ASSERT_TRUE(is_disjoint || !one_way) << "an overlap was accepted";
    ++(is_disjoint ? disjoint_ : overlapping_);
    if (is_disjoint && !one_way) ++refused_;
  }
  /// That both kinds were among the pairs, and how many of the disjoint ones were refused.
  double refused_share() const {
    EXPECT_GT(disjoint_, 500);
    EXPECT_GT(overlapping_, 500);
    return static_cast<double>(refused_) / static_cast<double>(disjoint_);
  }

 private:
  int disjoint_ = 0, overlapping_ = 0, refused_ = 0;
};

class Draw {
 public:
  explicit Draw(unsigned seed) : engine_(seed) {}

  std::int64_t from(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(engine_);
  }
  /// Any strides, forwards and backwards, 0 too.
  template <class T>
  Argument tensor_of_any_strides() {
    const int rank = static_cast<int>(from(1, 5));
    std::vector<std::int64_t> extents;
    Strides strides{};
    for (int axis = 0; axis < rank; ++axis) {
      extents.push_back(from(1, 4));
      strides[static_cast<std::size_t>(axis)] = from(-30, 30);
    }
    const std::int64_t middle = 4096 / static_cast<std::int64_t>(sizeof(T));  // of any type at the same address
    return argument<T>(middle + from(-40, 40), Shape(extents), strides);
  }
  /// A slice of a dense [3, 6, 4, 8] with steps, perhaps with its axes in another order and backwards.
  template <class T>
  Argument slice() {
    const std::int64_t whole[] = {3, 6, 4, 8}, dense[] = {192, 32, 8, 1};
    std::vector<std::size_t> order = {0, 1, 2, 3};
    std::shuffle(order.begin(), order.end(), engine_);
    std::vector<std::int64_t> extents;
    Strides strides{};
    std::int64_t first = 0;
    for (const std::size_t axis : order) {
      const std::int64_t begin = from(0, whole[axis] - 1), step = from(1, 3);
      const std::int64_t extent = from(1, (whole[axis] - 1 - begin) / step + 1);
      const bool is_backwards = from(0, 3) == 0;
      first += dense[axis] * (begin + (is_backwards ? (extent - 1) * step : 0));
      strides[extents.size()] = dense[axis] * (is_backwards ? -step : step);
      extents.push_back(extent);
    }
    return argument<T>(first, Shape(extents), strides);
  }

 private:
  std::mt19937 engine_;
};

TEST(Regions, OfAnyStridesAreComparedTheSameBothWaysAndNoOverlapIsAccepted) {
  Draw draw(1);
  Pairs pairs;
  for (int i = 0; i < 8000; ++i) {
    pairs.compare(draw.tensor_of_any_strides<float>(), draw.tensor_of_any_strides<float>());
    pairs.compare(draw.tensor_of_any_strides<std::uint16_t>(), draw.tensor_of_any_strides<float>());
  }
  EXPECT_LE(pairs.refused_share(), 1e-4);
}

TEST(Regions, OfSlicesOfOneTensorAreToldApartExactly) {
  Draw draw(2);
  Pairs pairs;
  for (int i = 0; i < 20000; ++i) pairs.compare(draw.slice<float>(), draw.slice<float>());
  EXPECT_EQ(pairs.refused_share(), 0);
}

TEST(Regions, OfVectorsAndTensorsAreToldApartExactly) {
  Draw draw(3);
  Pairs pairs;
  for (int i = 0; i < 8000; ++i) {
    const std::int64_t first = draw.from(0, 500), elements = draw.from(1, 40);
    Argument vector = argument<float>(first, Shape{elements}, {1});
    vector.region = {"v", Role::output, reinterpret_cast<const float*>(anywhere) + first, elements * 4};
    pairs.compare(draw.slice<float>(), vector);
  }
  EXPECT_EQ(pairs.refused_share(), 0);
}

// Large extents: the answer must not take a search over all elements.
TEST(Regions, OfLargeInterleavedTensorsAreToldApart) {
  const std::int64_t n = 1 << 20, c = 1 << 10;
  const auto region = [&](std::int64_t first, const Strides& strides) {
    const auto* data = reinterpret_cast<const float*>(std::uintptr_t{1} << 20) + first;
    return Region("a", Role::output, TensorView<const float>(data, Shape{n, 3, 7, c}, strides), Replaceable::no);
  };
  const Strides all{84 * c, 28 * c, 4 * c, 2}, turned{84 * c, 28 * c, -4 * c, 2};
  EXPECT_TRUE(region(0, all).is_disjoint(region(1, all)));                  // the odd ones
  EXPECT_TRUE(region(0, all).is_disjoint(region(2 * c, all)));              // every second row
  EXPECT_TRUE(region(0, all).is_disjoint(region(26 * c, turned)));          // the same, backwards
  EXPECT_FALSE(region(0, all).is_disjoint(region(84 * c * (n - 1), all)));  // the last image
  EXPECT_FALSE(region(0, all).is_disjoint(region(24 * c, turned)));
}

}  // namespace
