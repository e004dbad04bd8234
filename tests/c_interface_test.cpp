// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <span>
#include <utility>

#include "support/c_calls.hpp"
#include "support/layouts.hpp"

// The C interface gives the bits of the C++ interface, whatever is asked of it.
namespace {

using namespace support;
using support::same;

/// Equality bit by bit.
template <class T, class P>
testing::AssertionResult same(const Result<T, P>& got, const Result<T, P>& want) {
  return without(difference("y", got.y, want.y) + difference("batch_mean", got.batch_mean, want.batch_mean) +
                 difference("batch_variance", got.batch_variance, want.batch_variance) +
                 difference("reserve_space_1", got.reserve_space_1, want.reserve_space_1) +
                 difference("reserve_space_2", got.reserve_space_2, want.reserve_space_2) +
                 difference("mean", got.mean, want.mean) + difference("variance", got.variance, want.variance));
}

/// body(shape, format, is_training) for every rank, format and mode.
template <class Body>
void for_each_kind(Body&& body) {
  for (const int rank : {2, 3, 4, 5}) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const Shape shape = shape_of(format, rank, 6, 19, rank == 2 ? 1 : 30);
        SCOPED_TRACE(to_string(shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(shape, format, is_training);
      }
    }
  }
}

/// for_each_isa, in the shared library as well, which has a choice of its own.
template <class Body>
void for_each_isa_of_both(Body&& body) {
  const char* before = nullptr;
  ASSERT_EQ(c_error(batchnorm_active_isa(&before)), "");
  for_each_isa([&](Isa isa) {
    const char* active = nullptr;
    ASSERT_EQ(c_error(batchnorm_force_isa(to_string(isa).data())), "");
    ASSERT_EQ(c_error(batchnorm_active_isa(&active)), "");
    ASSERT_EQ(active, to_string(isa));
    body();
  });
  ASSERT_EQ(c_error(batchnorm_force_isa(before)), "");
}

template <class Both>
class CInterfaceOf : public testing::Test {};
TYPED_TEST_SUITE(CInterfaceOf, EveryTypes, TypesNames);

TYPED_TEST(CInterfaceOf, ForwardHasTheBitsOfTheTemplate) {
  for_each_isa_of_both([] {
    for_each_kind([](const Shape& shape, Format format, bool is_training) {
      const auto call = ordinary_call<typename TypeParam::T, typename TypeParam::P>(shape, format, is_training);
      EXPECT_TRUE(same(run_in_c(call), run(call)));
    });
  });
}

TYPED_TEST(CInterfaceOf, BackwardHasTheBitsOfTheTemplate) {
  for_each_isa_of_both([] {
    for_each_kind([](const Shape& shape, Format format, bool is_training) {
      const auto call = ordinary_gradient_call<typename TypeParam::T, typename TypeParam::P>(shape, format, is_training);
      EXPECT_TRUE(same(run_in_c(call), run(call)));
    });
  });
}

TYPED_TEST(CInterfaceOf, DoubleBackwardHasTheBitsOfTheTemplate) {
  for_each_isa_of_both([] {
    for_each_kind([](const Shape& shape, Format format, bool is_training) {
      const auto call = ordinary_double_gradient_call<typename TypeParam::T, typename TypeParam::P>(shape, format, is_training);
      EXPECT_TRUE(same(run_in_c(call), run(call)));
    });
  });
}

TYPED_TEST(CInterfaceOf, AbsentInputsAreAbsent) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_kind([](const Shape& shape, Format format, bool is_training) {
    auto call = ordinary_call<T, P>(shape, format, is_training);
    call.scale.reset();
    EXPECT_TRUE(same(run_in_c(call), run(call))) << "without scale";
    call.bias.reset();
    if (is_training) call.mean.reset(), call.variance.reset();
    EXPECT_TRUE(same(run_in_c(call), run(call))) << "without all that may be absent";
    auto gradient = ordinary_gradient_call<T, P>(shape, format, is_training);
    gradient.scale.reset();
    EXPECT_TRUE(same(run_in_c(gradient), run(gradient)));
    auto twice = ordinary_double_gradient_call<T, P>(shape, format, is_training);
    twice.of.scale.reset();
    twice.ddscale.reset();
    twice.ddbias.reset();
    EXPECT_TRUE(same(run_in_c(twice), run(twice))) << "without vectors";
    twice.ddx.reset();
    EXPECT_TRUE(same(run_in_c(twice), run(twice))) << "without ddx";
  });
}

/// A call that asks for y alone, with running statistics and a y of its own.
template <class T, class P>
batchnorm_forward_arguments arguments_for_y(const Call<T, P>& call, std::vector<P>& mean, std::vector<P>& variance,
                                            std::vector<T>& y) {
  batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();
  set_types_and_shape<T, P>(arguments, call.shape, call.format);
  arguments.x = c_tensor(call.x);
  arguments.scale = c_vector(*call.scale);
  arguments.bias = c_vector(*call.bias);
  arguments.mean = c_vector(mean);
  arguments.variance = c_vector(variance);
  arguments.output_x = c_tensor(y);
  return arguments;
}

TEST(CInterface, DefaultParametersAreThoseOfTheTemplate) {
  const auto single = ordinary_call<batchnorm::bfloat16, float>(Shape{4, 3, 5}, Format::NCHW, false);
  const auto twofold = ordinary_call<double, double>(Shape{4, 3, 5}, Format::NCHW, false);
  const auto y_by_default = [](const auto& call) {
    auto y = call.x;
    auto mean = *call.mean, variance = *call.variance;
    batchnorm_forward_arguments arguments = arguments_for_y(call, mean, variance, y);
    arguments.parameter_type = BATCHNORM_DEFAULT_PARAMETERS;
    EXPECT_EQ(c_error(batchnorm_forward(nullptr, &arguments)), "");
    return y;
  };
  EXPECT_TRUE(same_bits(y_by_default(single), run(single).y));
  EXPECT_TRUE(same_bits(y_by_default(twofold), run(twofold).y));
}

TEST(CInterface, OutputsThatAreNotAskedForStayAsTheyAre) {
  const auto call = ordinary_double_gradient_call<float, float>(Shape{4, 3, 5}, Format::NCHW, true);
  const auto want = run(call.of);
  const batchnorm_options options = c_options(call.of.options);
  batchnorm_backward_arguments arguments = batchnorm_no_backward_arguments();
  set_types_and_shape<float, float>(arguments, call.of.shape, call.of.format);
  arguments.dy = c_tensor(call.of.dy);
  arguments.x = c_tensor(call.of.x);
  arguments.scale = c_vector(*call.of.scale);
  arguments.mean = c_vector(call.of.mean);
  arguments.variance = c_vector(call.of.variance);
  EXPECT_EQ(c_error(batchnorm_backward(&options, &arguments)), "");
  std::vector<float> dbias(3, 777.0F);
  arguments.dbias = c_vector(dbias);
  EXPECT_EQ(c_error(batchnorm_backward(&options, &arguments)), "");
  EXPECT_TRUE(same_bits(dbias, want.dbias));
  batchnorm_double_backward_arguments twice = batchnorm_no_double_backward_arguments();
  set_types_and_shape<float, float>(twice, call.of.shape, call.of.format);
  twice.x = c_tensor(call.of.x);
  twice.dy = c_tensor(call.of.dy);
  twice.scale = c_vector(*call.of.scale);
  twice.mean = c_vector(call.of.mean);
  twice.variance = c_vector(call.of.variance);
  twice.ddx = c_tensor(*call.ddx);
  std::vector<float> dscale(3, 777.0F);
  twice.dscale = c_vector(dscale);
  EXPECT_EQ(c_error(batchnorm_double_backward(&options, &twice)), "");
  EXPECT_TRUE(same_bits(dscale, run(call).dscale));
}

/// The strides of a tensor of rank 4.
std::span<const std::int64_t> strides_in(const Layout& layout) { return std::span(layout.strides).first(4); }

TEST(CInterface, StridesReachASlice) {
  for (const Format format : formats) {
    for (const bool is_training : {true, false}) {
      const Sizes sizes{3, 5, 28};
      const auto call = ordinary_call<float, float>(shape_of(format, 4, sizes), format, is_training);
      const Layout slice = channel_slice(format, sizes);
      std::vector<float> x = scattered(call.x, call.shape, slice);
      std::vector<float> y = scattered(std::vector<float>(x.size(), 777.0F), call.shape, slice);
      auto mean = *call.mean, variance = *call.variance;
      batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();
      set_types_and_shape<float, float>(arguments, call.shape, format);
      arguments.x = c_tensor(std::as_const(x), slice.first, strides_in(slice));
      arguments.output_x = c_tensor(y, slice.first, strides_in(slice));
      arguments.scale = c_vector(*call.scale);
      arguments.bias = c_vector(*call.bias);
      arguments.mean = c_vector(mean);
      arguments.variance = c_vector(variance);
      const batchnorm_options options = c_options(call.options);
      ASSERT_EQ(c_error(batchnorm_forward(&options, &arguments)), "");

      std::vector<float> want = scattered(std::vector<float>(x.size(), 777.0F), call.shape, slice);
      auto mean_2 = *call.mean, variance_2 = *call.variance;
      batchnorm::batch_norm<float>(format, call.options, {x.data() + slice.first, call.shape, slice.strides}, view(call.scale),
                                   view(call.bias), mean_2, variance_2,
                                   {.output_x = {want.data() + slice.first, call.shape, slice.strides}});
      EXPECT_TRUE(same_bits(y, want) && same_bits(mean, mean_2) && same_bits(variance, variance_2));
    }
  }
}

// Three tensors of the gradients, each with strides of its own.
TEST(CInterface, EachTensorHasStridesOfItsOwn) {
  const Sizes sizes{3, 5, 28};
  const auto call = ordinary_double_gradient_call<float, float>(shape_of(Format::NCHW, 4, sizes), Format::NCHW, true);
  const Shape& shape = call.of.shape;
  const Layout slice = channel_slice(Format::NCHW, sizes);
  const batchnorm_options options = c_options(call.of.options);
  const auto sliced = [&](const std::vector<float>& values) { return scattered(values, shape, slice); };
  const std::vector<float> dy = sliced(call.of.dy), ddx = sliced(*call.ddx);
  std::vector<float> dx(call.of.x.size()), ddy = sliced(std::vector<float>(dx.size()));

  batchnorm_backward_arguments once = batchnorm_no_backward_arguments();
  set_types_and_shape<float, float>(once, shape, Format::NCHW);
  once.dy = c_tensor(dy, slice.first, strides_in(slice));
  once.x = c_tensor(call.of.x);
  once.scale = c_vector(*call.of.scale);
  once.mean = c_vector(call.of.mean);
  once.variance = c_vector(call.of.variance);
  once.dx = c_tensor(dx);
  ASSERT_EQ(c_error(batchnorm_backward(&options, &once)), "");
  EXPECT_TRUE(same_bits(dx, run(call.of).dx));

  batchnorm_double_backward_arguments twice = batchnorm_no_double_backward_arguments();
  set_types_and_shape<float, float>(twice, shape, Format::NCHW);
  twice.x = c_tensor(call.of.x);
  twice.dy = c_tensor(dy, slice.first, strides_in(slice));
  twice.ddx = c_tensor(ddx, slice.first, strides_in(slice));
  twice.scale = c_vector(*call.of.scale);
  twice.mean = c_vector(call.of.mean);
  twice.variance = c_vector(call.of.variance);
  twice.ddscale = c_vector(*call.ddscale);
  twice.ddbias = c_vector(*call.ddbias);
  twice.dx = c_tensor(dx);
  twice.ddy = c_tensor(ddy, slice.first, strides_in(slice));
  ASSERT_EQ(c_error(batchnorm_double_backward(&options, &twice)), "");
  EXPECT_TRUE(same_bits(dx, run(call).dx));
  EXPECT_TRUE(same_bits(ddy, sliced(run(call).ddy)));
}

TEST(CInterface, EveryOptionReachesTheOperator) {
  auto call = ordinary_call<float, float>(Shape{4, 3, 5}, Format::NCHW, true);
  call.x[7] = std::numeric_limits<float>::infinity();
  for (const auto running_variance : {batchnorm::RunningVariance::unbiased, batchnorm::RunningVariance::biased}) {
    for (const auto not_finite : {batchnorm::NotFinite::update, batchnorm::NotFinite::keep}) {
      call.options = {true, 0.01, 0.3, running_variance, not_finite};
      EXPECT_TRUE(same(run_in_c(call), run(call)));
    }
  }
}

TEST(CInterface, BatchNumberAveragesAllBatches) {
  const auto call = ordinary_call<float, float>(Shape{4, 3, 5}, Format::NCHW, true);
  auto mean = *call.mean, variance = *call.variance, y = call.x;
  batchnorm_options options = c_options(call.options);
  options.batch_number = 3;
  const batchnorm_forward_arguments arguments = arguments_for_y(call, mean, variance, y);
  ASSERT_EQ(c_error(batchnorm_forward(&options, &arguments)), "");
  const auto want = run(call, {.batch_number = 3});
  EXPECT_TRUE(same_bits(mean, want.mean) && same_bits(variance, want.variance));
}

TEST(CInterface, ThreadTeamGivesTheSameBits) {
  const auto call = ordinary_call<float, float>(Shape{16, 40, 50, 50}, Format::NCHW, true);
  const auto gradient = ordinary_gradient_call<float, float>(Shape{16, 40, 50, 50}, Format::NCHW, true);
  for (const std::int32_t concurrency : {1, 3}) {
    batchnorm_thread_team* team = nullptr;
    ASSERT_EQ(c_error(batchnorm_create_thread_team(concurrency, &team)), "");
    EXPECT_TRUE(same(run_in_c(call, team), run(call)));
    EXPECT_TRUE(same(run_in_c(gradient, team), run(gradient)));
    batchnorm_destroy_thread_team(team);
  }
  batchnorm_destroy_thread_team(nullptr);
}

TEST(CInterface, EmptyTensorsNeedNoAddress) {
  std::vector<float> mean{1, 2, 3}, variance{4, 5, 6}, batch_mean(3, 777.0F);
  const std::int64_t no_batch[] = {0, 3, 2}, no_channels[] = {2, 0, 2};
  batchnorm_options options = batchnorm_default_options();
  options.is_training = 1;
  batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();
  arguments.type = BATCHNORM_FLOAT;
  arguments.rank = 3;
  arguments.shape = no_batch;
  arguments.mean = c_vector(mean);
  arguments.variance = c_vector(variance);
  arguments.batch_mean = c_vector(batch_mean);
  EXPECT_EQ(c_error(batchnorm_forward(&options, &arguments)), "");
  EXPECT_EQ(batch_mean, std::vector<float>(3, 0.0F));
  EXPECT_EQ(mean, (std::vector<float>{1, 2, 3}));
  arguments = batchnorm_no_forward_arguments();
  arguments.type = BATCHNORM_FLOAT;
  arguments.rank = 3;
  arguments.shape = no_channels;
  for (const int is_training : {0, 1}) {
    options.is_training = is_training;
    EXPECT_EQ(c_error(batchnorm_forward(&options, &arguments)), "");
  }
}

}  // namespace
