// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>

#include <batchnorm/mdspan.hpp>

#include "support/adapters.hpp"
#include "support/messages.hpp"

// std::mdspan by its interface: this one is a stand-in, as small as the standard's allows. cuda::std::mdspan is tested beside
// the CUDA kernels.
namespace {

using namespace support;
using batchnorm::TensorView;
using batchnorm::view_of;

template <class Element, std::size_t Rank>
class Mdspan {
 public:
  using element_type = Element;
  using reference = Element&;
  using rank_type = std::size_t;

  Mdspan(Element* data, std::array<int, Rank> extents, std::array<int, Rank> strides, bool is_strided = true)
      : data_(data), extents_(extents), strides_(strides), is_strided_(is_strided) {}

  static constexpr std::size_t rank() noexcept { return Rank; }
  int extent(std::size_t axis) const { return extents_[axis]; }
  int stride(std::size_t axis) const { return strides_[axis]; }
  bool is_strided() const { return is_strided_; }
  Element* data_handle() const { return data_; }

 private:
  Element* data_;
  std::array<int, Rank> extents_, strides_;
  bool is_strided_;
};

/// Elements that an accessor computes: they are nowhere in memory.
struct Scaled : Mdspan<float, 2> {
  using reference = float;
};
static_assert(batchnorm::MdspanLike<Mdspan<const batchnorm::half, 4>>);
static_assert(!batchnorm::MdspanLike<Scaled> && !batchnorm::MdspanLike<Mdspan<int, 2>> &&
              !batchnorm::MdspanLike<std::vector<float>>);
static_assert(!batchnorm::MdspanLike<Mdspan<float, 9>>);

TEST(Mdspan, ExtentsStridesAndConstAreThoseOfTheMdspan) {
  std::vector<float> data(200);
  const Mdspan<const float, 3> mdspan(data.data() + 1, {2, 3, 4}, {50, 10, 1});
  const auto view = view_of(mdspan);
  static_assert(std::is_same_v<decltype(view), const TensorView<const float>>);
  EXPECT_EQ(view.shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(view.data(), data.data() + 1);
  EXPECT_TRUE(view.present());
  EXPECT_EQ((std::array{view.strides()[0], view.strides()[1], view.strides()[2]}), (std::array<std::int64_t, 3>{50, 10, 1}));
}

TEST(Mdspan, RowMajorSlicesAndColumnMajorMatricesAreNormalisedInPlace) {
  std::vector<float> data = uniform<float>(600, -1, 3, 1);
  expect_normalised_in_place(view_of(Mdspan<float, 4>(data.data(), {2, 3, 5, 7}, {120, 40, 8, 1})), Format::NCHW);
  expect_normalised_in_place(view_of(Mdspan<float, 4>(data.data(), {2, 5, 7, 3}, {200, 35, 4, 1})), Format::NHWC);
  expect_normalised_in_place(view_of(Mdspan<float, 2>(data.data(), {40, 3}, {1, 50})), Format::NCHW);  // layout_left
}

TEST(Mdspan, LayoutThatCannotBeViewedIsRefused) {
  std::vector<float> data(120);
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] {
              view_of(Mdspan<float, 2>(data.data(), {2, 3}, {3, 1}, false));
            }),
            "batchnorm::view_of: the layout of the mdspan has no strides");
  // layout_left of four axes is neither NCHW nor NHWC: refused, not transposed.
  const auto left = view_of(Mdspan<const float, 4>(data.data(), {2, 3, 4, 5}, {1, 2, 6, 24}));
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { batchnorm::moments<float>(left, Format::NCHW); }),
            "batchnorm::moments: x has strides [1, 2, 6, 24]; supported are tensors where the channels of a position, or the "
            "values along the last spatial axis, lie next to each other; this one is column major (x is [2, 3, 4, 5], NCHW)");
}

}  // namespace
