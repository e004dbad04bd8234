// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "support/calls.hpp"
#include "support/layouts.hpp"
#include "support/messages.hpp"

// Tensors that fit both memory layouts go by the others of their call, and masks are in memory order.
namespace {

using namespace support;
using batchnorm::TensorView;
using batchnorm::ValueError;

/// A tensor in a buffer of its own.
struct Placed {
  Layout layout;
  std::vector<float> buffer;

  Placed(const Shape& shape, const Layout& where, const std::vector<float>& dense)
      : layout(where), buffer(scattered(dense, shape, where)) {}
  TensorView<float> view(const Shape& shape) { return {buffer.data() + layout.first, shape, layout.strides}; }
  std::vector<float> gathered(const Shape& shape) const {
    std::vector<float> dense(static_cast<std::size_t>(batchnorm::element_count(shape)));
    for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { dense[i] = buffer[place]; });
    return dense;
  }
};

std::vector<float> zeros_of(const Shape& shape) {
  return std::vector<float>(static_cast<std::size_t>(batchnorm::element_count(shape)));
}

/// A channel, or some, of a tensor with more of them, channels last in memory: elements `step` apart.
Layout with_steps(const Shape& shape, std::int64_t step) {
  Layout layout = dense(shape);
  for (std::int64_t& stride : layout.strides) stride *= step;
  return {layout.strides, 1, layout.size * step + 1};
}

/// y, dx and the mask of a step with ReLU, where each tensor lies in a layout of its own.
struct Step {
  std::vector<float> y, dx, dresidual, through_output;
  std::vector<std::uint8_t> mask;
};

Step step_of(const Call<float, float>& call, const Layout& of_x, const Layout& of_y, const Layout& of_dy) {
  const Shape& shape = call.shape;
  const auto residual = uniform<float>(static_cast<std::int64_t>(call.x.size()), -3, 3, 5);
  const auto dy = uniform<float>(static_cast<std::int64_t>(call.x.size()), -3, 3, 6);
  Placed x(shape, of_x, call.x), r(shape, of_y, residual), y(shape, of_y, zeros_of(shape)), d(shape, of_dy, dy);
  Placed dx(shape, of_dy, zeros_of(shape)), dresidual(shape, of_dy, zeros_of(shape)), again(shape, of_dy, zeros_of(shape));
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(shape)), 0xFF);
  auto mean = *call.mean, variance = *call.variance;
  batchnorm::batch_norm<float>(call.format, call.options, x.view(shape), view(call.scale), view(call.bias), mean, variance,
                               {.output_x = y.view(shape), .mask = mask}, LeakySum<float>{r.view(shape), {0}});
  batchnorm::batch_norm_backward<float>(call.format, call.options, d.view(shape), x.view(shape), view(call.scale), mean,
                                        variance, {.dx = dx.view(shape), .dresidual = dresidual.view(shape)},
                                        ThroughReluMask{mask});
  batchnorm::batch_norm_backward<float>(call.format, call.options, d.view(shape), x.view(shape), view(call.scale), mean,
                                        variance, {.dx = again.view(shape)}, ThroughReluOutput<float>{y.view(shape)});
  return {y.gathered(shape), dx.gathered(shape), dresidual.gathered(shape), again.gathered(shape), mask};
}

// Inference: y is the same to the last bit, in whichever layout it is computed.
TEST(LayoutOf, ATensorThatFitsBothIsThatOfTheOthers) {
  const struct {
    Shape shape;
    Format format;
  } cases[] = {{{3, 4, 5, 1}, Format::NHWC}, {{3, 1, 4, 5}, Format::NCHW}, {{7, 1}, Format::NCHW},
               {{3, 6, 1, 1}, Format::NCHW}, {{3, 1, 1, 6}, Format::NHWC}, {{1, 6}, Format::NCHW}};
  for (const auto& [shape, format] : cases) {
    SCOPED_TRACE(to_string(shape) + std::string(to_string(format)));
    const auto call = ordinary_call<float, float>(shape, format, false);
    const Layout gapless = dense(shape), apart = with_steps(shape, 5);
    for_each_isa([&](Isa) {
      const Step want = step_of(call, gapless, gapless, gapless);
      for (const auto& [x, y, dy] : {std::array{apart, gapless, gapless},
                                     {gapless, apart, gapless},
                                     {gapless, gapless, apart},
                                     {gapless, apart, apart},
                                     {apart, apart, gapless}}) {
        const Step got = step_of(call, x, y, dy);
        EXPECT_TRUE(same_bits(got.y, want.y));
        EXPECT_TRUE(same_bits(got.mask, want.mask));
        EXPECT_TRUE(same_bits(got.dx, want.dx));
        EXPECT_TRUE(same_bits(got.dresidual, want.dresidual));
        EXPECT_TRUE(same_bits(got.through_output, want.dx));
      }
    });
  }
}

TEST(LayoutOf, TensorsInDifferentOnesIsStillRefused) {
  const Shape shape{2, 3, 4, 5};
  const auto call = ordinary_call<float, float>(shape, Format::NCHW, false);
  const Layout channels_last{{60, 1, 15, 3}, 0, 120};
  EXPECT_EQ(message_of<ValueError>([&] { step_of(call, dense(shape), channels_last, dense(shape)); }),
            "batchnorm::BatchNorm: output_x has strides [60, 1, 15, 3], which is another memory layout than that of x (the "
            "values along the last spatial axis next to each other) (x is [2, 3, 4, 5], NCHW)");
}

// Found by random calls: with one value to a row x fits both layouts, and was refused beside tensors that fit only one. The
// mask is that of x alone.
TEST(LayoutOf, ATensorWithRowsOfOneValueIsThatOfTheOthersAndKeepsItsMask) {
  const Shape shape{2, 3, 4, 1};
  const auto call = ordinary_call<float, float>(shape, Format::NCHW, false);
  const Layout channels_last{{12, 1, 3, 3}, 0, 24}, reversed{{12, -1, 3, 3}, 2, 24};
  for_each_isa([&](Isa) {
    const Step want = step_of(call, channels_last, channels_last, channels_last);
    for (const auto& [y, dy] : {std::array{dense(shape), channels_last},
                                {reversed, channels_last},
                                {channels_last, reversed},
                                {dense(shape), reversed}}) {
      const Step got = step_of(call, channels_last, y, dy);
      EXPECT_TRUE(same_bits(got.y, want.y));
      EXPECT_TRUE(same_bits(got.mask, want.mask));
      EXPECT_TRUE(same_bits(got.dx, want.dx));
      EXPECT_TRUE(same_bits(got.through_output, want.dx));
    }
  });
}

// The gradient of a sum, and of a mean over space, as frameworks expand them.
TEST(LayoutOf, AGradientThatRepeatsElementsIsNamedWithTheRemedy) {
  const Shape shape{2, 3, 4, 5};
  const auto call = ordinary_call<float, float>(shape, Format::NCHW, true);
  const auto refused = [&](const batchnorm::Strides& strides) {
    return message_of<ValueError>([&] {
      batchnorm::batch_norm_backward<float>(Format::NCHW, call.options, {call.x.data(), shape, strides}, {call.x.data(), shape},
                                            nullptr, *call.mean, *call.variance, {});
    });
  };
  EXPECT_EQ(refused({3, 1, 0, 0}),
            "batchnorm::BatchNorm::backward: dy has strides [3, 1, 0, 0], which is another memory layout than that of x (the "
            "values along the last spatial axis next to each other); its stride of 0 along axis 2 repeats elements, copy it to "
            "a dense tensor first (x is [2, 3, 4, 5], NCHW)");
  EXPECT_NE(refused({0, 0, 0, 0}).find("its stride of 0 along axis 0 repeats elements"), std::string::npos);
}

/// The strides of a dense tensor whose axes lie in memory in that order, outermost first.
Layout in_order(const Shape& shape, const std::vector<int>& order) {
  Layout layout;
  std::int64_t stride = 1;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    layout.strides[static_cast<std::size_t>(*axis)] = stride;
    stride *= shape[*axis];
  }
  layout.size = stride;
  return layout;
}

std::vector<std::uint8_t> packed(const std::vector<float>& y) {
  std::vector<std::uint8_t> bytes((y.size() + 7) / 8);
  for (std::size_t i = 0; i < y.size(); ++i) bytes[i / 8] = static_cast<std::uint8_t>(bytes[i / 8] | (y[i] > 0) << i % 8);
  return bytes;
}

// Found in use: of a tensor called NHWC whose memory is [N, C, W] the mask was that of [C, N, W].
TEST(MaskOrder, IsInMemoryOrderWhateverTheFormatAndTheOrderOfTheChannels) {
  const Shape shapes[] = {{3, 5, 7},    {9, 3, 4},       {2, 3, 4, 5}, {8, 3, 2, 3},
                          {2, 3, 4, 1}, {2, 3, 2, 4, 5}, {1, 3, 4, 5}, {3, 5, 1, 3}};
  for (const Shape& shape : shapes) {
    for (const Format format : formats) {
      const int channel = format == Format::NCHW ? 1 : shape.rank() - 1;
      std::vector<int> others;
      for (int axis = 0; axis < shape.rank(); ++axis) {
        if (axis != channel) others.push_back(axis);
      }
      // The channels innermost, between batch and space, and outermost.
      for (const std::ptrdiff_t place : {static_cast<std::ptrdiff_t>(others.size()), std::ptrdiff_t{1}, std::ptrdiff_t{0}}) {
        std::vector<int> order = others;
        order.insert(order.begin() + place, channel);
        const Layout memory = in_order(shape, order);
        const auto call = ordinary_call<float, float>(shape, format, true);
        SCOPED_TRACE(to_string(shape) + std::string(to_string(format)) +
                     to_string(Shape(std::vector<std::int64_t>(order.begin(), order.end()))));
        for_each_isa([&](Isa) {
          const Step got = step_of(call, memory, memory, memory);
          EXPECT_TRUE(same_bits(got.mask, packed(scattered(got.y, shape, memory))));
          EXPECT_TRUE(same_bits(got.dx, got.through_output)) << "forward and backward do not mean the same bits";
        });
      }
    }
  }
}

// Found by random calls: a gap between the channels that the batch's stride has no room for turned the order round.
TEST(MaskOrder, OfTensorsWithGapsBetweenTheirChannelsIsInMemoryOrder) {
  const Shape nhwc{6, 1, 9, 4}, nchw{6, 4, 1, 9};
  // Channels of 9 values 16 apart, batch entries right after their last value; and the other way round.
  const struct {
    Shape shape;
    Format format;
    Layout dense, apart;
  } cases[] = {{nhwc, Format::NHWC, {{36, 9, 1, 9}, 0, 216}, {{57, 9, 1, 16}, 0, 342}},
               {nchw, Format::NCHW, {{9, 54, 9, 1}, 0, 216}, {{16, 89, 9, 1}, 0, 356}}};
  for (const auto& of : cases) {
    const auto call = ordinary_call<float, float>(of.shape, of.format, false);
    for_each_isa([&](Isa) {
      const Step want = step_of(call, of.dense, of.dense, of.dense), got = step_of(call, of.apart, of.apart, of.apart);
      EXPECT_TRUE(same_bits(got.mask, want.mask));
      EXPECT_TRUE(same_bits(got.dx, want.dx));
      EXPECT_TRUE(same_bits(want.mask, packed(scattered(want.y, of.shape, of.dense))));
    });
  }
}

// Gaps between the rows of the same memory do not change the mask.
TEST(MaskOrder, OfPlanesWithGapsUnderTheNameOfNhwcIsInMemoryOrder) {
  const std::int64_t n = 3, h = 4, w = 5, c = 2, row = w + 3;
  const Shape shape{n, h, w, c};
  const auto call = ordinary_call<float, float>(shape, Format::NHWC, false);
  const Layout planes{{c * h * w, w, 1, h * w}, 0, n * c * h * w}, padded{{c * h * row, row, 1, h * row}, 0, n * c * h * row};
  for_each_isa([&](Isa) {
    const Step got = step_of(call, planes, padded, padded), want = step_of(call, planes, planes, planes);
    EXPECT_TRUE(same_bits(got.mask, want.mask));
    EXPECT_TRUE(same_bits(got.dx, want.dx));
    EXPECT_TRUE(same_bits(step_of(call, padded, padded, padded).mask, want.mask));
  });
}

}  // namespace
