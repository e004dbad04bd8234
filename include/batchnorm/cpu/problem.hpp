// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>

#include <batchnorm/cpu/columns.hpp>
#include <batchnorm/cpu/dispatch.hpp>
#include <batchnorm/cpu/partition.hpp>
#include <batchnorm/cpu/scratch.hpp>
#include <batchnorm/cpu/statistics.hpp>
#include <batchnorm/cpu/tuning.hpp>
#include <batchnorm/executor.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Who runs a call and with which numbers.
struct Machine {
  Isa isa;
  Executor* executor;
  const Tuning* tuning;

  /// Threads worth using for that many bytes of x.
  int workers(std::int64_t bytes) const noexcept {
    if (bytes < tuning->serial_bytes) return 1;
    const std::int64_t useful = (std::max<std::int64_t>)(1, bytes / (std::max<std::int64_t>)(1, tuning->serial_bytes / 2));
    return static_cast<int>((std::min<std::int64_t>)(executor->concurrency(), useful));
  }
};

/// x, and how its statistics are summed.
template <Element T>
struct Input {
  Geometry geometry;
  const T* x;
  Pitch pitch;
  Partition partition;
  bool is_overwritten;  // y is x: nothing beyond a task's own values may be read while others write

  std::int64_t bytes() const noexcept { return geometry.elements() * static_cast<std::int64_t>(sizeof(T)); }
  const T* at(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return x + n * pitch.outer + c * pitch.channel + s;
  }
};

/// y and all that is done to an element.
template <Element T, class Activation, bool adds_residual>
struct Output {
  T* y;
  Pitch pitch;
  const T* residual;
  Pitch residual_pitch;
  Normalization<T, Activation, adds_residual> normalization;

  T* at(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return y + n * pitch.outer + c * pitch.channel + s;
  }
  const T* residual_at(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return adds_residual ? residual + n * residual_pitch.outer + c * residual_pitch.channel + s : nullptr;
  }
};

/// x with its first value as pivot, 0 where that is not finite (then the sums are not either, whatever the pivot).
template <Element T>
double pivot_of(const T& x) noexcept {
  const double value = static_cast<double>(static_cast<compute_t<T>>(x));
  return value - value == 0 ? value : 0.0;
}

/// Doubles over `channels` channels, with room for the vectors of any kernel.
constexpr std::int64_t padded(std::int64_t channels) noexcept { return detail::ceiling(channels, 8) * 8 + channel_padding; }

/// Arrays over channels out of the scratch memory.
struct ChannelScratch {
  Scratch::Part<double> doubles;
  std::int64_t stride = 0;

  static ChannelScratch reserve(Scratch& scratch, std::int64_t channels, int arrays) noexcept {
    return {scratch.reserve<double>(padded(channels) * arrays), padded(channels)};
  }
  BlockSums block(const Scratch& scratch) const noexcept {
    double* p = scratch[doubles];
    return {p, p + stride, p + 2 * stride};
  }
  MomentSums moments(const Scratch& scratch, int first) const noexcept {
    double* p = scratch[doubles] + first * stride;
    return {p, p + stride, p + 2 * stride, p + 3 * stride};
  }
};

template <class Compute>
struct CoefficientScratch {
  Scratch::Part<Compute> values;
  std::int64_t stride = 0;

  static CoefficientScratch reserve(Scratch& scratch, std::int64_t positions) noexcept {
    return {scratch.reserve<Compute>(3 * padded(positions)), padded(positions)};
  }
  Coefficients<Compute> in(const Scratch& scratch) const noexcept {
    Compute* p = scratch[values];
    return {p, p + stride, p + 2 * stride};
  }
};

/// Positions p in [0, count) get the coefficients of channel p / length mod channels.
template <class Compute>
void expand(const Coefficients<Compute>& from, std::int64_t channels, std::int64_t length, const Coefficients<Compute>& to,
            std::int64_t count) noexcept {
  std::int64_t c = 0;
  for (std::int64_t p = 0; p < count; p += length) {
    const std::int64_t some = (std::min)(length, count - p);
    std::fill_n(to.center + p, some, from.center[c]);
    std::fill_n(to.factor + p, some, from.factor[c]);
    std::fill_n(to.offset + p, some, from.offset[c]);
    c = c + 1 == channels ? 0 : c + 1;
  }
}

/// Hands out 0, 1, 2, ... to the tasks of one run.
class Counter {
 public:
  std::int64_t take() noexcept { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> next_{0};
};

/// Calls task(worker, i) for i in [0, count), in ascending order within each worker, which is in [0, workers).
template <class F>
void for_each(const Machine& machine, int workers, std::int64_t count, F&& task) noexcept {
  if (workers == 1 || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) task(0, i);
    return;
  }
  Counter counter;
  machine.executor->run(static_cast<int>((std::min<std::int64_t>)(workers, count)), [&](int worker) {
    for (std::int64_t i = counter.take(); i < count; i = counter.take()) task(worker, i);
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
