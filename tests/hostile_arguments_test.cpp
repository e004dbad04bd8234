// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <batchnorm/kernel/scratch.hpp>
#include <limits>
#include <new>

#include "support/calls.hpp"
#include "support/messages.hpp"
#include "support/sanitizers.hpp"

// Extents, strides and lengths that nobody means: each is an error, or std::bad_alloc, and nothing beside the arguments is read
// or written.
namespace {

using namespace support;
using batchnorm::GradientSums;
using batchnorm::InPlaceBatchNorm;
using batchnorm::Moments;
using batchnorm::ShapeError;
using batchnorm::Tensor;
using batchnorm::TensorView;
using batchnorm::ValueError;

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

// ---- extents

TEST(HostileExtents, OfABroadcastViewAreRefusedBeforeSizesOverflow) {
  const float x = 1;
  for (const Format format : formats) {
    for (const Shape& shape : {Shape{4'100'000'000'000'000'000, 1},
                               {1, most},
                               {std::int64_t{1} << 31, std::int64_t{1} << 31, 1},
                               {1, (std::int64_t{1} << 53) + 1, 1}}) {
      EXPECT_EQ(message_of<ShapeError>([&] {
                  batchnorm::moments<float>({&x, shape, {}}, format);
                }),
                "batchnorm::moments: x has more than 2^53 elements or channels (x is " + to_string(shape) + ", " +
                    std::string(to_string(format)) + ")");
    }
  }
}

TEST(HostileExtents, OfAnEmptyBatchAreRefusedBeforeSizesOverflow) {
  const Shape shape{0, most, 1};
  EXPECT_EQ(message_of<ShapeError>([&] {
              batchnorm::moments<float>({nullptr, shape}, Format::NCHW);
            }),
            "batchnorm::moments: x has more than 2^53 elements or channels (x is " + to_string(shape) + ", NCHW)");
  EXPECT_NE(message_of<ShapeError>([&] {
              batchnorm::input_gradient<float, float>(
                  Format::NCHW, {.dy = {nullptr, shape}, .x = {nullptr, shape}, .mean = TensorView<const float>()},
                  GradientSums(3), 1e-5, {});
            }),
            "<no exception>");
}

TEST(HostileExtents, WithinWhatIsCountedGiveBadAlloc) {
  if (address_sanitizer || thread_sanitizer) GTEST_SKIP() << "its allocator ends the program";
  const float x = 1;
  for (const Format format : formats) {
    EXPECT_THROW(batchnorm::moments<float>({&x, {std::int64_t{1} << 52, 1, 1}, {}}, format), std::bad_alloc);
    EXPECT_THROW(batchnorm::moments<float>({nullptr, {0, std::int64_t{1} << 52, std::int64_t{1} << 52}}, format),
                 std::exception);
  }
}

TEST(HostileExtents, OfStatisticsAreRefused) {
  for (const std::int64_t channels : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(), most}) {
    const std::string count = std::to_string(channels);
    EXPECT_EQ(message_of<ShapeError>([&] { Moments moments(channels); }),
              "batchnorm::Moments: the number of channels is " + count + ", it must be in [0, 2^53]");
    EXPECT_EQ(message_of<ShapeError>([&] { GradientSums sums(channels); }),
              "batchnorm::GradientSums: the number of channels is " + count + ", it must be in [0, 2^53]");
  }
}

TEST(HostileExtents, OfAMaskDoNotOverflow) {
  EXPECT_EQ(batchnorm::mask_bytes({most}), most / 8 + 1);
  EXPECT_EQ(batchnorm::mask_bytes({most - 7}), most / 8);
  EXPECT_EQ(batchnorm::mask_bytes({0}), 0);
}

TEST(Scratch, ThatOverflowsIsBadAlloc) {
  if (address_sanitizer || thread_sanitizer) GTEST_SKIP() << "its allocator ends the program";
  for (const std::int64_t count : {most, most / 8, std::int64_t{-1}, std::int64_t{1} << 61}) {
    batchnorm::cpu::Scratch scratch;
    scratch.reserve<double>(3);
    scratch.reserve<double>(count);
    scratch.reserve<double>(3);
    EXPECT_THROW(scratch.allocate(), std::bad_alloc) << count;
  }
  batchnorm::cpu::Scratch sum;
  for (int i = 0; i < 8; ++i) sum.reserve<double>(std::int64_t{1} << 58);
  EXPECT_THROW(sum.allocate(), std::bad_alloc);
}

// ---- strides

TEST(HostileStrides, OfASliceAreRefused) {
  std::vector<float> data(12);
  const TensorView<float> view(data.data(), {3, 4}, {std::int64_t{1} << 62, 1});
  EXPECT_EQ(message_of<ShapeError>([&] { view.slice(0, 2, 1); }),
            "batchnorm::TensorView::slice: the stride along axis 0 reaches beyond any memory");
  const TensorView<float> far(data.data(), {3, 4}, {std::int64_t{1} << 61, 1}),
      back(data.data(), {3, 4}, {-(std::int64_t{1} << 61), 1});
  EXPECT_NE(message_of<ShapeError>([&] { far.slice(0, 1, 1); }), "<no exception>");
  EXPECT_NE(message_of<ShapeError>([&] { back.slice(0, 1, 1); }), "<no exception>");
  const TensorView<float> negative(data.data(), {std::numeric_limits<std::int64_t>::min(), 4});
  EXPECT_NE(message_of<ShapeError>([&] { negative.slice(0, 0, 1); }), "<no exception>");
  EXPECT_NE(message_of<ShapeError>([&] { negative.slice(0, most, most); }), "<no exception>");
}

// A region that runs over an end of the address space would be disjoint from all.
TEST(HostileStrides, ThatRunOverAnEndOfTheAddressSpaceAreRefused) {
  std::vector<float> x(24), y(24, 777);
  const batchnorm::BatchNorm<float> bn(true);
  const std::int64_t far = std::int64_t{1} << 47;
  for (const std::int64_t stride : {-far, -far * 64}) {
    const std::string message = message_of<ValueError>([&] {
      bn({x.data(), {2, 3, 4}}, {}, {}, {}, {}, {{y.data(), {2, 3, 4}, {stride, 4, 1}}});
    });
    EXPECT_EQ(message, "batchnorm::BatchNorm: output_x has strides [" + std::to_string(stride) +
                           ", 4, 1], which reach beyond any memory (x is [2, 3, 4], NCHW)");
  }
  EXPECT_EQ(y, std::vector<float>(24, 777));
}

// ---- statistics made by hand

/// body(moments, text) for moments of 5 channels with one vector of another length, or a count that is none.
template <class Body>
void for_each_broken(Body&& body) {
  const auto broken = [&](const std::string& text, auto&& spoil) {
    Moments moments(5);
    moments.count = 3;
    spoil(moments);
    body(moments, text);
  };
  const std::string lengths = "moments have vectors of 5 and of ";
  broken(lengths + "0 channels, expected one length", [](Moments& m) { m.mean_low.clear(); });
  broken(lengths + "0 channels, expected one length", [](Moments& m) { m.m2.clear(); });
  broken(lengths + "100000 channels, expected one length", [](Moments& m) { m.mean_low.resize(100000); });
  broken(lengths + "4 channels, expected one length", [](Moments& m) { m.m2.resize(4); });
  broken("moments have vectors of 4 and of 5 channels, expected one length", [](Moments& m) { m.mean.resize(4); });
  broken("moments have a count of -1, it must be in [0, 2^53]", [](Moments& m) { m.count = -1; });
  broken("moments have a count of " + std::to_string(most) + ", it must be in [0, 2^53]", [](Moments& m) { m.count = most; });
}

std::string any_message_of(const auto& call) {
  const std::string shape = message_of<ShapeError>(call);
  return shape.starts_with("<another") ? message_of<ValueError>(call) : shape;
}

TEST(StatisticsMadeByHand, MomentsWithVectorsOfDifferentLengthsAreRefusedWhereverTheyEnter) {
  std::vector<float> x(60), y(60, 777), five(5, 777);
  const Shape shape{3, 5, 4};
  GradientSums sums(5);
  sums.count = 3;
  for_each_broken([&](const Moments& moments, const std::string& text) {
    Moments right(5), spoiled = moments;
    right.count = 3;
    EXPECT_EQ(any_message_of([&] { batchnorm::merge(right, moments); }), "batchnorm::merge: " + text);
    EXPECT_EQ(any_message_of([&] { batchnorm::merge(spoiled, right); }), "batchnorm::merge: " + text);
    EXPECT_EQ(any_message_of([&] { batchnorm::finalize<float>(moments, {}, {.batch_mean = five, .batch_variance = {}}); }),
              "batchnorm::finalize: " + text);
    EXPECT_EQ(any_message_of([&] {
                batchnorm::normalize<float, float>(Format::NCHW, {.x = {x.data(), shape}}, moments, 1e-5, {y.data(), shape});
              }),
              "batchnorm::normalize: " + text);
    EXPECT_EQ(any_message_of([&] {
                batchnorm::gradient_sums<float>(Format::NCHW, {.dy = {x.data(), shape}, .x = {x.data(), shape}}, moments);
              }),
              "batchnorm::gradient_sums: " + text);
    EXPECT_EQ(any_message_of([&] {
                batchnorm::input_gradient<float, float>(Format::NCHW, {.dy = {x.data(), shape}, .x = {x.data(), shape}}, sums,
                                                        moments, 1e-5, {.dx = {y.data(), shape}});
              }),
              "batchnorm::input_gradient: " + text);
  });
  EXPECT_EQ(y, std::vector<float>(60, 777));
  EXPECT_EQ(five, std::vector<float>(5, 777));
}

TEST(StatisticsMadeByHand, GradientSumsWithVectorsOfDifferentLengthsAreRefusedWhereverTheyEnter) {
  std::vector<float> x(60), y(60, 777), five(5, 1);
  const Shape shape{3, 5, 4};
  Moments moments(5);
  moments.count = 3;
  const auto expect_refused = [&](GradientSums sums, const std::string& text) {
    GradientSums right(5);
    EXPECT_EQ(any_message_of([&] { batchnorm::merge(right, sums); }), "batchnorm::merge: sums have " + text);
    EXPECT_EQ(any_message_of([&] { batchnorm::merge(sums, right); }), "batchnorm::merge: sums have " + text);
    EXPECT_EQ(any_message_of([&] {
                batchnorm::input_gradient<float, float>(Format::NCHW, {.dy = {x.data(), shape}, .x = {x.data(), shape}}, sums,
                                                        moments, 1e-5, {.dx = {y.data(), shape}});
              }),
              "batchnorm::input_gradient: sums have " + text);
    EXPECT_EQ(any_message_of([&] {
                batchnorm::input_gradient<float, float>(
                    Format::NCHW,
                    {.dy = {x.data(), shape}, .x = {x.data(), shape}, .mean = TensorView<const float>(five), .variance = five},
                    sums, 1e-5, {.dx = {y.data(), shape}});
              }),
              "batchnorm::input_gradient: sums have " + text);
  };
  GradientSums sums(5);
  sums.count = 3;
  sums.dy_x.resize(100000);
  expect_refused(sums, "vectors of 5 and of 100000 channels, expected one length");
  sums.dy_x.clear();
  expect_refused(sums, "vectors of 5 and of 0 channels, expected one length");
  sums = GradientSums(5);
  sums.count = -1;
  expect_refused(sums, "a count of -1, it must be in [0, 2^53]");
  EXPECT_EQ(y, std::vector<float>(60, 777));
}

// ---- in place

TEST(InPlaceChecks, ComeBeforeScaleAndBiasAreRead) {
  std::vector<float> x(24, 3), one(1, 1), dy(24), variance(3, 1);
  const InPlaceBatchNorm<float> layer;
  const std::int64_t far = std::int64_t{1} << 40;  // would be read far beyond the vector
  const TensorView<const float> apart(one.data(), Shape{3}, {far}), absent, wrong(one.data(), Shape{far}),
      null(nullptr, Shape{3}),
      misaligned(reinterpret_cast<const float*>(reinterpret_cast<const char*>(x.data()) + 1), Shape{3});
  const std::string gaps = " has stride 1099511627776, the elements of a channel vector must lie next to each other";
  const struct {
    TensorView<const float> vector;
    std::string what;
  } cases[] = {{apart, gaps},
               {wrong, " has 1099511627776 elements, expected C = 3"},
               {null, " has a null pointer for its data, its shape is [3]"},
               {misaligned, " is misaligned: its address is not a multiple of 4, the alignment of float"}};
  const Shape shape{2, 3, 4};
  for (const auto& broken : cases) {
    for (const bool is_scale : {true, false}) {
      const auto &scale = is_scale ? broken.vector : absent, &bias = is_scale ? absent : broken.vector;
      const std::string what = (is_scale ? ": scale" : ": bias") + broken.what;
      const auto begins = [&](const std::string& message, const std::string& call) {
        return message.starts_with("batchnorm::InPlaceBatchNorm" + call + what);
      };
      const std::string forward = any_message_of([&] {
        layer.forward({.x = {x.data(), shape}, .scale = scale, .bias = bias});
      });
      EXPECT_TRUE(begins(forward, "")) << forward;
      const std::string backward = any_message_of([&] {
        layer.backward({.dy = {dy.data(), shape}, .y = {x.data(), shape}, .scale = scale, .bias = bias, .variance = variance},
                       {.dx = {dy.data(), shape}});
      });
      EXPECT_TRUE(begins(backward, "::backward")) << backward;
    }
  }
  EXPECT_EQ(x, std::vector<float>(24, 3));
}

TEST(InPlaceChecks, RefuseABiasTooLargeForAnAbsentScaleAsForOnes) {
  std::vector<float> x(24, 3), dy(24, 3), bias = {0, 2000, 0}, ones(3, 1), variance(3, 1);
  const Shape shape{2, 3, 4};
  const InPlaceBatchNorm<float> layer;
  for (const TensorView<const float>& scale : {TensorView<const float>(), TensorView<const float>(ones)}) {
    const std::string expected =
        "batchnorm::InPlaceBatchNorm: scale[1] is 1, with bias 2000 x could not be recovered from y; |scale| must be at least "
        "|bias| / 1024 and 1.1754943508222875e-36";
    EXPECT_EQ(any_message_of([&] { layer.forward({.x = {x.data(), shape}, .scale = scale, .bias = bias}); }), expected);
    EXPECT_EQ(any_message_of([&] {
                layer.backward(
                    {.dy = {dy.data(), shape}, .y = {x.data(), shape}, .scale = scale, .bias = bias, .variance = variance},
                    {.dx = {dy.data(), shape}});
              }),
              expected);
  }
  EXPECT_EQ(x, std::vector<float>(24, 3));
  EXPECT_EQ(dy, std::vector<float>(24, 3));
}

}  // namespace
