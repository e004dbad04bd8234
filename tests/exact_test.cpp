// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/calls.hpp"

// Data whose sums are exact in any order: small integers, as many as a power of two. Statistics must then be the exact numbers,
// bit by bit, on every instruction set and in every layout.
namespace {

using namespace support;

/// Pairs mean + d, mean - d of integers, shuffled: the mean of channel c is 2 c - 3, the variance the mean of d * d.
struct ExactChannel {
  std::vector<int> values;
  double mean = 0, variance = 0;
};

ExactChannel exact_channel(std::int64_t m, std::int64_t c) {
  Random random(static_cast<std::uint64_t>(c) + 17);
  ExactChannel channel;
  channel.mean = static_cast<double>(2 * (c % 7) - 3);
  std::int64_t squares = 0;
  for (std::int64_t i = 0; i < m / 2; ++i) {
    const int d = static_cast<int>(random.integer(0, 8));
    squares += 2 * d * d;
    channel.values.push_back(static_cast<int>(channel.mean) + d);
    channel.values.push_back(static_cast<int>(channel.mean) - d);
  }
  for (std::size_t i = channel.values.size(); i > 1; --i) {
    std::swap(channel.values[i - 1],
              channel.values[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(i) - 1))]);
  }
  channel.variance = static_cast<double>(squares) / static_cast<double>(m);
  return channel;
}

template <class T, class P>
struct ExactCall {
  Call<T, P> call;
  std::vector<P> mean, variance;
};

template <class T, class P>
ExactCall<T, P> exact_call(Format format, const Sizes& sizes) {
  const auto [n, c, s] = sizes;
  ExactCall<T, P> exact{{shape_of(format, 3, sizes), format, {.is_training = true}}, {}, {}};
  const Extents e = exact.call.extents();
  exact.call.x.resize(static_cast<std::size_t>(n * c * s));
  for (std::int64_t channel = 0; channel < c; ++channel) {
    const ExactChannel values = exact_channel(n * s, channel);
    for (std::int64_t i = 0; i < n * s; ++i) {
      exact.call.x[e.index(i / s, channel, i % s)] = element<T>(values.values[static_cast<std::size_t>(i)]);
    }
    exact.mean.push_back(element<P>(values.mean));
    exact.variance.push_back(element<P>(values.variance));
  }
  exact.call.scale = uniform<P>(c, -2, 2, 3);
  exact.call.bias = uniform<P>(c, -1, 1, 4);
  return exact;
}

/// The dense values of an NHWC tensor in the order of NCHW.
template <class T>
std::vector<T> to_nchw(const std::vector<T>& values, const Extents& nhwc) {
  Extents nchw = nhwc;
  nchw.format = Format::NCHW;
  std::vector<T> result(values.size());
  for (std::int64_t n = 0; n < nhwc.n; ++n) {
    for (std::int64_t c = 0; c < nhwc.c; ++c) {
      for (std::int64_t s = 0; s < nhwc.s; ++s) result[nchw.index(n, c, s)] = values[nhwc.index(n, c, s)];
    }
  }
  return result;
}

// One block of statistics each: all counts are powers of two, nothing is ever rounded.
constexpr Sizes one_block[] = {{2, 3, 1}, {16, 33, 1}, {2, 5, 32}, {8, 17, 16}, {4, 4, 128}, {32, 7, 32}};

// Several blocks of counts that are powers of two: merging them divides by other numbers too, and rounds where the type of the
// statistics cannot see it (float sums in double, double merges in double-double).
constexpr Sizes several_blocks[] = {{32, 7, 64}, {1, 3, 4096}, {4, 64, 256}, {2, 2, 16384}, {1024, 9, 64}};

/// body(sizes) for all of them.
template <class Body>
void for_each_power_of_two(Body&& body) {
  for (const Sizes& sizes : one_block) body(sizes);
  for (const Sizes& sizes : several_blocks) body(sizes);
}

template <class Both>
class Exact : public testing::Test {};
TYPED_TEST_SUITE(Exact, EveryTypes, TypesNames);

TYPED_TEST(Exact, StatisticsAreTheExactNumbersOnEveryInstructionSet) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  for_each_power_of_two([](const Sizes& sizes) {
    for (const Format format : formats) {
      const auto exact = exact_call<T, P>(format, sizes);
      SCOPED_TRACE(to_string(exact.call.shape) + " " + std::string(to_string(format)));
      for_each_isa([&](Isa) {
        const auto result = run(exact.call);
        EXPECT_TRUE(same_bits(result.batch_mean, exact.mean));
        EXPECT_TRUE(same_bits(result.batch_variance, exact.variance));
      });
    }
  });
}

TYPED_TEST(Exact, OutputIsTheSameInBothFormats) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto compare = [](const Sizes& sizes) {
    const auto nchw = exact_call<T, P>(Format::NCHW, sizes);
    const auto nhwc = exact_call<T, P>(Format::NHWC, sizes);
    SCOPED_TRACE(to_string(nchw.call.shape));
    ASSERT_TRUE(same_bits(to_nchw(nhwc.call.x, nhwc.call.extents()), nchw.call.x));
    for_each_isa([&](Isa) { EXPECT_TRUE(same_bits(to_nchw(run(nhwc.call).y, nhwc.call.extents()), run(nchw.call).y)); });
  };
  for (const Sizes& sizes : one_block) compare(sizes);
  // y of double shows what the pair that holds the mean has rounded in its second half.
  if (std::is_same_v<T, double>) return;
  for (const Sizes& sizes : several_blocks) compare(sizes);
}

/// Whole-tensor pieces, one set of moments per element type.
template <class T>
class ExactMoments : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(ExactMoments, ElementTypes);

TYPED_TEST(ExactMoments, AreTheExactNumbers) {
  for (const Sizes& sizes : one_block) {
    for (const Format format : formats) {
      const auto exact = exact_call<TypeParam, batchnorm::parameter_t<TypeParam>>(format, sizes);
      SCOPED_TRACE(to_string(exact.call.shape) + " " + std::string(to_string(format)));
      for_each_isa([&](Isa) {
        const batchnorm::Moments got = batchnorm::moments<TypeParam>({exact.call.x.data(), exact.call.shape}, format);
        EXPECT_EQ(got.count, sizes.n * sizes.s);
        for (std::size_t i = 0; i < exact.mean.size(); ++i) {
          ASSERT_EQ(got.mean[i], static_cast<double>(exact.mean[i]));
          ASSERT_EQ(got.mean_low[i], 0);
          ASSERT_EQ(got.variance(static_cast<std::int64_t>(i)), static_cast<double>(exact.variance[i]));
        }
      });
    }
  }
}

// m is not a power of two, but every deviation is a * (+1 or -1), so that mean and variance are small integers. Merging blocks
// divides by their counts and may leave a rounding of double, which float cannot see.
TYPED_TEST(Exact, StatisticsOfFloatAreExactForAnyEvenCount) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  if constexpr (!std::is_same_v<T, double>) {
    for (const Sizes& sizes : std::initializer_list<Sizes>{
             {2, 3, 7}, {6, 33, 1}, {10, 17, 49}, {3, 5, 1022}, {1, 2, 8194}, {2, 3, 10007}, {998, 5, 13}, {14, 259, 3}}) {
      for (const Format format : formats) {
        Call<T, P> call{shape_of(format, 3, sizes), format, {.is_training = true}};
        const Extents e = call.extents();
        call.x.resize(static_cast<std::size_t>(e.n * e.c * e.s));
        for (std::int64_t i = 0; i < e.n * e.s; ++i) {
          for (std::int64_t channel = 0; channel < e.c; ++channel) {
            const std::int64_t sign = i % 2 == 0 ? 1 : -1, a = channel % 5;
            call.x[e.index(i / e.s, channel, i % e.s)] = element<T>(static_cast<double>(7 + sign * a));
          }
        }
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)));
        for_each_isa([&](Isa) {
          const auto result = run(call);
          for (std::int64_t channel = 0; channel < e.c; ++channel) {
            const auto i = static_cast<std::size_t>(channel);
            const double a = static_cast<double>(channel % 5);
            ASSERT_EQ(real(result.batch_mean[i]), 7);
            ASSERT_EQ(real(result.batch_variance[i]), a * a);
          }
        });
      }
    }
  }
}

}  // namespace
