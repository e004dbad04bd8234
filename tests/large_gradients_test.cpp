// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/gradient_calls.hpp"
#include "support/tunings.hpp"

// Gradients of tensors large enough for every path, and by tunings that reach them with small ones: every path keeps the
// promise, with the same bits.
namespace {

using namespace support;
using batchnorm::CallOptions;

// About 300,000 elements each: long planes, split planes, short planes, column form, rows of many, of few and of an odd number
// of channels; and shapes whose planes never start at a border of a cache line.
constexpr Sizes large_sizes[] = {{3, 33, 3136}, {2, 3, 50021},  {16, 96, 196},  {64, 101, 49}, {7, 1021, 49}, {70, 251, 17},
                                 {9, 33, 1001}, {301, 1023, 1}, {20000, 16, 1}, {40009, 7, 1}, {9, 129, 225}};

template <class Both>
class LargeGradients : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>,
                                    Types<batchnorm::bfloat16, float>>;
TYPED_TEST_SUITE(LargeGradients, ElementTypes, TypesNames);

/// body(shape, format, is_training) for every shape above in both formats, training and inference.
template <class Body>
void for_each_form(Body&& body) {
  for (const Sizes& sizes : large_sizes) {
    for (const Format format : formats) {
      if (sizes.s == 1 && format == Format::NHWC) continue;  // the same as NCHW then
      for (const bool is_training : {true, false}) {
        const Shape shape = shape_of(format, 3, sizes);
        SCOPED_TRACE(text_of(shape, format, is_training));
        body(shape, format, is_training);
      }
    }
  }
}

TYPED_TEST(LargeGradients, EveryPathKeepsThePromiseWithTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  batchnorm::ThreadTeam team(3);
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
    const std::int64_t channels = call.extents().c;
    std::vector<std::pair<std::int64_t, ChannelGradients>> samples;
    for (const std::int64_t c : {std::int64_t{0}, channels / 2, channels - 1}) samples.emplace_back(c, expected(call, c));
    for_each_isa([&](Isa isa) {
      const auto want = run(call);
      GradientErrors worst;
      for (const auto& [c, sample] : samples) note_errors(worst, call, want, sample, c, isa);
      expect_kept(worst);
      std::size_t offset = 0;
      for (const auto& [name, tuning] : all) {
        const auto got = run(call, {.executor = &team, .tuning = &tuning}, {offset % 3, offset % 4, (offset + 2) % 5});
        EXPECT_TRUE(same(got, want)) << name;
        ++offset;
      }
    });
  });
}

TYPED_TEST(LargeGradients, DxInThePlaceOfDyHasTheSameBitsOnEveryPath) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  batchnorm::ThreadTeam team(3);
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
    const auto want = run(call);
    for (const auto& [name, tuning] : all) {
      Guarded<T> both(std::span<const T>(call.dy), 1);
      std::vector<P> dscale(call.mean.size()), dbias(call.mean.size());
      batchnorm::batch_norm_backward<T, P>(format, call.options, {both.data(), shape}, call.x_view(), view(call.scale),
                                           call.mean, call.variance, {{both.data(), shape}, dscale, dbias},
                                           batchnorm::Identity{}, {.executor = &team, .tuning = &tuning});
      EXPECT_TRUE(same_bits(both.values(), want.dx) && both.guards_intact()) << name;
      EXPECT_TRUE(same_bits(dscale, want.dscale) && same_bits(dbias, want.dbias)) << name;
    }
  });
}

/// All gradients through a mask, the residual's in place of dy.
template <class T, class P>
struct MaskedResult {
  GradientResult<T, P> of;
  std::vector<T> dresidual;
};

TYPED_TEST(LargeGradients, ThroughAMaskHaveTheSameBitsOnEveryPath) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_gradient_call<T, P>(shape, format, is_training);
    Random random(71);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(batchnorm::mask_bytes(shape)));
    for (auto& byte : bits) byte = static_cast<std::uint8_t>(random.bits());
    const auto through_mask = [&](const CallOptions& options) {
      MaskedResult<T, P> result{
          {std::vector<T>(call.x.size()), std::vector<P>(call.mean.size()), std::vector<P>(call.mean.size())}, call.dy};
      T* const dy = result.dresidual.data();
      batchnorm::batch_norm_backward<T, P>(
          format, call.options, {dy, shape}, call.x_view(), view(call.scale), call.mean, call.variance,
          {{result.of.dx.data(), shape}, result.of.dscale, result.of.dbias, {dy, shape}}, ThroughReluMask{bits}, options);
      return result;
    };
    const auto want = through_mask({});
    for (const auto& [name, tuning] : all) {
      const auto got = through_mask({.tuning = &tuning});
      EXPECT_TRUE(same(got.of, want.of)) << name;
      EXPECT_TRUE(same_bits(got.dresidual, want.dresidual)) << name;
    }
    for (std::size_t i = 0; i < call.dy.size(); ++i) {
      const T dz = (bits[i / 8] >> i % 8 & 1) != 0 ? call.dy[i] : element<T>(0);
      ASSERT_EQ(std::memcmp(&want.dresidual[i], &dz, sizeof(T)), 0) << i;
    }
  });
}

TYPED_TEST(LargeGradients, MaskOfTheForwardPassHasTheSameBitsOnEveryPath) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_call<T, P>(shape, format, is_training);
    const auto masked = [&](const CallOptions& options) {
      std::pair<std::vector<T>, std::vector<std::uint8_t>> result{
          std::vector<T>(call.x.size()),
          std::vector<std::uint8_t>(static_cast<std::size_t>(batchnorm::mask_bytes(shape)), 0xFF)};
      auto mean = *call.mean, variance = *call.variance;
      batchnorm::batch_norm<T, P>(format, call.options, {call.x.data(), shape}, view(call.scale), view(call.bias), mean,
                                  variance, {.output_x = {result.first.data(), shape}, .mask = result.second},
                                  batchnorm::Relu{}, options);
      return result;
    };
    const auto want = masked({});
    for (const auto& [name, tuning] : all) {
      const auto got = masked({.tuning = &tuning});
      EXPECT_TRUE(same_bits(got.first, want.first) && same_bits(got.second, want.second)) << name;
    }
    for (std::size_t i = 0; i < call.x.size(); ++i) {
      ASSERT_EQ((want.second[i / 8] >> i % 8 & 1) != 0, real(want.first[i]) > 0) << i;
    }
  });
}

TYPED_TEST(LargeGradients, OfTheSecondOrderHaveTheSameBitsOnEveryPath) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  batchnorm::ThreadTeam team(3);
  for_each_form([&](const Shape& shape, Format format, bool is_training) {
    const auto call = ordinary_double_gradient_call<T, P>(shape, format, is_training);
    const auto want = run(call);
    std::size_t offset = 0;
    for (const auto& [name, tuning] : all) {
      EXPECT_TRUE(same(run(call, {.executor = &team, .tuning = &tuning}, {offset % 3, offset % 4, (offset + 2) % 5}), want))
          << name;
      ++offset;
    }
  });
}

}  // namespace
