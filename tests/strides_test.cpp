// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/calls.hpp"
#include "support/layouts.hpp"
#include "support/messages.hpp"

// Tensors that are slices of larger ones: read and written in place, whatever lies between their elements stays as it is.
namespace {

using namespace support;
using batchnorm::TensorView;

/// Runs the call with x and y laid out so. Expects x as it was and nothing but y's elements written.
template <class T, class P>
Result<T, P> run_in(const Call<T, P>& call, const Layout& x_layout, const Layout& y_layout, bool in_place = false) {
  std::vector<T> x = scattered(call.x, call.shape, x_layout);
  const std::vector<T> blank(call.x.size(), element<T>(unwritten));
  std::vector<T> y = in_place ? x : scattered(blank, call.shape, y_layout);
  const auto channels = static_cast<std::size_t>(call.extents().c);
  Result<T, P> result{
      std::vector<T>(call.x.size()), std::vector<P>(channels), std::vector<P>(channels), {}, {}, *call.mean, *call.variance};
  T* const from = in_place ? y.data() : x.data();
  batchnorm::batch_norm<T, P>(
      call.format, call.options, {from + x_layout.first, call.shape, x_layout.strides}, view(call.scale), view(call.bias),
      result.mean, result.variance,
      {{y.data() + y_layout.first, call.shape, y_layout.strides}, result.batch_mean, result.batch_variance});
  EXPECT_TRUE(same_bits(x, scattered(call.x, call.shape, x_layout))) << "x was changed";
  for_each_place(call.shape, y_layout, [&](std::size_t i, std::size_t place) { result.y[i] = y[place]; });
  EXPECT_TRUE(same_bits(y, scattered(result.y, call.shape, y_layout))) << "a neighbour of y was written";
  return result;
}

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 613}, {9, 33, 15}, {41, 2, 1}, {17, 67, 1}, {8, 64, 49}, {1, 6, 30}};

/// body(call, sizes) in both formats, training and inference.
template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(call, sizes);
      }
    }
  }
}

template <class T, class P>
void expect_equal(const Result<T, P>& got, const Result<T, P>& want) {
  EXPECT_TRUE(same_bits(got.y, want.y));
  EXPECT_TRUE(same_bits(got.batch_mean, want.batch_mean) && same_bits(got.batch_variance, want.batch_variance));
  EXPECT_TRUE(same_bits(got.mean, want.mean) && same_bits(got.variance, want.variance));
}

template <class Both>
class StridesOf : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>,
                                    Types<batchnorm::bfloat16, batchnorm::bfloat16>>;
TYPED_TEST_SUITE(StridesOf, ElementTypes, TypesNames);

TYPED_TEST(StridesOf, SliceOfChannelsKeepsThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call, const Sizes& sizes) {
    const Layout slice = channel_slice(call.format, sizes);
    const Expected want = expected(call);
    for_each_isa([&](Isa isa) {
      expect_kept(errors(call, run_in(call, slice, dense(call.shape)), want, isa));
      expect_kept(errors(call, run_in(call, dense(call.shape), slice), want, isa));
      expect_equal(run_in(call, slice, slice), run_in(call, slice, dense(call.shape)));
      expect_equal(run_in(call, slice, slice, true), run_in(call, slice, slice));
    });
  });
}

// NCHW: blocks and lanes follow planes, which a slice of channels leaves whole.
TYPED_TEST(StridesOf, SliceOfChannelsInNchwHasTheBitsOfTheDenseTensor) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call, const Sizes& sizes) {
    if (call.format != Format::NCHW || sizes.s == 1) return;
    for_each_isa([&](Isa) { expect_equal(run_in(call, channel_slice(call.format, sizes), dense(call.shape)), run(call)); });
  });
}

TYPED_TEST(StridesOf, PaddedPlanesAndRowsKeepThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call, const Sizes& sizes) {
    // NCHW: 3 elements after each plane. NHWC: 3 after each position's channels, 0 between rows and images.
    const auto [n, c, s] = sizes;
    const std::int64_t width = call.shape[call.format == Format::NCHW ? 3 : 2];
    const Layout padded = call.format == Format::NCHW
                              ? Layout{{c * (s + 3), s + 3, width, 1}, 1, n * c * (s + 3) + 1}
                              : Layout{{s * (c + 3), width * (c + 3), c + 3, 1}, 1, n * s * (c + 3) + 1};
    const Expected want = expected(call);
    for_each_isa([&](Isa isa) {
      const auto both = run_in(call, padded, padded);
      expect_kept(errors(call, both, want, isa));
      expect_equal(run_in(call, padded, dense(call.shape)), both);
      expect_equal(run_in(call, padded, padded, true), both);
    });
  });
}

TYPED_TEST(StridesOf, PicturesMayHaveGapsBehindTheirRows) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Shape& shape : some_pictures) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<T, P>(shape, format, is_training);
        SCOPED_TRACE(to_string(shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        const Layout padded = padded_pictures(shape, format), whole = dense(shape);
        const Expected want = expected(call);
        for_each_isa([&](Isa isa) {
          const auto both = run_in(call, padded, padded);
          expect_kept(errors(call, both, want, isa));
          expect_equal(run_in(call, padded, whole), both);
          expect_equal(run_in(call, padded, padded, true), both);
          expect_kept(errors(call, run_in(call, whole, padded), want, isa));
        });
      }
    }
  }
}

// The memory of NHWC under the name of NCHW and the other way round, with gaps after the rows.
TYPED_TEST(StridesOf, PaddedPicturesMayGoByTheOtherName) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::int64_t n = 2, c = 3, h = 5, w = 7, row = w * c + 4, line = w + 4;
  for (const bool is_training : {true, false}) {
    const auto nchw = ordinary_call<T, P>({n, c, h, w}, Format::NCHW, is_training);
    const auto nhwc = ordinary_call<T, P>({n, h, w, c}, Format::NHWC, is_training);
    const Layout rows{{h * row, 1, row, c}, 0, n * h * row}, planes{{c * h * line, line, 1, h * line}, 0, n * c * h * line};
    for_each_isa([&](Isa isa) {
      expect_kept(errors(nchw, run_in(nchw, rows, rows), expected(nchw), isa));
      expect_kept(errors(nhwc, run_in(nhwc, planes, planes), expected(nhwc), isa));
    });
  }
}

// A mask has no gaps: it is the same whatever lies after the rows.
TYPED_TEST(StridesOf, MaskOfPaddedPicturesIsThatOfDenseOnes) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Shape& shape : some_pictures) {
    for (const Format format : formats) {
      const auto call = ordinary_call<T, P>(shape, format, false);  // with given statistics y is the same to the last bit
      const Layout padded = padded_pictures(shape, format);
      const std::vector<T> x = scattered(call.x, shape, padded);
      const auto mask_of = [&](const TensorView<const T>& from) {
        std::vector<T> y(call.x.size());
        std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(shape)), 0xAA);
        auto mean = *call.mean, variance = *call.variance;
        batchnorm::batch_norm<T, P>(format, call.options, from, view(call.scale), view(call.bias), mean, variance,
                                    {.output_x = {y.data(), shape}, .mask = mask}, batchnorm::Relu{});
        return mask;
      };
      for_each_isa([&](Isa) {
        EXPECT_EQ(mask_of({x.data() + padded.first, shape, padded.strides}), mask_of({call.x.data(), shape}))
            << to_string(shape) << to_string(format);
      });
    }
  }
}

// Found by a review: planes that hold all images of a channel were masked image by image where rows had gaps.
TYPED_TEST(StridesOf, MaskOfPlanesUnderTheNameOfNhwcIsTheSameWithGaps) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::int64_t n = 2, h = 3, w = 5, c = 3;
  const auto call = ordinary_call<T, P>({n, h, w, c}, Format::NHWC, false);
  const Layout planes{{h * w, w, 1, n * h * w}, 0, c * n * h * w};
  const Layout padded{{h * (w + 2), w + 2, 1, n * h * (w + 2)}, 0, c * n * h * (w + 2)};
  const std::vector<T> x = scattered(call.x, call.shape, planes);
  const auto mask_of = [&](const Layout& layout) {
    std::vector<T> y(static_cast<std::size_t>(layout.size));
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(call.shape)));
    auto mean = *call.mean, variance = *call.variance;
    batchnorm::batch_norm<T, P>(call.format, call.options, {x.data(), call.shape, planes.strides}, view(call.scale),
                                view(call.bias), mean, variance,
                                {.output_x = {y.data(), call.shape, layout.strides}, .mask = mask}, batchnorm::Relu{});
    return mask;
  };
  for_each_isa([&](Isa) { EXPECT_EQ(mask_of(planes), mask_of(padded)); });
}

// Values along the last spatial axis next to each other are enough, whatever the extents of the others are.
TYPED_TEST(StridesOf, PlanesUnderTheNameOfNhwcMayHaveOneRow) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const auto& [shape, strides] : {std::pair(Shape{2, 1, 5, 3}, Strides{15, 5, 1, 5}),
                                       {Shape{2, 5, 3}, {15, 1, 5}},
                                       {Shape{2, 2, 5, 3}, {30, 5, 1, 10}}}) {
    const auto call = ordinary_call<T, P>(shape, Format::NHWC, true);
    const Layout planes{strides, 0, batchnorm::element_count(shape)};
    for_each_isa([&](Isa isa) { expect_kept(errors(call, run_in(call, planes, planes), expected(call), isa)); });
  }
}

// x and y in one buffer: two parts of it.
template <class T, class P>
void run_in_one(const Call<T, P>& call, std::vector<T>& buffer, const Strides& strides, std::int64_t x, std::int64_t y) {
  auto mean = *call.mean, variance = *call.variance;
  batchnorm::batch_norm<T, P>(call.format, call.options, {buffer.data() + x, call.shape, strides}, view(call.scale),
                              view(call.bias), mean, variance, {{buffer.data() + y, call.shape, strides}});
}

// The left and the right part of one picture.
TYPED_TEST(StridesOf, PartsOfOnePictureAreAcceptedAndOverlappingOnesRefused) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const std::int64_t n = 2, c = 3, h = 6, w = 5, wide = 11;
  for (const Format format : formats) {
    const bool planes = format == Format::NCHW;
    const Shape shape = planes ? Shape{n, c, h, w} : Shape{n, h, w, c};
    const Strides strides = batchnorm::dense_strides(planes ? Shape{n, c, h, wide} : Shape{n, h, wide, c});
    const auto call = ordinary_call<T, P>(shape, format, true);
    const std::int64_t step = planes ? 1 : c;  // from column to column
    const Layout left{strides, 0, n * c * h * wide}, right{strides, w * step, left.size};
    const auto apart = run_in(call, left, right);
    std::vector<T> buffer = scattered(call.x, shape, left), want = buffer;
    for_each_place(shape, right, [&](std::size_t i, std::size_t place) { want[place] = apart.y[i]; });
    run_in_one(call, buffer, strides, left.first, right.first);
    EXPECT_TRUE(same_bits(buffer, want));
    EXPECT_THROW(run_in_one(call, buffer, strides, 0, (w - 1) * step), batchnorm::ValueError);
    EXPECT_THROW(run_in_one(call, buffer, strides, 0, (wide - 4) * step), batchnorm::ValueError) << "meets the next row";
    EXPECT_TRUE(same_bits(buffer, want));
  }
}

TYPED_TEST(StridesOf, ChannelsLastMemoryUnderTheNameOfNchwHasTheBitsOfNhwc) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : some_sizes) {
    for (const bool is_training : {true, false}) {
      const auto nhwc = ordinary_call<T, P>(shape_of(Format::NHWC, 4, sizes), Format::NHWC, is_training);
      auto nchw = nhwc;
      nchw.format = Format::NCHW;
      nchw.shape = shape_of(Format::NCHW, 4, sizes);
      const std::int64_t width = nchw.shape[3];
      const Layout layout{{sizes.s * sizes.c, 1, width * sizes.c, sizes.c}, 0, sizes.n * sizes.c * sizes.s};
      for_each_place(nchw.shape, layout, [&](std::size_t i, std::size_t place) { nchw.x[i] = nhwc.x[place]; });
      for_each_isa([&](Isa) {
        const auto got = run_in(nchw, layout, layout);
        const auto want = run(nhwc);
        EXPECT_TRUE(same_bits(scattered(got.y, nchw.shape, layout), want.y));
        EXPECT_TRUE(same_bits(got.batch_mean, want.batch_mean) && same_bits(got.batch_variance, want.batch_variance));
      });
    }
  }
}

TYPED_TEST(StridesOf, ColumnMajorMatrixKeepsThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const auto& [n, c] : {std::pair<std::int64_t, std::int64_t>{7, 5}, {64, 33}, {1, 9}, {1000, 3}, {9001, 2}}) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<T, P>({n, c}, format, is_training);
        const Expected want = expected(call);
        for (const std::int64_t padding : {0, 3}) {
          const Layout columns{{1, n + padding}, 0, c * (n + padding)};
          for_each_isa([&](Isa isa) { expect_kept(errors(call, run_in(call, columns, columns), want, isa)); });
        }
      }
    }
  }
}

TYPED_TEST(StridesOf, ImagesMayRunBackwards) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call, const Sizes& sizes) {
    Layout backwards = dense(call.shape);
    backwards.first = (sizes.n - 1) * backwards.strides[0];
    backwards.strides[0] = -backwards.strides[0];
    const Expected want = expected(call);
    for_each_isa([&](Isa isa) { expect_kept(errors(call, run_in(call, backwards, backwards), want, isa)); });
  });
}

TYPED_TEST(StridesOf, AxesOfExtentOneMayHaveAnyStride) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Format format : formats) {
    for (const Shape& shape : {Shape{1, 5, 7, 1}, Shape{7, 1, 1, 5}, Shape{1, 1, 1, 9}, Shape{6, 1, 4, 3}, Shape{1, 6, 1, 4}}) {
      const auto call = ordinary_call<T, P>(shape, format, true);
      Layout odd = dense(shape);
      for (int axis = 0; axis < 4; ++axis) {
        if (shape[axis] == 1) odd.strides[static_cast<std::size_t>(axis)] = 123456789 - axis;
      }
      SCOPED_TRACE(to_string(shape) + std::string(to_string(format)));
      for_each_isa([&](Isa) { expect_equal(run_in(call, odd, odd), run(call)); });
    }
  }
}

TYPED_TEST(StridesOf, DisjointSlicesOfOneBufferAreAcceptedAndOverlappingOnesRefused) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const Call<T, P>& call, const Sizes& sizes) {
    const std::int64_t step = call.format == Format::NCHW ? sizes.s : 1;  // from channel to channel
    const Shape outer = shape_of(call.format, 4, sizes.n, 2 * sizes.c + 1, sizes.s);
    const Layout x{batchnorm::dense_strides(outer), 0, batchnorm::element_count(outer)};
    const Layout y{x.strides, (sizes.c + 1) * step, x.size};
    for_each_isa([&](Isa) {
      for (const bool swapped : {false, true}) {
        const Layout& from = swapped ? y : x;
        const Layout& to = swapped ? x : y;
        std::vector<T> buffer = scattered(call.x, call.shape, from), want = buffer;
        const auto apart = run_in(call, from, to);
        for_each_place(call.shape, to, [&](std::size_t i, std::size_t place) { want[place] = apart.y[i]; });
        run_in_one(call, buffer, x.strides, from.first, to.first);
        EXPECT_TRUE(same_bits(buffer, want));
      }
      std::vector<T> buffer = scattered(call.x, call.shape, x);
      const std::vector<T> before = buffer;
      EXPECT_THROW(run_in_one(call, buffer, x.strides, 0, (sizes.c - 1) * step), batchnorm::ValueError);
      EXPECT_TRUE(same_bits(buffer, before));
    });
  });
}

TEST(TensorView, SliceIsAViewOfPartOfAnAxis) {
  std::vector<float> data(2 * 3 * 4 * 5);
  const TensorView<float> all(data.data(), Shape{2, 3, 4, 5});
  const TensorView<float> part = all.slice(1, 1, 2).slice(3, 2, 3);
  EXPECT_EQ(part.shape(), (Shape{2, 2, 4, 3}));
  EXPECT_EQ(part.strides(), all.strides());
  EXPECT_EQ(part.data(), data.data() + 20 + 2);
  EXPECT_EQ(all.slice(0, 2, 0).shape(), (Shape{0, 3, 4, 5}));
  EXPECT_EQ(TensorView<float>(nullptr, Shape{0, 3}).slice(1, 1, 2).data(), nullptr);
  for (const auto& [axis, begin, count] : {std::array{4, 0, 1}, {-1, 0, 1}, {1, -1, 1}, {1, 0, -1}, {1, 2, 2}, {1, 4, 0}}) {
    EXPECT_THROW(all.slice(axis, begin, count), batchnorm::ShapeError) << axis << ' ' << begin << ' ' << count;
  }
  EXPECT_EQ(support::message_of<batchnorm::ShapeError>([&] { all.slice(1, 2, 2); }),
            "batchnorm::TensorView::slice: [2, 2 + 2) along axis 1 is not within [2, 3, 4, 5]");
}

}  // namespace
