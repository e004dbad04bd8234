// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/gradient_calls.hpp"
#include "support/layouts.hpp"

// Gradients of tensors that are slices of larger ones: read and written in place, whatever lies between stays as it is.
namespace {

using namespace support;
using batchnorm::TensorView;

/// dx in the layout of dy: dx in place of dy.
enum class Place { beside, of_dy };

/// Runs the call with dy, x and dx laid out so. Expects the inputs as they were and nothing but dx's elements written.
template <class T, class P, class G = batchnorm::Identity>
GradientResult<T, P> run_in(const GradientCall<T, P>& call, const Layout& dy_layout, const Layout& x_layout,
                            const Layout& dx_layout, Place place = Place::beside, const G& through = {}) {
  std::vector<T> x = scattered(call.x, call.shape, x_layout), dy = scattered(call.dy, call.shape, dy_layout);
  const std::vector<T> x_before = x, dy_before = dy;
  std::vector<T> beside = scattered(std::vector<T>(call.x.size(), element<T>(unwritten)), call.shape, dx_layout);
  std::vector<T>& dx = place == Place::of_dy ? dy : beside;
  GradientResult<T, P> result{std::vector<T>(call.x.size()), std::vector<P>(call.mean.size()),
                              std::vector<P>(call.mean.size())};
  batchnorm::batch_norm_backward<T, P>(
      call.format, call.options, {dy.data() + dy_layout.first, call.shape, dy_layout.strides},
      {x.data() + x_layout.first, call.shape, x_layout.strides}, view(call.scale), call.mean, call.variance,
      {{dx.data() + dx_layout.first, call.shape, dx_layout.strides}, result.dscale, result.dbias}, through);
  EXPECT_TRUE(same_bits(x, x_before) && (place == Place::of_dy || same_bits(dy, dy_before))) << "an input was changed";
  for_each_place(call.shape, dx_layout, [&](std::size_t i, std::size_t at) { result.dx[i] = dx[at]; });
  EXPECT_TRUE(same_bits(dx, scattered(result.dx, call.shape, dx_layout))) << "a neighbour of dx was written";
  return result;
}

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 613}, {9, 33, 15}, {41, 2, 1}, {17, 67, 1}, {8, 64, 49}, {1, 6, 30}};

/// body(call, sizes) in both formats, training and inference.
template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call =
            ordinary_gradient_call<typename Both::T, typename Both::P>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(text_of(call));
        body(call, sizes);
      }
    }
  }
}

template <class Both>
class GradientStrides : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>,
                                    Types<batchnorm::bfloat16, float>>;
TYPED_TEST_SUITE(GradientStrides, ElementTypes, TypesNames);

TYPED_TEST(GradientStrides, SliceOfChannelsKeepsThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call, const Sizes& sizes) {
    const Layout slice = channel_slice(call.format, sizes), whole = dense(call.shape);
    const auto want = expected(call);
    for_each_isa([&](Isa isa) {
      expect_kept(errors(call, run_in(call, slice, whole, whole), want, isa));
      expect_kept(errors(call, run_in(call, whole, slice, whole), want, isa));
      expect_kept(errors(call, run_in(call, whole, whole, slice), want, isa));
      const auto all = run_in(call, slice, slice, slice);
      expect_kept(errors(call, all, want, isa));
      EXPECT_TRUE(same(run_in(call, slice, slice, slice, Place::of_dy), all));
    });
  });
}

// NCHW: blocks and lanes follow planes, which a slice of channels leaves whole.
TYPED_TEST(GradientStrides, SliceOfChannelsInNchwHasTheBitsOfTheDenseTensor) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call, const Sizes& sizes) {
    if (call.format != Format::NCHW || sizes.s == 1) return;
    const Layout slice = channel_slice(call.format, sizes);
    for_each_isa([&](Isa) { EXPECT_TRUE(same(run_in(call, slice, slice, dense(call.shape)), run(call))); });
  });
}

TYPED_TEST(GradientStrides, PaddedPlanesAndRowsKeepThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call, const Sizes& sizes) {
    // NCHW: 3 elements after each plane. NHWC: 3 after each position's channels, 0 between rows and images.
    const auto [n, c, s] = sizes;
    const std::int64_t width = call.shape[call.format == Format::NCHW ? 3 : 2];
    const Layout padded = call.format == Format::NCHW
                              ? Layout{{c * (s + 3), s + 3, width, 1}, 1, n * c * (s + 3) + 1}
                              : Layout{{s * (c + 3), width * (c + 3), c + 3, 1}, 1, n * s * (c + 3) + 1};
    const auto want = expected(call);
    for_each_isa([&](Isa isa) {
      const auto all = run_in(call, padded, padded, padded);
      expect_kept(errors(call, all, want, isa));
      expect_kept(errors(call, run_in(call, dense(call.shape), padded, padded), want, isa));
      EXPECT_TRUE(same(run_in(call, padded, padded, padded, Place::of_dy), all));
    });
  });
}

TYPED_TEST(GradientStrides, PicturesMayHaveGapsBehindTheirRows) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Shape& shape : some_pictures) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
        SCOPED_TRACE(text_of(call));
        const Layout padded = padded_pictures(shape, format), whole = dense(shape);
        const auto want = expected(call);
        for_each_isa([&](Isa isa) {
          const auto all = run_in(call, padded, padded, padded);
          expect_kept(errors(call, all, want, isa));
          expect_kept(errors(call, run_in(call, padded, whole, whole), want, isa));
          expect_kept(errors(call, run_in(call, whole, whole, padded), want, isa));
          EXPECT_TRUE(same(run_in(call, padded, padded, padded, Place::of_dy), all));
        });
      }
    }
  }
}

TYPED_TEST(GradientStrides, ColumnMajorMatrixKeepsThePromise) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const auto& [n, c] : {std::pair<std::int64_t, std::int64_t>{7, 5}, {64, 33}, {1, 9}, {1000, 3}, {9001, 2}}) {
    for (const bool is_training : {true, false}) {
      const auto call = ordinary_gradient_call<T, P>({n, c}, Format::NCHW, is_training);
      const auto want = expected(call);
      for (const std::int64_t padding : {0, 3}) {
        const Layout columns{{1, n + padding}, 0, c * (n + padding)};
        for_each_isa([&](Isa isa) { expect_kept(errors(call, run_in(call, columns, columns, columns), want, isa)); });
      }
    }
  }
}

TYPED_TEST(GradientStrides, ImagesMayRunBackwards) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call, const Sizes& sizes) {
    Layout backwards = dense(call.shape);
    backwards.first = (sizes.n - 1) * backwards.strides[0];
    backwards.strides[0] = -backwards.strides[0];
    const auto want = expected(call);
    for_each_isa([&](Isa isa) {
      expect_kept(errors(call, run_in(call, backwards, backwards, backwards), want, isa));
      expect_kept(errors(call, run_in(call, dense(call.shape), backwards, dense(call.shape)), want, isa));
    });
  });
}

// The loss may be a sum of y: its dy repeats one image, or one channel, over and over.
TYPED_TEST(GradientStrides, DyMayRepeatItself) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](GradientCall<T, P> call, const Sizes& sizes) {
    if (call.format == Format::NHWC || sizes.s == 1) return;
    Layout repeated = dense(call.shape);
    repeated.strides[0] = 0;
    for_each_place(call.shape, repeated, [&](std::size_t i, std::size_t place) { call.dy[i] = call.dy[place]; });
    const auto want = expected(call);
    const TensorView<const T> dy(call.dy.data(), call.shape, repeated.strides);
    for_each_isa([&](Isa isa) {
      GradientResult<T, P> got{std::vector<T>(call.x.size()), std::vector<P>(call.mean.size()),
                               std::vector<P>(call.mean.size())};
      batchnorm::batch_norm_backward<T, P>(call.format, call.options, dy, call.x_view(), view(call.scale), call.mean,
                                           call.variance, {{got.dx.data(), call.shape}, got.dscale, got.dbias});
      expect_kept(errors(call, got, want, isa));
    });
  });
}

/// The same call under the name of NCHW, its memory that of NHWC.
template <class T, class P>
struct Renamed {
  GradientCall<T, P> nchw;
  Layout layout;
};

template <class T, class P>
Renamed<T, P> renamed(const GradientCall<T, P>& nhwc, const Sizes& sizes) {
  Renamed<T, P> result{nhwc, {}};
  result.nchw.format = Format::NCHW;
  result.nchw.shape = shape_of(Format::NCHW, 4, sizes);
  result.layout = {{sizes.s * sizes.c, 1, result.nchw.shape[3] * sizes.c, sizes.c}, 0, sizes.n * sizes.c * sizes.s};
  for_each_place(result.nchw.shape, result.layout, [&](std::size_t i, std::size_t place) {
    result.nchw.x[i] = nhwc.x[place];
    result.nchw.dy[i] = nhwc.dy[place];
  });
  return result;
}

TYPED_TEST(GradientStrides, ChannelsLastMemoryUnderTheNameOfNchwHasTheBitsOfNhwc) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : some_sizes) {
    for (const bool is_training : {true, false}) {
      const auto nhwc = ordinary_gradient_call<T, P>(shape_of(Format::NHWC, 4, sizes), Format::NHWC, is_training);
      const Renamed<T, P> same_memory = renamed(nhwc, sizes);
      for_each_isa([&](Isa) {
        const Layout& layout = same_memory.layout;
        auto got = run_in(same_memory.nchw, layout, layout, layout);
        got.dx = scattered(got.dx, same_memory.nchw.shape, layout);
        EXPECT_TRUE(same(got, run(nhwc))) << to_string(nhwc.shape);
      });
    }
  }
}

// Two outputs whose images begin at places of a cache line that agree for one image and differ for the next.
TYPED_TEST(GradientStrides, OutputsWhoseImagesDifferInAlignmentAreStreamed) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  batchnorm::Tuning tuning;
  tuning.training_stream_share = tuning.inference_stream_share = 0;
  for (const std::int64_t s : {64, 153}) {
    const std::int64_t n = 5, c = 32;
    const auto call = ordinary_gradient_call<T, P>({n, c, s}, Format::NCHW, true);
    const Layout apart{{c * s + 1, s, 1}, 0, n * (c * s + 1)};
    for_each_isa([&](Isa) {
      const auto want = run(call);
      const auto blank = scattered(std::vector<T>(call.x.size(), element<T>(unwritten)), call.shape, apart);
      Guarded<T> dx(call.x.size(), 0, element<T>(unwritten)), dresidual(std::span<const T>(blank), 0);
      std::vector<P> dscale(static_cast<std::size_t>(c)), dbias(static_cast<std::size_t>(c));
      batchnorm::batch_norm_backward<T, P>(
          call.format, call.options, call.dy_view(), call.x_view(), view(call.scale), call.mean, call.variance,
          {{dx.data(), call.shape}, dscale, dbias, {dresidual.data(), call.shape, apart.strides}}, batchnorm::Identity{},
          {.tuning = &tuning});
      EXPECT_TRUE(same_bits(dx.values(), want.dx) && dx.guards_intact());
      EXPECT_TRUE(same_bits(dresidual.values(), scattered(call.dy, call.shape, apart)) && dresidual.guards_intact());
    });
  }
}

// The mask follows the memory, the output its own strides.
TYPED_TEST(GradientStrides, MaskAndOutputOfASliceStopTheSameElements) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_call<TypeParam>([](const GradientCall<T, P>& call, const Sizes& sizes) {
    const auto y = uniform<T>(static_cast<std::int64_t>(call.x.size()), -1, 1, 51);
    std::vector<std::uint8_t> bits((y.size() + 7) / 8);
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (real(y[i]) > 0) bits[i / 8] = static_cast<std::uint8_t>(bits[i / 8] | 1U << i % 8);
    }
    auto stopped = call;
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (!(real(y[i]) > 0)) stopped.dy[i] = element<T>(0);
    }
    const auto exact = expected(stopped);
    const Layout whole = dense(call.shape);
    for (const Layout& slice : {channel_slice(call.format, sizes), padded_pictures(call.shape, call.format)}) {
      const std::vector<T> sliced_y = scattered(y, call.shape, slice);
      const ThroughReluOutput<T> by_output{{sliced_y.data() + slice.first, call.shape, slice.strides}};
      for_each_isa([&](Isa isa) {
        const auto want = run_in(stopped, slice, slice, slice);
        EXPECT_TRUE(same(run_in(call, slice, slice, slice, Place::beside, ThroughReluMask{bits}), want));
        EXPECT_TRUE(same(run_in(call, slice, slice, slice, Place::beside, by_output), want));
        EXPECT_TRUE(same(run_in(call, slice, slice, slice, Place::of_dy, ThroughReluMask{bits}), want));
        // Where planes are single values, a dense x is walked as rows of channels, which those of y must then be, too.
        if (sizes.s == 1 && slice.strides[1] != 1 && call.format == Format::NCHW) return;
        expect_kept(errors(stopped, run_in(call, whole, whole, whole, Place::beside, by_output), exact, isa));
      });
    }
  });
}

// Double gradients read three tensors and write two, each with strides of its own.
TYPED_TEST(GradientStrides, OfTheSecondOrderKeepTheirBounds) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      const auto call = ordinary_double_gradient_call<T, P>(shape_of(format, 4, sizes), format, true);
      const GradientCall<T, P>& of = call.of;
      SCOPED_TRACE(text_of(of));
      const auto want = expected(call);
      for (const Layout& slice : {channel_slice(format, sizes), padded_pictures(of.shape, format)}) {
        const std::vector<T> x = scattered(of.x, of.shape, slice), dy = scattered(of.dy, of.shape, slice);
        const std::vector<T> ddx = scattered(*call.ddx, of.shape, slice);
        const std::vector<T> blank = scattered(std::vector<T>(of.x.size(), element<T>(unwritten)), of.shape, slice);
        const auto at = [&](const std::vector<T>& buffer) {
          return TensorView<const T>(buffer.data() + slice.first, of.shape, slice.strides);
        };
        for_each_isa([&](Isa isa) {
          std::vector<T> dx = blank, ddy = blank;
          DoubleGradientResult<T, P> got{std::vector<T>(of.x.size()), std::vector<T>(of.x.size()),
                                         std::vector<P>(of.mean.size())};
          batchnorm::batch_norm_double_backward<T, P>(of.format, of.options,
                                                      {.dy = at(dy),
                                                       .x = at(x),
                                                       .scale = view(of.scale),
                                                       .mean = of.mean,
                                                       .variance = of.variance,
                                                       .ddx = at(ddx),
                                                       .ddscale = view(call.ddscale),
                                                       .ddbias = view(call.ddbias)},
                                                      {{dx.data() + slice.first, of.shape, slice.strides},
                                                       {ddy.data() + slice.first, of.shape, slice.strides},
                                                       got.dscale});
          for_each_place(of.shape, slice,
                         [&](std::size_t i, std::size_t place) { got.dx[i] = dx[place], got.ddy[i] = ddy[place]; });
          EXPECT_TRUE(same_bits(dx, scattered(got.dx, of.shape, slice))) << "a neighbour of dx was written";
          EXPECT_TRUE(same_bits(ddy, scattered(got.ddy, of.shape, slice))) << "a neighbour of ddy was written";
          expect_kept(errors(call, got, want, isa));
        });
      }
    }
  }
}

}  // namespace
