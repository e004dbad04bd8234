// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cfenv>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "support/executors.hpp"
#include "support/gradient_calls.hpp"
#include "support/tunings.hpp"

// Results do not depend on the floating-point mode of the caller or of the executor's threads, and every thread keeps its own.
namespace {

using namespace support;
using batchnorm::CallOptions;
using batchnorm::Executor;
using batchnorm::ThreadTeam;

/// What a thread may have set.
struct Mode {
  const char* name;
  int rounding = FE_TONEAREST;
  bool flushes = false;  ///< subnormal numbers to 0, read and written

  void set() const {
    std::fesetround(rounding);
#if defined(__x86_64__)
    constexpr unsigned flush = 0x8040;
    _mm_setcsr(flushes ? _mm_getcsr() | flush : _mm_getcsr() & ~flush);
#endif
  }
};

constexpr Mode modes[] = {{"usual"},
                          {"upward", FE_UPWARD},
                          {"downward", FE_DOWNWARD},
                          {"towards 0", FE_TOWARDZERO},
                          {"flushes subnormal numbers", FE_TONEAREST, true}};

/// The control and the flags of this thread.
unsigned state_of_thread() {
#if defined(__x86_64__)
  return _mm_getcsr();
#else
  return static_cast<unsigned>(std::fegetround());
#endif
}

/// This thread's mode while the object lives.
class ModeScope {
 public:
  explicit ModeScope(const Mode& mode) {
    std::feholdexcept(&before_);
    mode.set();
  }
  ModeScope(const ModeScope&) = delete;
  ModeScope& operator=(const ModeScope&) = delete;
  ~ModeScope() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_;
};

/// A thread of that mode for each task. Counts the tasks that left another mode or flag behind.
class ThreadsOfMode final : public Executor {
 public:
  explicit ThreadsOfMode(const Mode& mode) : mode_(mode) {}
  int concurrency() const noexcept override { return 3; }
  void run(int count, batchnorm::Task task) noexcept override {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this, task, i] {
        mode_.set();
        const unsigned before = state_of_thread();
        task(i);
        if (state_of_thread() != before) changed_.fetch_add(1);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  int changed() const noexcept { return changed_.load(); }

 private:
  Mode mode_;
  std::atomic<int> changed_{0};
};

/// Values whose results are rounded, among them such as are subnormal.
template <class T>
void add_subnormal_values(std::vector<T>& x) {
  const double least = std::is_same_v<T, double> ? 3e-310 : std::is_same_v<T, float> ? 3e-39 : 3e-6;
  for (std::size_t i = 0; i < x.size(); i += 3) x[i] = element<T>(static_cast<double>(i % 7) * least);
}

template <class Both>
class FloatingPointModes : public testing::Test {
 protected:
  /// Expects run(options) to give the same for every mode of the caller, on every executor, as in the usual mode alone.
  template <class Run, class Same>
  void expect_same(const Run& run_call, const Same& is_same) {
    batchnorm::SerialExecutor serial;
    const Tuning tuning = split_always();
    const auto want = run_call(CallOptions{.executor = &serial});
    ThreadTeam team(3);
    for (const Mode& mode : modes) {
      ThreadsOfMode upward(modes[1]), flushing(modes[4]);
      for (Executor* executor : std::initializer_list<Executor*>{&serial, &team, &upward, &flushing}) {
        const ModeScope scope(mode);
        const unsigned before = state_of_thread();
        const auto got = run_call(CallOptions{.executor = executor, .tuning = &tuning});
        const unsigned after = state_of_thread();
        EXPECT_EQ(before, after) << "the caller's mode: " << mode.name;
        EXPECT_TRUE(is_same(got, want)) << "the caller's mode: " << mode.name;
      }
      EXPECT_EQ(upward.changed() + flushing.changed(), 0);
    }
  }

  template <class Body>
  static void for_each_form(Body&& body) {
    for (const Sizes& sizes : {Sizes{4, 6, 40}, Sizes{70, 9, 4}, Sizes{2, 2, 900}, Sizes{300, 5, 1}}) {
      for (const Format format : formats) {
        for (const bool is_training : {true, false}) {
          SCOPED_TRACE(text_of(shape_of(format, 3, sizes), format, is_training));
          body(shape_of(format, 3, sizes), format, is_training);
        }
      }
    }
  }
};
using ElementTypes = testing::Types<Types<float, float>, Types<double, double>, Types<batchnorm::half, float>>;
TYPED_TEST_SUITE(FloatingPointModes, ElementTypes, TypesNames);

// The buffers are filled and the results copied in the mode of the test; only the call itself is what is tested, so that
// nothing else here computes.

TYPED_TEST(FloatingPointModes, OfThreadsDoNotShowInTheForwardPass) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  this->for_each_form([&](const Shape& shape, Format format, bool is_training) {
    auto call = ordinary_call<T, P>(shape, format, is_training);
    add_subnormal_values(call.x);
    for_each_isa([&](Isa) {
      this->expect_same(
          [&](const CallOptions& options) {
            Result<T, P> result;
            result.y.resize(call.x.size()), result.mean = *call.mean, result.variance = *call.variance;
            auto with_number = options;
            with_number.batch_number = is_training ? 7 : 0;
            batchnorm::batch_norm<T, P>(format, call.options, {call.x.data(), shape}, *call.scale, *call.bias, result.mean,
                                        result.variance, {.output_x = {result.y.data(), shape}}, batchnorm::Identity{},
                                        with_number);
            return result;
          },
          [](const auto& got, const auto& want) {
            return same_bits(got.y, want.y) && same_bits(got.mean, want.mean) && same_bits(got.variance, want.variance);
          });
    });
  });
}

TYPED_TEST(FloatingPointModes, OfThreadsDoNotShowInGradients) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  this->for_each_form([&](const Shape& shape, Format format, bool is_training) {
    auto call = ordinary_double_gradient_call<T, P>(shape, format, is_training);
    add_subnormal_values(call.of.dy);
    for_each_isa([&](Isa) {
      this->expect_same(
          [&](const CallOptions& options) {
            auto result = blank_result(call.of);
            batchnorm::batch_norm_backward<T, P>(
                format, call.of.options, call.of.dy_view(), call.of.x_view(), *call.of.scale, call.of.mean, call.of.variance,
                {{result.dx.data(), shape}, result.dscale, result.dbias}, batchnorm::Identity{}, options);
            return result;
          },
          [](const auto& got, const auto& want) { return bool(same(got, want)); });
      this->expect_same(
          [&](const CallOptions& options) {
            DoubleGradientResult<T, P> result{std::vector<T>(call.of.x.size()), std::vector<T>(call.of.x.size()),
                                              std::vector<P>(call.of.mean.size())};
            batchnorm::batch_norm_double_backward<T, P>(format, call.of.options,
                                                        {.dy = call.of.dy_view(),
                                                         .x = call.of.x_view(),
                                                         .scale = *call.of.scale,
                                                         .mean = call.of.mean,
                                                         .variance = call.of.variance,
                                                         .ddx = call.ddx_view(),
                                                         .ddscale = view(call.ddscale),
                                                         .ddbias = view(call.ddbias)},
                                                        {{result.dx.data(), shape}, {result.ddy.data(), shape}, result.dscale},
                                                        options);
            return result;
          },
          [](const auto& got, const auto& want) { return bool(same(got, want)); });
    });
  });
}

TYPED_TEST(FloatingPointModes, OfThreadsDoNotShowInStatisticsInParts) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  this->for_each_form([&](const Shape& shape, Format format, bool is_training) {
    if (!is_training) return;
    auto call = ordinary_gradient_call<T, P>(shape, format, true);
    add_subnormal_values(call.x);
    struct Parts {
      batchnorm::Moments moments;
      batchnorm::GradientSums sums;
      std::vector<P> variance;
    };
    this->expect_same(
        [&](const CallOptions& options) {
          Parts parts;
          parts.moments = batchnorm::moments(call.x_view(), format, options);
          batchnorm::merge(parts.moments, batchnorm::moments(call.dy_view(), format, options));
          parts.sums = batchnorm::gradient_sums<T, P>(
              format, {.dy = call.dy_view(), .x = call.x_view(), .mean = batchnorm::TensorView<const P>(call.mean)},
              batchnorm::Identity{}, options);
          batchnorm::merge(parts.sums, batchnorm::GradientSums(parts.sums));
          parts.variance = call.variance;
          auto mean = call.mean;
          batchnorm::finalize<P>(parts.moments, {.is_training = true},
                                 {.running_mean = mean, .running_variance = parts.variance}, options);
          return parts;
        },
        [](const Parts& got, const Parts& want) {
          return same_bits(got.moments.mean, want.moments.mean) && same_bits(got.moments.mean_low, want.moments.mean_low) &&
                 same_bits(got.moments.m2, want.moments.m2) && same_bits(got.sums.dy, want.sums.dy) &&
                 same_bits(got.sums.dy_x, want.sums.dy_x) && same_bits(got.variance, want.variance);
        });
  });
}

/// Whether both are NaN, or the same bit by bit.
template <class T>
bool same_but_for_nan(const std::vector<T>& got, const std::vector<T>& want) {
  return std::equal(got.begin(), got.end(), want.begin(), want.end(), [](const T& a, const T& b) {
    return (real(a) != real(a) && real(b) != real(b)) || std::memcmp(&a, &b, sizeof(T)) == 0;
  });
}

// Its sign and payload are not promised.
TYPED_TEST(FloatingPointModes, AndThreadsAndStreamedStoresLeaveANaNANaNAndTheRestAsItIs) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  this->for_each_form([&](const Shape& shape, Format format, bool is_training) {
    auto call = ordinary_call<T, P>(shape, format, is_training);
    const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    for (std::size_t i = 0; i < 4; ++i) {
      call.x[call.x.size() * (2 * i + 1) / 9] = element<T>(std::array{nan, -nan, infinity, -infinity}[i]);
    }
    batchnorm::SerialExecutor serial;
    const auto want = run(call, {.executor = &serial});
    ThreadTeam team(3);
    for (const NamedTuning& tuning : tunings()) {
      const auto got = run(call, {.executor = &team, .tuning = &tuning.tuning});
      EXPECT_TRUE(same_but_for_nan(got.y, want.y) && same_but_for_nan(got.batch_mean, want.batch_mean) &&
                  same_but_for_nan(got.batch_variance, want.batch_variance) && same_but_for_nan(got.mean, want.mean) &&
                  same_but_for_nan(got.variance, want.variance))
          << tuning.name;
    }
  });
}

/// The executor's own code is the caller's, and runs in the caller's mode.
TEST(FloatingPointModeOfTheCaller, IsThatOfHisExecutorToo) {
  class Asking final : public Executor {
   public:
    int concurrency() const noexcept override { return 2; }
    void run(int count, batchnorm::Task task) noexcept override {
      for (int i = 0; i < count; ++i) {
        right = right && std::fegetround() == FE_UPWARD;
        task(i);
        right = right && std::fegetround() == FE_UPWARD;
      }
      ++runs;
    }
    bool right = true;
    int runs = 0;
  } asking;
  const Tuning tuning = split_always();
  for (const Format format : formats) {
    const auto call = ordinary_call<float, float>(shape_of(format, 3, 4, 6, 40), format, true);
    const ModeScope scope(modes[1]);
    run(call, {.executor = &asking, .tuning = &tuning});
  }
  EXPECT_TRUE(asking.right);
  EXPECT_GT(asking.runs, 0);
}

}  // namespace
