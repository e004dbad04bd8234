// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/calls.hpp"
#include "support/layouts.hpp"
#include "support/messages.hpp"
#include "support/tunings.hpp"

// PreparedInference is the operator's inference, bit for bit.
namespace {

using namespace support;
using batchnorm::CallOptions;
using batchnorm::PreparedInference;
using batchnorm::ShapeError;
using batchnorm::TensorView;
using batchnorm::ValueError;

template <class P>
batchnorm::InferenceParameters<P> parameters_of(const std::optional<std::vector<P>>& scale,
                                                const std::optional<std::vector<P>>& bias,
                                                const std::optional<std::vector<P>>& mean,
                                                const std::optional<std::vector<P>>& variance) {
  return {.scale = view(scale), .bias = view(bias), .mean = view(mean), .variance = view(variance)};
}
template <class T, class P>
batchnorm::InferenceParameters<P> parameters_of(const Call<T, P>& call) {
  return parameters_of(call.scale, call.bias, call.mean, call.variance);
}

/// y where it is no view of x: unwritten before.
template <class T, class P, class E>
std::vector<T> prepared(const PreparedInference<T, P>& layer, const Call<T, P>& call, const E& epilogue,
                        const CallOptions& options) {
  std::vector<T> y(call.x.size(), element<T>(unwritten));
  layer({call.x.data(), call.shape}, {y.data(), call.shape}, epilogue, options);
  return y;
}

/// Shapes on both sides of every choice: planes of less than a cache line, long ones, few and many channels.
std::vector<Shape> shapes_of(Format format) {
  std::vector<Shape> shapes;
  for (const Sizes& sizes : {Sizes{1, 8, 1},
                             {5, 3, 1},
                             {16, 40, 1},
                             {3, 700, 1},
                             {1, 1, 9},
                             {7, 1, 1},
                             {2, 5, 4},
                             {3, 67, 9},
                             {2, 19, 49},
                             {1, 33, 16},
                             {2, 3, 300},
                             {1, 2, 5000}}) {
    for (int rank = sizes.s == 1 ? 2 : 3; rank <= 5; ++rank) shapes.push_back(shape_of(format, rank, sizes));
  }
  return shapes;
}

template <class Types>
class Prepared : public testing::Test {};

template <class T_, class P_>
struct Types {
  using T = T_;
  using P = P_;
};
using AllTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>,
                                Types<batchnorm::half, batchnorm::half>, Types<batchnorm::bfloat16, float>>;
TYPED_TEST_SUITE(Prepared, AllTypes);

TYPED_TEST(Prepared, GivesTheBitsOfTheOperator) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const batchnorm::Tuning small = split_always();
  batchnorm::ThreadTeam team(3);
  for (const Format format : formats) {
    for (const Shape& shape : shapes_of(format)) {
      SCOPED_TRACE(to_string(shape) + " " + std::string(to_string(format)));
      const auto call = ordinary_call<T, P>(shape, format, false);
      for_each_isa([&](Isa) {
        const auto want = operated(call, batchnorm::Identity{}, {});
        for (const Shape& known : {Shape{}, shape}) {
          const PreparedInference<T, P> layer(format, parameters_of(call), call.options.epsilon, known);
          EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Identity{}, {}), want));
          EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Identity{}, {.executor = &team, .tuning = &small}), want));
        }
      });
    }
  }
}

TYPED_TEST(Prepared, GoesThroughMemoryInEveryWay) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const Format format : formats) {
    for (const Sizes& sizes : {Sizes{9, 200, 1}, {3, 130, 9}, {2, 7, 1500}}) {
      const Shape shape = shape_of(format, 4, sizes);
      const auto call = ordinary_call<T, P>(shape, format, false);
      const auto want = operated(call, batchnorm::Identity{}, {});
      const PreparedInference<T, P> layer(format, parameters_of(call), call.options.epsilon, shape);
      for (const NamedTuning& tuning : tunings()) {
        SCOPED_TRACE(std::string(tuning.name) + " " + to_string(shape));
        EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Identity{}, {.tuning = &tuning.tuning}), want));
      }
    }
  }
}

TYPED_TEST(Prepared, HasEpiloguesAndWorksInPlace) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  if constexpr (std::is_same_v<P, batchnorm::parameter_t<T>>) {
    for (const Format format : formats) {
      const Shape shape = shape_of(format, 4, 3, 21, 30);
      const auto call = ordinary_call<T, P>(shape, format, false);
      const PreparedInference<T, P> layer(format, parameters_of(call), call.options.epsilon);
      EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Relu{}, {}), operated(call, batchnorm::Relu{}, {})));

      const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -2, 2, 5);
      const LeakySum<T> sum{{residual.data(), shape}, {0.25}};
      EXPECT_TRUE(same_bits(prepared(layer, call, sum, {}), operated(call, sum, {})));

      auto in_place = call.x;
      layer({in_place.data(), shape}, {in_place.data(), shape});
      EXPECT_TRUE(same_bits(in_place, operated(call, batchnorm::Identity{}, {})));

      auto into_residual = residual;
      layer({call.x.data(), shape}, {into_residual.data(), shape}, LeakySum<T>{{into_residual.data(), shape}, {0.25}});
      EXPECT_TRUE(same_bits(into_residual, operated(call, sum, {})));
    }
  }
}

TEST(PreparedInference, TakesSlices) {
  for (const Format format : formats) {
    const Sizes sizes{3, 6, 12};
    const Shape shape = shape_of(format, 4, sizes);
    const auto call = ordinary_call<float, float>(shape, format, false);
    const auto want = operated(call, batchnorm::Identity{}, {});
    const PreparedInference<float> layer(format, parameters_of(call), call.options.epsilon, shape);
    for (const Layout& layout : {channel_slice(format, sizes), padded_pictures(shape, format)}) {
      const auto x = scattered(call.x, shape, layout);
      std::vector<float> y(x.size(), 0);
      layer({x.data() + layout.first, shape, layout.strides}, {y.data() + layout.first, shape, layout.strides});
      for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { EXPECT_EQ(y[place], want[i]); });
    }
  }
}

TEST(PreparedInference, TakesOtherShapesThanTheOneItWasPreparedFor) {
  const auto call = ordinary_call<float, float>({2, 5, 2, 2}, Format::NCHW, false);
  const PreparedInference<float> layer(Format::NCHW, parameters_of(call), call.options.epsilon, call.shape);
  for (const Shape& shape : {Shape{3, 5}, Shape{1, 5, 3}, Shape{2, 5, 2, 2}, Shape{1, 5, 40, 40}}) {
    auto other = ordinary_call<float, float>(shape, Format::NCHW, false);
    other.scale = call.scale, other.bias = call.bias, other.mean = call.mean, other.variance = call.variance;
    EXPECT_TRUE(same_bits(prepared(layer, other, batchnorm::Identity{}, {}), operated(other, batchnorm::Identity{}, {})));
  }
}

TEST(PreparedInference, IsRefreshed) {
  auto call = ordinary_call<float, float>({4, 9, 5}, Format::NCHW, false);
  PreparedInference<float> layer(Format::NCHW, parameters_of(call), 1e-3, call.shape);
  const PreparedInference<float> before = layer;
  const auto old = prepared(before, call, batchnorm::Identity{}, {});
  call.options.epsilon = 1e-3;
  call.scale.reset(), call.mean = uniform<float>(9, -3, 3, 8), call.variance = uniform<float>(9, 0.5, 4, 9);
  layer.refresh(parameters_of(call));
  EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Identity{}, {}), operated(call, batchnorm::Identity{}, {})));
  EXPECT_TRUE(same_bits(prepared(before, call, batchnorm::Identity{}, {}), old));  // a copy stays as it is
  EXPECT_EQ(layer.channels(), 9);
  EXPECT_EQ(layer.epsilon(), 1e-3);
  EXPECT_EQ(layer.format(), Format::NCHW);
}

TEST(PreparedInference, HasNoChannelsOnceItWasMovedFrom) {
  const auto call = ordinary_call<float, float>({4, 9, 5}, Format::NCHW, false);
  PreparedInference<float> layer(Format::NCHW, parameters_of(call), call.options.epsilon);
  PreparedInference<float> moved = std::move(layer);
  EXPECT_TRUE(same_bits(prepared(moved, call, batchnorm::Identity{}, {}), operated(call, batchnorm::Identity{}, {})));
  EXPECT_EQ(layer.channels(), 0);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(message_of<ShapeError>([&] { prepared(layer, call, batchnorm::Identity{}, {}); }),
            "batchnorm::PreparedInference: x has 9 channels, expected C = 0 (x is [4, 9, 5], NCHW)");
  EXPECT_EQ(message_of<ShapeError>([&] { layer.refresh(parameters_of(call)); }),
            "batchnorm::PreparedInference: mean has 9 elements, expected C = 0");
  layer = moved;
  EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Identity{}, {}), operated(call, batchnorm::Identity{}, {})));
}

TEST(PreparedInference, StaysAsItWasWhereARefreshFails) {
  const auto call = ordinary_call<float, float>({4, 9, 5}, Format::NCHW, false);
  PreparedInference<float> layer(Format::NCHW, parameters_of(call));
  const auto before = prepared(layer, call, batchnorm::Identity{}, {});
  const std::vector<float> two(2);
  EXPECT_EQ(message_of<ShapeError>([&] { layer.refresh({.mean = view(call.mean), .variance = two}); }),
            "batchnorm::PreparedInference: variance has 2 elements, expected C = 9");
  EXPECT_TRUE(same_bits(prepared(layer, call, batchnorm::Identity{}, {}), before));
}

TEST(PreparedInference, HasNoChannelsOrNoBatch) {
  const std::vector<float> none, three(3, 1);
  const PreparedInference<float> empty(Format::NCHW, {.mean = none, .variance = none}, 1e-5, Shape{2, 0, 3});
  float value = 5;
  empty({&value, Shape{2, 0, 3}}, {&value, Shape{2, 0, 3}});
  const PreparedInference<float> layer(Format::NHWC, {.mean = three, .variance = three}, 1e-5, Shape{0, 4, 3});
  layer({&value, Shape{0, 4, 3}}, {&value, Shape{0, 4, 3}});
  EXPECT_EQ(value, 5);
}

TEST(PreparedInference, SaysWhatIsWrongWithItsParameters) {
  const std::vector<float> four(4, 1), five(5, 1);
  const auto made = [&](const batchnorm::InferenceParameters<float>& parameters, double epsilon = 1e-5,
                        const Shape& shape = {}) {
    return [=] { PreparedInference<float>(Format::NCHW, parameters, epsilon, shape); };
  };
  const std::string name = "batchnorm::PreparedInference: ";
  EXPECT_EQ(message_of<ValueError>(made({.variance = four})), name + "mean is absent, inference normalises with it");
  EXPECT_EQ(message_of<ValueError>(made({.mean = four})), name + "variance is absent, inference normalises with it");
  EXPECT_EQ(message_of<ValueError>(made({.variance = four}, 1e-5, {2, 4, 3})),
            name + "mean is absent, inference normalises with it");
  for (const std::int64_t many : {std::int64_t{1} << 62, std::int64_t{INT64_MAX}, (std::int64_t{1} << 53) + 1}) {
    EXPECT_EQ(message_of<ShapeError>(made({.mean = {four.data(), Shape{many}}, .variance = {four.data(), Shape{many}}})),
              name + "mean has more than 2^53 elements or channels");
  }
  EXPECT_EQ(message_of<ShapeError>(made({.mean = four, .variance = four}, 1e-5, {std::int64_t{1} << 52, 4, 1})),
            name + "x has more than 2^53 elements or channels");
  EXPECT_EQ(message_of<ShapeError>(made({.scale = five, .mean = four, .variance = four})),
            name + "scale has 5 elements, expected C = 4");
  EXPECT_EQ(message_of<ShapeError>(made({.mean = {four.data(), Shape{2, 2}}, .variance = four})),
            name + "mean has shape [2, 2], expected [C] = [4]");
  EXPECT_EQ(message_of<ValueError>(made({.mean = {nullptr, Shape{4}}, .variance = four})),
            name + "mean has a null pointer for its data, its shape is [4]");
  EXPECT_EQ(message_of<ValueError>(made({.mean = four, .variance = four}, 0)), name + "epsilon is 0, it must be in (0, 1]");
  EXPECT_EQ(message_of<ShapeError>(made({.mean = four, .variance = four}, 1e-5, {2, 5, 3})),
            name + "shape has 5 channels, expected C = 4");
  EXPECT_EQ(message_of<ShapeError>(made({.mean = four, .variance = four}, 1e-5, {4})),
            name + "shape has rank 1, expected 2 to 5");
  EXPECT_EQ(message_of<ShapeError>(made({.mean = four, .variance = four}, 1e-5, {2, 4, -1})),
            name + "x has a negative extent, its shape is [2, 4, -1]");
}

TEST(PreparedInference, SaysWhatIsWrongWithACall) {
  const std::vector<float> four(4, 1);
  const PreparedInference<float> layer(Format::NCHW, {.mean = four, .variance = four});
  std::vector<float> x(64), y(64, 7);
  const std::string name = "batchnorm::PreparedInference: ";
  const auto call = [&](TensorView<const float> from, TensorView<float> to) { return [=] { layer(from, to); }; };
  EXPECT_EQ(message_of<ShapeError>(call({x.data(), Shape{2, 5, 3}}, {y.data(), Shape{2, 5, 3}})),
            name + "x has 5 channels, expected C = 4 (x is [2, 5, 3], NCHW)");
  EXPECT_EQ(message_of<ShapeError>(call({x.data(), Shape{2, 4, 3}}, {y.data(), Shape{2, 4, 2}})),
            name + "output_x has shape [2, 4, 2], expected the shape of x (x is [2, 4, 3], NCHW)");
  EXPECT_EQ(message_of<ValueError>(call({x.data(), Shape{2, 4, 3}}, {x.data() + 1, Shape{2, 4, 3}})),
            name + "output_x overlaps x; allowed is only output_x in place of x or of the residual, with the same strides");
  EXPECT_EQ(message_of<ValueError>(call({nullptr, Shape{2, 4, 3}}, {y.data(), Shape{2, 4, 3}})),
            name + "x has a null pointer for its data, its shape is [2, 4, 3]");
  EXPECT_EQ(message_of<ValueError>(call(nullptr, {y.data(), Shape{2, 4, 3}})), name + "x is absent");
  const std::int64_t many = std::int64_t{1} << 52;
  EXPECT_EQ(message_of<ShapeError>(call({x.data(), Shape{many, 4}}, {y.data(), Shape{many, 4}})),
            name + "x has more than 2^53 elements or channels (x is [4503599627370496, 4], NCHW)");
  EXPECT_TRUE(std::ranges::all_of(y, [](float value) { return value == 7; }));
}

TEST(PreparedInference, FindsTheGeometryOfDenseTensors) {
  Random random(3);
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::int64_t> extents(static_cast<std::size_t>(random.integer(2, 5)));
    for (std::int64_t& extent : extents) extent = std::max<std::int64_t>(1, random.integer(-1, 4));
    const Shape shape(extents);
    const Format format = formats[random.integer(0, 1)];
    const auto want = batchnorm::cpu::geometry_of(shape, batchnorm::dense_strides(shape), format);
    const auto got = batchnorm::cpu::dense_geometry(shape, batchnorm::element_count(shape), format);
    ASSERT_TRUE(want.has_value());
    ASSERT_EQ(std::tuple(got.channels_last, got.n, got.c, got.s, got.run, got.rows, got.in_mask),
              std::tuple(want->channels_last, want->n, want->c, want->s, want->run, want->rows, want->in_mask))
        << to_string(shape) << " " << to_string(format);
    ASSERT_EQ(batchnorm::cpu::dense_pitch(got),
              *batchnorm::cpu::pitch_in(*want, shape, batchnorm::dense_strides(shape), format));
  }
}

}  // namespace
