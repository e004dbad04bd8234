// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <span>
#include <vector>

#include <batchnorm/batchnorm.hpp>

#include "activations.hpp"
#include "buffers.hpp"
#include "cases.hpp"
#include "oracle.hpp"
#include "ulp.hpp"

// One call of the operator as data: made, run by the library, computed by the oracle, compared. Compiled in calls.cpp for every
// pair of types.
namespace support {

inline constexpr double unwritten = 777;

template <class T, class P>
struct Call {
  Shape shape;
  Format format = Format::NCHW;
  batchnorm::Options options{};
  std::vector<T> x{};
  std::optional<std::vector<P>> scale{}, bias{}, mean{}, variance{};

  Extents extents() const { return support::extents(shape, format); }
};

template <class T, class P>
struct Result {
  std::vector<T> y;
  std::vector<P> batch_mean, batch_variance, reserve_space_1, reserve_space_2;
  std::vector<P> mean, variance;  ///< the running statistics after the call
};

/// Values of order 1, each channel about an offset of its own; scale, bias and running statistics of order 1.
template <class T, class P>
Call<T, P> ordinary_call(const Shape& shape, Format format, bool is_training, std::uint64_t seed = 1);

template <class P>
batchnorm::TensorView<const P> view(const std::optional<std::vector<P>>& values) {
  return values ? batchnorm::TensorView<const P>(*values) : batchnorm::TensorView<const P>();
}

/// The call by batch_norm() into prefilled buffers; y at `y_offset` elements past a cache line, x at `x_offset`. Expects that
/// nothing beside y was written.
template <class T, class P>
Result<T, P> run(const Call<T, P>& call, const batchnorm::CallOptions& options = {}, std::size_t x_offset = 0,
                 std::size_t y_offset = 0);

/// y alone, by batch_norm().
template <class T, class P, class E>
std::vector<T> operated(const Call<T, P>& call, const E& epilogue, const batchnorm::CallOptions& options = {}) {
  std::vector<T> y(call.x.size());
  auto mean = call.mean, variance = call.variance;
  const auto running = [](auto& values) {
    return values ? batchnorm::StatisticView<P>(*values) : batchnorm::StatisticView<P>();
  };
  batchnorm::batch_norm<T, P>(call.format, call.options,
                              {.x = {call.x.data(), call.shape},
                               .scale = view(call.scale),
                               .bias = view(call.bias),
                               .mean = running(mean),
                               .variance = running(variance)},
                              {.output_x = {y.data(), call.shape}}, epilogue, options);
  return y;
}

/// What the oracle expects of a call.
struct Expected {
  std::vector<Normalized> y;
  std::vector<Statistics> channel;  ///< those that y is normalised with
  std::vector<Real> scale;
};

template <class T, class P>
Expected expected(const Call<T, P>& call);

/// The largest error of a quantity, in ulp and as a share of what is allowed (the promise is kept up to 1), and where it is.
struct Worst {
  Real ulps = 0, share = 0;
  std::size_t index = 0;

  void note(Real error, Real ulp, Real allowed, std::size_t at) {
    if (error == 0) return;
    ulps = std::max(ulps, error / ulp);
    if (error / allowed > share) share = error / allowed, index = at;
  }
  void merge(const Worst& other) {
    ulps = std::max(ulps, other.ulps);
    if (other.share > share) share = other.share, index = other.index;
  }
};

struct Errors {
  Worst y, mean, variance, running_mean, running_variance;

  void merge(const Errors& other) {
    y.merge(other.y), mean.merge(other.mean), variance.merge(other.variance);
    running_mean.merge(other.running_mean), running_variance.merge(other.running_variance);
  }
};

template <class T>
Worst y_errors(std::span<const T> y, const Expected& expected, const Extents& e, Isa isa, bool batch_statistics);

/// Of a call's y and, in training, of its batch statistics and (momentum strictly between 0 and 1) running statistics.
template <class T, class P>
Errors errors(const Call<T, P>& call, const Result<T, P>& result, const Expected& expected, Isa isa);

inline void expect_kept(const Worst& worst, const char* quantity) {
  EXPECT_LE(worst.share, 1) << quantity << ": " << worst.ulps << " ulp at index " << worst.index << " breaks the promise";
}

inline void expect_kept(const Errors& worst) {
  expect_kept(worst.y, "y");
  expect_kept(worst.mean, "batch mean");
  expect_kept(worst.variance, "batch variance");
  expect_kept(worst.running_mean, "running mean");
  expect_kept(worst.running_variance, "running variance");
}

}  // namespace support
