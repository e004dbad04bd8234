// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <memory>

#include "support/c_calls.hpp"
#include "support/layouts.hpp"

// Inference that was prepared through the C interface: the bits of the C++ operator, and what is refused.
namespace {

using namespace support;

struct Destroy {
  void operator()(batchnorm_prepared* prepared) const { batchnorm_destroy_prepared(prepared); }
};
using Prepared = std::unique_ptr<batchnorm_prepared, Destroy>;

/// The parameters of a call, and the shape where it is to be known.
template <class T, class P>
batchnorm_prepare_arguments arguments_of(const Call<T, P>& call, bool shape_is_known) {
  batchnorm_prepare_arguments arguments = batchnorm_no_prepare_arguments();
  set_types_and_shape<T, P>(arguments, call.shape, call.format);
  if (!shape_is_known) arguments.rank = 0, arguments.shape = nullptr;
  arguments.scale = c_vector(call.scale);
  arguments.bias = c_vector(call.bias);
  arguments.mean = c_vector(call.mean);
  arguments.variance = c_vector(call.variance);
  arguments.epsilon = call.options.epsilon;
  return arguments;
}

Prepared prepared(const batchnorm_prepare_arguments& arguments) {
  batchnorm_prepared* result = nullptr;
  EXPECT_EQ(c_error(batchnorm_prepare(&arguments, &result)), "");
  return Prepared(result);
}

template <class T, class P>
batchnorm_infer_arguments inference_of(const Call<T, P>& call, std::vector<T>& y) {
  batchnorm_infer_arguments arguments = batchnorm_no_infer_arguments();
  arguments.rank = call.shape.rank();
  arguments.shape = call.shape.extents().data();
  arguments.x = c_tensor(call.x);
  arguments.output_x = c_tensor(y);
  return arguments;
}

template <class Both>
class CInterfacePrepared : public testing::Test {};
TYPED_TEST_SUITE(CInterfacePrepared, EveryTypes, TypesNames);

TYPED_TEST(CInterfacePrepared, HasTheBitsOfTheTemplate) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for (const int rank : {2, 3, 4, 5}) {
    for (const Format format : formats) {
      for (const std::int64_t s : rank == 2 ? std::vector<std::int64_t>{1} : std::vector<std::int64_t>{4, 30}) {
        const auto call = ordinary_call<T, P>(shape_of(format, rank, 6, 19, s), format, false);
        SCOPED_TRACE(to_string(call.shape));
        const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -2, 2, 5);
        const batchnorm::TensorView<const T> added(residual.data(), call.shape);
        for (const bool shape_is_known : {false, true}) {
          const Prepared layer = prepared(arguments_of(call, shape_is_known));
          std::vector<T> y(call.x.size());
          batchnorm_infer_arguments arguments = inference_of(call, y);
          const auto expect = [&](const auto& epilogue) {
            std::fill(y.begin(), y.end(), element<T>(unwritten));
            EXPECT_EQ(c_error(batchnorm_infer(layer.get(), &arguments)), "");
            EXPECT_TRUE(same_bits(y, operated(call, epilogue)));
          };
          expect(batchnorm::Identity{});
          arguments.activation = BATCHNORM_RELU;
          expect(batchnorm::Relu{});
          arguments.residual = c_tensor(residual);
          expect(batchnorm::AddResidual<T, batchnorm::Relu>{added, {}});
          arguments.activation = BATCHNORM_LEAKY_RELU, arguments.slope = 0.25;
          expect(LeakySum<T>{added, {0.25}});
          arguments.activation = BATCHNORM_NO_ACTIVATION, arguments.slope = 0;
          expect(batchnorm::AddResidual<T, batchnorm::Identity>{added, {}});
        }
      }
    }
  }
}

TEST(CInterfacePreparedCalls, TakesSlicesAndATeamAndWorksInPlace) {
  const Sizes sizes{3, 6, 12};
  batchnorm_thread_team* team = nullptr;
  ASSERT_EQ(c_error(batchnorm_create_thread_team(2, &team)), "");
  for (const Format format : formats) {
    const Shape shape = shape_of(format, 4, sizes);
    const auto call = ordinary_call<float, float>(shape, format, false);
    const auto want = operated(call, batchnorm::Identity{});
    const Prepared layer = prepared(arguments_of(call, true));
    const Layout layout = channel_slice(format, sizes);
    auto memory = scattered(call.x, shape, layout);
    const std::span<const std::int64_t> strides(layout.strides.data(), 4);
    batchnorm_infer_arguments arguments = batchnorm_no_infer_arguments();
    arguments.rank = 4;
    arguments.shape = shape.extents().data();
    arguments.output_x = c_tensor(memory, layout.first, strides);
    arguments.x = c_tensor(std::as_const(memory), layout.first, strides);
    arguments.team = team;
    EXPECT_EQ(c_error(batchnorm_infer(layer.get(), &arguments)), "");
    for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { EXPECT_EQ(memory[place], want[i]); });
  }
  batchnorm_destroy_thread_team(team);
}

TEST(CInterfacePreparedCalls, KeepsNothingOfTheVectorsAndIsRefreshed) {
  auto call = ordinary_call<float, float>({4, 9, 5}, Format::NCHW, false);
  std::vector<float> y(call.x.size());
  const batchnorm_infer_arguments inference = inference_of(call, y);
  Prepared layer;
  {
    const auto other = call;
    layer = prepared(arguments_of(other, false));
  }
  EXPECT_EQ(c_error(batchnorm_infer(layer.get(), &inference)), "");
  EXPECT_TRUE(same_bits(y, operated(call, batchnorm::Identity{})));
  call.scale.reset(), call.mean = uniform<float>(9, -3, 3, 8), call.variance = uniform<float>(9, 0.5, 4, 9);
  const batchnorm_prepare_arguments arguments = arguments_of(call, false);
  EXPECT_EQ(c_error(batchnorm_refresh(layer.get(), &arguments)), "");
  EXPECT_EQ(c_error(batchnorm_infer(layer.get(), &inference)), "");
  EXPECT_TRUE(same_bits(y, operated(call, batchnorm::Identity{})));
}

TEST(CInterfacePreparedCalls, HasNoChannels) {
  const std::int64_t shape[] = {2, 0};
  batchnorm_prepare_arguments arguments = batchnorm_no_prepare_arguments();
  arguments.type = BATCHNORM_FLOAT;
  const Prepared layer = prepared(arguments);
  batchnorm_infer_arguments inference = batchnorm_no_infer_arguments();
  inference.rank = 2, inference.shape = shape;
  EXPECT_EQ(c_error(batchnorm_infer(layer.get(), &inference)), "");
}

/// What is refused of a call that is right but for one thing.
struct Refusals {
  Call<float, float> call = ordinary_call<float, float>({2, 3, 4}, Format::NCHW, false);
  std::vector<float> y = std::vector<float>(call.x.size(), 7);
  Prepared layer = prepared(arguments_of(call, false));

  template <class Spoil>
  std::string of_prepare(Spoil spoil) const {
    batchnorm_prepare_arguments arguments = arguments_of(call, true);
    spoil(arguments);
    batchnorm_prepared* result = nullptr;
    const std::string error = c_error(batchnorm_prepare(&arguments, &result));
    EXPECT_EQ(result, nullptr);
    return error;
  }
  template <class Spoil>
  std::string of_refresh(Spoil spoil) const {
    batchnorm_prepare_arguments arguments = arguments_of(call, false);
    spoil(arguments);
    return c_error(batchnorm_refresh(layer.get(), &arguments));
  }
  template <class Spoil>
  std::string of_infer(Spoil spoil) {
    batchnorm_infer_arguments arguments = inference_of(call, y);
    spoil(arguments);
    const std::string error = c_error(batchnorm_infer(layer.get(), &arguments));
    EXPECT_TRUE(std::ranges::all_of(y, [](float value) { return value == 7; })) << "something was written";
    return error;
  }
};

TEST(CInterfacePreparedErrors, OfPreparing) {
  const Refusals refusals;
  const auto of = [&](auto spoil) { return refusals.of_prepare(spoil); };
  EXPECT_EQ(of([](auto& a) { a.mean = {}; }), "2: batchnorm::PreparedInference: mean is absent, inference normalises with it");
  EXPECT_EQ(of([](auto& a) { a.variance.length = 2; }),
            "1: batchnorm::PreparedInference: variance has 2 elements, expected C = 3");
  EXPECT_EQ(of([](auto& a) { a.epsilon = 0; }), "2: batchnorm::PreparedInference: epsilon is 0, it must be in (0, 1]");
  EXPECT_EQ(of([](auto& a) { a.format = 2; }), "2: batchnorm_prepare: format is 2, known are 0 (NCHW), 1 (NHWC)");
  EXPECT_EQ(of([](auto& a) { a.rank = 1; }), "1: batchnorm_prepare: rank is 1, expected 2 to 5");
  EXPECT_EQ(of([](auto& a) { a.shape = nullptr; }), "2: batchnorm_prepare: shape is NULL");
  EXPECT_EQ(of([](auto& a) { a.format = BATCHNORM_NHWC; }),
            "1: batchnorm::PreparedInference: shape has 4 channels, expected C = 3");
  EXPECT_EQ(of([](auto& a) { a.type = BATCHNORM_DOUBLE; }),
            "2: batchnorm_prepare: parameter_type float does not go with type double");
  EXPECT_EQ(of([](auto& a) { a.struct_size = 8; }),
            "2: batchnorm_prepare: prepare_arguments has struct_size 8, expected at least 104: set it to "
            "sizeof(batchnorm_prepare_arguments)");
  const batchnorm_prepare_arguments arguments = batchnorm_no_prepare_arguments();
  EXPECT_EQ(c_error(batchnorm_prepare(&arguments, nullptr)), "2: batchnorm_prepare: prepared is NULL");
  batchnorm_prepared* result = nullptr;
  EXPECT_EQ(c_error(batchnorm_prepare(nullptr, &result)), "2: batchnorm_prepare: prepare_arguments is NULL");
  batchnorm_destroy_prepared(nullptr);
}

TEST(CInterfacePreparedErrors, OfRefreshing) {
  const Refusals refusals;
  const auto of = [&](auto spoil) { return refusals.of_refresh(spoil); };
  EXPECT_EQ(of([](auto& a) { a.format = BATCHNORM_NHWC; }), "2: batchnorm_refresh: format is NHWC, it was prepared with NCHW");
  EXPECT_EQ(of([](auto& a) { a.type = BATCHNORM_HALF; }), "2: batchnorm_refresh: type is half, it was prepared with float");
  EXPECT_EQ(of([](auto& a) { a.parameter_type = BATCHNORM_HALF; }),
            "2: batchnorm_refresh: parameter_type is half, it was prepared with float");
  EXPECT_EQ(of([](auto& a) { a.mean.length = 2; }), "1: batchnorm::PreparedInference: mean has 2 elements, expected C = 3");
  const batchnorm_prepare_arguments arguments = batchnorm_no_prepare_arguments();
  EXPECT_EQ(c_error(batchnorm_refresh(nullptr, &arguments)), "2: batchnorm_refresh: prepared is NULL");
}

TEST(CInterfacePreparedErrors, OfInference) {
  Refusals refusals;
  const auto of = [&](auto spoil) { return refusals.of_infer(spoil); };
  EXPECT_EQ(of([](auto& a) { a.activation = 3; }),
            "2: batchnorm_infer: activation is 3, known are 0 (none), 1 (ReLU), 2 (leaky ReLU)");
  EXPECT_EQ(of([](auto& a) { a.activation = BATCHNORM_RELU, a.slope = 0.1; }),
            "2: batchnorm_infer: slope is not 0, it is that of leaky ReLU alone");
  EXPECT_EQ(of([](auto& a) { a.x.length = 23; }),
            "1: batchnorm_infer: x.length is 23, expected at least 24 for the shape [2, 3, 4] with strides [12, 4, 1]");
  EXPECT_EQ(of([](auto& a) { a.output_x = {}; }),
            "2: batchnorm::PreparedInference: output_x has a null pointer for its data, its shape is [2, 3, 4]");
  EXPECT_EQ(of([](auto& a) {
              static const std::int64_t shape[] = {2, 2, 6};
              a.shape = shape;
            }),
            "1: batchnorm::PreparedInference: x has 2 channels, expected C = 3 (x is [2, 2, 6], NCHW)");
  const batchnorm_infer_arguments arguments = batchnorm_no_infer_arguments();
  EXPECT_EQ(c_error(batchnorm_infer(nullptr, &arguments)), "2: batchnorm_infer: prepared is NULL");
}

TEST(CInterfacePreparedVersions, LayoutIsThatOfTheFirstVersion) {
  EXPECT_EQ(sizeof(batchnorm_prepare_arguments), 104U);
  EXPECT_EQ(offsetof(batchnorm_prepare_arguments, shape), 24U);
  EXPECT_EQ(offsetof(batchnorm_prepare_arguments, mean), 64U);
  EXPECT_EQ(offsetof(batchnorm_prepare_arguments, epsilon), 96U);
  EXPECT_EQ(sizeof(batchnorm_infer_arguments), 160U);
  EXPECT_EQ(offsetof(batchnorm_infer_arguments, activation), 12U);
  EXPECT_EQ(offsetof(batchnorm_infer_arguments, residual), 64U);
  EXPECT_EQ(offsetof(batchnorm_infer_arguments, slope), 144U);
}

}  // namespace
