// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <sys/mman.h>

#include "support/calls.hpp"
#include "support/tunings.hpp"

// Tensors large enough for every path (groups of channels, column form, row blocks, streaming stores, reversed sweeps,
// threads), and tunings that reach them with tensors small enough for a test. Tuning changes the time, never a bit of the
// result.
namespace {

using namespace support;
using batchnorm::CallOptions;

// About 300,000 elements each: long planes, split planes, short planes, column form, rows of many, of few and of an odd number
// of channels; and shapes whose planes never start at a border of a cache line.
constexpr Sizes large_sizes[] = {{3, 33, 3136}, {2, 3, 50021},  {16, 96, 196},  {64, 101, 49}, {7, 1021, 49}, {70, 251, 17},
                                 {9, 33, 1001}, {301, 1023, 1}, {20000, 16, 1}, {40009, 7, 1}, {9, 129, 225}};

/// The oracle on channels first, in the middle and last, against the library's result.
template <class T, class P>
void expect_promise_on_samples(const Call<T, P>& call, const Result<T, P>& result, Isa isa) {
  const Extents e = call.extents();
  for (const std::int64_t channel : {std::int64_t{0}, e.c / 2, e.c - 1}) {
    const auto i = static_cast<std::size_t>(channel);
    Call<T, P> one{{e.n, 1, e.s}, Format::NCHW, call.options};
    Result<T, P> part;
    for (std::int64_t j = 0; j < e.n * e.s; ++j) {
      one.x.push_back(call.x[e.index(j / e.s, channel, j % e.s)]);
      part.y.push_back(result.y[e.index(j / e.s, channel, j % e.s)]);
    }
    const auto pick = [&](const std::vector<P>& all) { return std::vector<P>{all[i]}; };
    one.scale = pick(*call.scale), one.bias = pick(*call.bias), one.mean = pick(*call.mean),
    one.variance = pick(*call.variance);
    part.batch_mean = pick(result.batch_mean), part.batch_variance = pick(result.batch_variance);
    part.mean = pick(result.mean), part.variance = pick(result.variance);
    SCOPED_TRACE("channel " + std::to_string(channel));
    expect_kept(errors(one, part, expected(one), isa));
  }
}

template <class T, class P>
bool same(const Result<T, P>& a, const Result<T, P>& b) {
  return same_bits(a.y, b.y) && same_bits(a.batch_mean, b.batch_mean) && same_bits(a.batch_variance, b.batch_variance) &&
         same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance);
}

template <class Both>
class Large : public testing::Test {};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>,
                                    Types<batchnorm::bfloat16, float>>;
TYPED_TEST_SUITE(Large, ElementTypes, TypesNames);

template <class Both, class Body>
void for_each_call(Body&& body) {
  for (const Sizes& sizes : large_sizes) {
    for (const Format format : formats) {
      if (sizes.s == 1 && format == Format::NHWC) continue;  // the same as NCHW then
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_call<typename Both::T, typename Both::P>(shape_of(format, 3, sizes), format, is_training);
        SCOPED_TRACE(to_string(call.shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference"));
        body(call);
      }
    }
  }
}

TYPED_TEST(Large, EveryPathKeepsThePromiseWithTheSameBits) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  batchnorm::ThreadTeam team(3);
  for_each_call<TypeParam>([&](const Call<T, P>& call) {
    for_each_isa([&](Isa isa) {
      const auto want = run(call);
      expect_promise_on_samples(call, want, isa);
      std::size_t offset = 0;
      for (const auto& [name, tuning] : all) {
        const auto got = run(call, {.executor = &team, .tuning = &tuning}, offset % 4, (offset + 2) % 5);
        EXPECT_TRUE(same(got, want)) << name;
        ++offset;
      }
    });
  });
}

TYPED_TEST(Large, OutputOnItsInputHasTheSameBitsOnEveryPath) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  batchnorm::ThreadTeam team(3);
  for_each_call<TypeParam>([&](const Call<T, P>& call) {
    const auto want = run(call);
    for (const auto& [name, tuning] : all) {
      Guarded<T> both(std::span<const T>(call.x), 1);
      auto mean = *call.mean, variance = *call.variance;
      batchnorm::batch_norm<T, P>(call.format, call.options, {both.data(), call.shape}, view(call.scale), view(call.bias), mean,
                                  variance, {{both.data(), call.shape}}, batchnorm::Identity{},
                                  {.executor = &team, .tuning = &tuning});
      EXPECT_TRUE(same_bits(both.values(), want.y)) << name;
      EXPECT_TRUE(same_bits(mean, want.mean) && both.guards_intact()) << name;
    }
  });
}

TYPED_TEST(Large, ResidualHasTheSameBitsOnEveryPath) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  const auto all = tunings();
  for_each_call<TypeParam>([&](const Call<T, P>& call) {
    const auto residual = uniform<T>(static_cast<std::int64_t>(call.x.size()), -3, 3, 31);
    const auto y_with = [&](const CallOptions& options) {
      Guarded<T> y(call.x.size(), 1, element<T>(unwritten));
      auto mean = *call.mean, variance = *call.variance;
      batchnorm::batch_norm<T, P>(call.format, call.options, {call.x.data(), call.shape}, view(call.scale), view(call.bias),
                                  mean, variance, {{y.data(), call.shape}}, LeakySum<T>{{residual.data(), call.shape}, {0.25}},
                                  options);
      EXPECT_TRUE(y.guards_intact());
      return std::vector<T>(y.values().begin(), y.values().end());
    };
    const auto want = y_with({});
    for (const auto& [name, tuning] : all) EXPECT_TRUE(same_bits(y_with({.tuning = &tuning}), want)) << name;
  });
}

// Two images more than 2^31 elements apart: address space, of which only the images themselves are ever touched.
TEST(LargeStrides, BeyondTwoToThe31ElementsAreFollowed) {
  using T = batchnorm::bfloat16;
  const std::int64_t apart = (std::int64_t{1} << 31) + 12345;
  const auto bytes = static_cast<std::size_t>(apart + 4096) * sizeof(T);
  void* const memory = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no 8 GB of address space: " << std::strerror(errno);
  T* const x = static_cast<T*>(memory);
  T* const y = x + bytes / sizeof(T);
  const auto call = ordinary_call<T, float>({2, 3, 40}, Format::NCHW, true);
  std::copy_n(call.x.begin(), 120, x);
  std::copy_n(call.x.begin() + 120, 120, x + apart);
  for_each_isa([&](Isa) {
    const auto want = run(call);
    auto mean = *call.mean, variance = *call.variance;
    batchnorm::batch_norm<T, float>(call.format, call.options, {x, call.shape, {apart, 40, 1}}, view(call.scale),
                                    view(call.bias), mean, variance, {{y, call.shape, {apart, 40, 1}}});
    EXPECT_TRUE(same_bits(std::span(y, 120), std::span(want.y).first(120)));
    EXPECT_TRUE(same_bits(std::span(y + apart, 120), std::span(want.y).last(120)));
    EXPECT_TRUE(same_bits(mean, want.mean));
  });
  munmap(memory, 2 * bytes);
}

}  // namespace
