// SPDX-License-Identifier: MIT
#include <batchnorm/in_place.hpp>

#include "failing_allocations.hpp"
#include "support/gradient_calls.hpp"
#include "support/tunings.hpp"

// Every allocation of every call on tensors fails once.
namespace {

using namespace support;
using batchnorm::CallOptions;
using batchnorm::TensorView;
using fuzz::bytes_of;
using fuzz::expect_failures_harmless;
using fuzz::Subject;

/// The tensors of a call and its results. Many channels and small groups: each kind of temporary memory is used.
struct Tensors {
  Shape shape;
  Format format;
  GradientCall<float, float> of = ordinary_gradient_call<float, float>(shape, format, true);
  std::vector<float> bias = uniform<float>(of.extents().c, -1, 1, 3);
  std::vector<float> running_mean = bias, running_variance = *of.scale;
  std::vector<float> y = of.x, dx = of.x, ddy = of.x;
  std::vector<float> batch_mean = bias, batch_variance = bias, dscale = bias, dbias = bias;
  std::vector<std::uint8_t> mask = std::vector<std::uint8_t>((of.x.size() + 7) / 8);

  Tensors(const Shape& s, Format f) : shape(s), format(f) {
    for (float& scale : *of.scale) scale = scale < 0 ? scale - 1 : scale + 1;  // in place, they must be away from 0
  }

  TensorView<float> tensor(std::vector<float>& values) const { return {values.data(), shape}; }
  std::string state() const {
    return bytes_of(y) + bytes_of(dx) + bytes_of(ddy) + bytes_of(batch_mean) + bytes_of(batch_variance) + bytes_of(dscale) +
           bytes_of(dbias) + bytes_of(mask) + bytes_of(running_mean) + bytes_of(running_variance) + bytes_of(of.x) +
           bytes_of(of.dy);
  }
};

/// Small tensors on several threads and in groups.
const CallOptions& options() {
  static const batchnorm::Tuning tuning = split_always();
  static batchnorm::ThreadTeam team(3);
  static const CallOptions options{.executor = &team, .tuning = &tuning};
  return options;
}

/// call(tensors) for both layouts, in training and in inference where `modes` is 2.
void expect_harmless(const std::function<void(Tensors&)>& call, int modes = 2, int least_allocations = 1) {
  for (const auto& form : {std::pair(Shape{3, 37, 5, 7}, Format::NCHW), std::pair(Shape{40, 3, 67}, Format::NHWC)}) {
    for (int mode = 0; mode < modes; ++mode) {
      SCOPED_TRACE(text_of(form.first, form.second, mode == 0));
      const auto make = [&] {
        auto tensors = std::make_shared<Tensors>(form.first, form.second);
        tensors->of.options.is_training = mode == 0;
        return Subject{[tensors, &call] { call(*tensors); }, [tensors] { return tensors->state(); }};
      };
      expect_failures_harmless(make, least_allocations);
    }
  }
}

TEST(FailedAllocation, OfTheOperatorLeavesOutputsAndRunningStatistics) {
  expect_harmless([](Tensors& t) {
    batchnorm::batch_norm<float, float>(
        t.format, t.of.options, t.of.x_view(), *t.of.scale, t.bias, t.running_mean, t.running_variance,
        {.output_x = t.tensor(t.y), .batch_mean = t.batch_mean, .batch_variance = t.batch_variance}, batchnorm::Identity{},
        options());
  });
  expect_harmless([](Tensors& t) {
    batchnorm::batch_norm<float, float>(t.format, t.of.options, t.of.x_view(), *t.of.scale, t.bias, t.running_mean,
                                        t.running_variance, {.output_x = t.tensor(t.of.x), .mask = t.mask}, batchnorm::Relu{},
                                        options());
  });
}

TEST(FailedAllocation, OfTheOperatorThatReturnsItsOutputsLeavesRunningStatistics) {
  const auto call = [](const auto& norm, Tensors& t) {
    const auto out =
        norm(t.of.x_view(), *t.of.scale, t.bias, t.running_mean, t.running_variance, batchnorm::Identity{}, options());
    std::ranges::copy(out.output_x, t.y.begin());
  };
  expect_harmless(
      [&](Tensors& t) {
        if (t.format == Format::NCHW) return call(batchnorm::BatchNorm<float, Format::NCHW>(true), t);
        call(batchnorm::BatchNorm<float, Format::NHWC>(true), t);
      },
      1, 5);
}

TEST(FailedAllocation, OfNormalizeLeavesItsOutput) {
  expect_harmless(
      [](Tensors& t) {
        batchnorm::normalize<float, float>(t.format,
                                           {.x = t.of.x_view(),
                                            .scale = *t.of.scale,
                                            .bias = t.bias,
                                            .mean = t.running_mean,
                                            .variance = TensorView<const float>(t.running_variance)},
                                           1e-5, t.tensor(t.y), {}, options());
      },
      1);
}

/// A layer of the tensors' parameters, prepared for no shape.
batchnorm::PreparedInference<float> prepared(const Tensors& t, const Shape& shape = {}) {
  return batchnorm::PreparedInference<float>(
      t.format, {.scale = *t.of.scale, .bias = t.bias, .mean = t.running_mean, .variance = t.running_variance}, 1e-5, shape);
}

TEST(FailedAllocation, OfAPreparedInferenceOfShortPlanesLeavesItsOutput) {
  const Shape shape{3, 37, 3};
  expect_failures_harmless(
      [&] {
        auto tensors = std::make_shared<Tensors>(shape, Format::NCHW);
        return Subject{[tensors, layer = prepared(*tensors)] {
                         layer(tensors->of.x_view(), tensors->tensor(tensors->y), batchnorm::Identity{}, options());
                       },
                       [tensors] { return tensors->state(); }};
      },
      1);
}

// The implicit assignment of a class with tensors as members was noexcept, so that a failure ended the program.
TEST(FailedAllocation, OfAssignedParametersIsCaught) {
  static_assert(!std::is_nothrow_copy_assignable_v<batchnorm::Parameters<float>>);
  static_assert(!std::is_nothrow_copy_assignable_v<batchnorm::Outputs<float, float>>);
  static_assert(!std::is_nothrow_copy_assignable_v<batchnorm::PreparedInference<float>>);
  static_assert(std::is_nothrow_move_assignable_v<batchnorm::Parameters<float>>);
  static_assert(std::is_nothrow_move_assignable_v<batchnorm::PreparedInference<float>>);
  batchnorm::Parameters<float> layer(3);
  const batchnorm::Parameters<float> larger(900);
  EXPECT_EQ(with_each_allocation_failing([&] { layer = larger; }, [](long) {}), 4);
  EXPECT_EQ(layer.channels(), 900);
}

TEST(FailedAllocation, OfAnAssignedPreparedInferenceLeavesIt) {
  const Tensors small({3, 5, 4}, Format::NCHW), large({3, 900, 4}, Format::NCHW);
  const auto assigned = prepared(large);
  auto layer = prepared(small);
  std::vector<float> want(small.of.x.size()), got(want.size());
  layer(small.of.x_view(), {want.data(), small.shape});
  const long failures = with_each_allocation_failing([&] { layer = assigned; },
                                                     [&](long) {
                                                       EXPECT_EQ(layer.channels(), 5);
                                                       layer(small.of.x_view(), {got.data(), small.shape});
                                                       EXPECT_EQ(bytes_of(got), bytes_of(want));
                                                     });
  EXPECT_EQ(failures, 1);
  EXPECT_EQ(layer.channels(), 900);
}

TEST(PreparedInference, AllocatesNothing) {
  for (const auto& [shape, format] : {std::pair(Shape{7, 1}, Format::NCHW), std::pair(Shape{2, 3, 1}, Format::NHWC),
                                      std::pair(Shape{1, 8}, Format::NCHW), std::pair(Shape{3, 37, 5, 7}, Format::NCHW),
                                      std::pair(Shape{3, 37, 3}, Format::NCHW), std::pair(Shape{40, 3, 67}, Format::NHWC)}) {
    Tensors t(shape, format);
    const batchnorm::PreparedInference<float> layer = prepared(t, shape);
    const auto call = [&] { layer(t.of.x_view(), t.tensor(t.y), batchnorm::Identity{}, options()); };
    call();  // the threads of the team begin
    const AllocationPeak peak;
    call();
    EXPECT_EQ(peak.bytes(), 0U) << to_string(shape);
  }
}

TEST(FailedAllocation, OfMomentsMergeAndFinalizeLeavesWhatTheyWrite) {
  expect_harmless(
      [](Tensors& t) {
        auto moments = batchnorm::moments<float>(t.of.x_view(), t.format, options());
        batchnorm::merge(moments, batchnorm::moments<float>(t.of.dy_view(), t.format, options()));
        batchnorm::finalize<float>(moments, t.of.options, {t.batch_mean, t.batch_variance, t.running_mean, t.running_variance},
                                   options());
      },
      1, 7);
  // With moments that exist, normalize allocates as well.
  expect_harmless(
      [](Tensors& t) {
        const auto moments = batchnorm::moments<float>(t.of.x_view(), t.format, options());
        batchnorm::normalize<float, float>(t.format,
                                           {.x = t.of.x_view(), .scale = TensorView<const float>(*t.of.scale), .bias = t.bias},
                                           moments, 1e-5, t.tensor(t.y), {}, options());
      },
      1, 5);
}

TEST(FailedAllocation, OfTheGradientLeavesItsOutputs) {
  const auto out = [](Tensors& t) { return batchnorm::GradientViews<float, float>{t.tensor(t.dx), t.dscale, t.dbias, {}}; };
  expect_harmless([&](Tensors& t) {
    batchnorm::batch_norm_backward<float, float>(t.format, t.of.options, t.of.dy_view(), t.of.x_view(), *t.of.scale, t.of.mean,
                                                 t.of.variance, out(t), batchnorm::Identity{}, options());
  });
  expect_harmless([&](Tensors& t) {
    batchnorm::batch_norm_backward<float, float>(t.format, t.of.options, t.of.dy_view(), t.of.x_view(), *t.of.scale, t.of.mean,
                                                 t.of.variance, out(t), ThroughReluMask{t.mask, {}}, options());
  });
}

TEST(FailedAllocation, OfTheGradientThatReturnsItsOutputsLeaksNothing) {
  expect_harmless(
      [](Tensors& t) {
        const auto copy = [&](const auto& out) { std::ranges::copy(out.dx, t.dx.begin()); };
        const auto backward = [&](const auto& norm) {
          copy(norm.backward(
              {.dy = t.of.dy_view(), .x = t.of.x_view(), .scale = *t.of.scale, .mean = t.of.mean, .variance = t.of.variance},
              batchnorm::Identity{}, options()));
        };
        if (t.format == Format::NCHW) return backward(batchnorm::BatchNorm<float, Format::NCHW>(true));
        backward(batchnorm::BatchNorm<float, Format::NHWC>(true));
      },
      1, 4);
}

TEST(FailedAllocation, OfGradientSumsAndInputGradientLeavesTheirOutputs) {
  expect_harmless(
      [](Tensors& t) {
        const TensorView<const float> mean(t.of.mean);
        auto sums = batchnorm::gradient_sums<float, float>(t.format, {.dy = t.of.dy_view(), .x = t.of.x_view(), .mean = mean},
                                                           {}, options());
        batchnorm::merge(sums, batchnorm::gradient_sums<float, float>(
                                   t.format, {.dy = t.of.dy_view(), .x = t.of.x_view(), .mean = mean}, {}, options()));
        batchnorm::input_gradient<float, float>(
            t.format, {.dy = t.of.dy_view(), .x = t.of.x_view(), .scale = *t.of.scale, .mean = mean, .variance = t.of.variance},
            sums, 1e-5, {t.tensor(t.dx), t.dscale, t.dbias, {}}, {}, options());
      },
      1, 7);
  expect_harmless(
      [](Tensors& t) {
        const auto moments = batchnorm::moments<float>(t.of.x_view(), t.format, options());
        const auto sums = batchnorm::gradient_sums<float>(t.format, {.dy = t.of.dy_view(), .x = t.of.x_view()}, moments,
                                                          batchnorm::Identity{}, options());
        batchnorm::input_gradient<float, float>(
            t.format, {.dy = t.of.dy_view(), .x = t.of.x_view(), .scale = TensorView<const float>(*t.of.scale)}, sums, moments,
            1e-5, {t.tensor(t.dx), t.dscale, t.dbias, {}}, {}, options());
      },
      1, 7);
}

TEST(FailedAllocation, OfTheDoubleGradientLeavesItsOutputs) {
  for (const bool has_ddx : {true, false}) {
    expect_harmless([&](Tensors& t) {
      const TensorView<const float> ddx = has_ddx ? TensorView<const float>(t.y.data(), t.shape) : TensorView<const float>();
      batchnorm::batch_norm_double_backward<float, float>(t.format, t.of.options,
                                                          {.dy = t.of.dy_view(),
                                                           .x = t.of.x_view(),
                                                           .scale = *t.of.scale,
                                                           .mean = t.of.mean,
                                                           .variance = t.of.variance,
                                                           .ddx = ddx,
                                                           .ddscale = t.bias,
                                                           .ddbias = t.bias},
                                                          {t.tensor(t.dx), t.tensor(t.ddy), t.dscale}, options());
    });
  }
}

TEST(FailedAllocation, OfTheInPlaceFormsLeavesX) {
  const auto forward = [](const auto& layer, Tensors& t) {
    layer.forward({.x = t.tensor(t.of.x),
                   .scale = *t.of.scale,
                   .bias = t.bias,
                   .mean = t.running_mean,
                   .variance = t.running_variance,
                   .batch_mean = t.batch_mean,
                   .batch_variance = t.batch_variance},
                  options());
  };
  const auto backward = [](const auto& layer, Tensors& t) {
    layer.backward({.dy = t.of.dy_view(), .y = t.of.x_view(), .scale = *t.of.scale, .bias = t.bias, .variance = t.of.variance},
                   {t.tensor(t.of.dy), t.dscale, t.dbias, {}}, options());
  };
  const auto with_layer = [](const auto& call) {
    return [&call](Tensors& t) {
      if (t.format == Format::NCHW) return call(batchnorm::InPlaceBatchNorm<float, Format::NCHW>(), t);
      call(batchnorm::InPlaceBatchNorm<float, Format::NHWC>(), t);
    };
  };
  expect_harmless(with_layer(forward), 1);
  expect_harmless(with_layer(backward), 1);
}

TEST(FailedAllocation, OfFoldingLeavesTheLayer) {
  expect_harmless(
      [](Tensors& t) {
        const auto channels = t.of.extents().c;
        const auto map = batchnorm::affine_map<float>(
            {.scale = *t.of.scale, .bias = t.bias, .mean = t.of.mean, .variance = TensorView<const float>(t.of.variance)},
            1e-5);
        const TensorView<float> weights(t.of.x.data(), Shape{channels, 3, 5});
        batchnorm::fold_after<float>(weights, t.bias, map, {weights, t.dbias});
      },
      1, 2);
  expect_harmless(
      [](Tensors& t) {
        const auto channels = t.of.extents().c;
        const auto map = batchnorm::affine_map<float>(
            {.scale = *t.of.scale, .bias = t.bias, .mean = t.of.mean, .variance = TensorView<const float>(t.of.variance)},
            1e-5);
        const TensorView<const float> weights(t.of.x.data(), Shape{channels, channels});
        const auto before = batchnorm::fold_before<float>(weights, t.bias, map);
        const auto after = batchnorm::fold_after_transposed<float>(weights, t.bias, map);
        std::ranges::copy(before.weights, t.y.begin());
        std::ranges::copy(after.weights, t.dx.begin());
      },
      1, 6);
}

TEST(FailedAllocation, OfATensorOrATeamLeaksNothing) {
  const auto none = [] { return std::string(); };
  expect_failures_harmless(
      [&] {
        return Subject{[] {
                         const batchnorm::Tensor<float> tensor(Shape{3, 4});
                         batchnorm::Tensor<float> copy = tensor, other(Shape{2});
                         other = copy;
                       },
                       none};
      },
      4);
  expect_failures_harmless([&] { return Subject{[] { const batchnorm::ThreadTeam team(4); }, none}; });
}

// The first call that needs the default team makes it: here, where each test is a process of its own.
TEST(FailedAllocation, OfTheDefaultTeamIsForgotten) {
  batchnorm::Tensor<float> x(Shape{2, 3, 4}), y(x.shape());
  const std::vector<float> mean(3), variance(3, 1);
  for (std::int64_t number = 1, failures = 1; failures > 0; ++number) {
    ASSERT_LT(number, 100) << "the call does not succeed";
    try {
      const support::FailingAllocation failing(number);
      batchnorm::normalize<float, float>(
          Format::NCHW, {.x = x.view(), .mean = mean, .variance = TensorView<const float>(variance)}, 1e-5, y, {});
    } catch (const std::bad_alloc&) {
    }
    failures = support::FailingAllocation::has_failed() ? 1 : 0;
  }
  EXPECT_EQ(y[5], 0.0F);
}

}  // namespace
