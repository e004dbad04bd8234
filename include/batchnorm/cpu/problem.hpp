// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <concepts>
#include <memory>
#include <type_traits>

#include <batchnorm/cpu/default_mode.hpp>
#include <batchnorm/cpu/dispatch.hpp>
#include <batchnorm/cpu/operands.hpp>
#include <batchnorm/cpu/partition.hpp>
#include <batchnorm/cpu/scratch.hpp>
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
    return static_cast<int>(std::clamp<std::int64_t>(executor->concurrency(), 1, useful));
  }
  /// True if an operation on x of `bytes` bytes that reads and writes `swept` bytes should use non-temporal stores, given its
  /// share of the third-level cache. One thread can keep the memory busy with what it streams; several gain from the cache.
  bool streams(std::int64_t bytes, std::int64_t swept, double share) const noexcept {
    const double limit = share * static_cast<double>(tuning->l3_bytes);
    return static_cast<double>(swept) > (workers(bytes) > 1 ? 2 * limit : limit);
  }
  /// Bytes of x that a task of an element-wise sweep works on: a few tasks for each thread.
  std::int64_t task_bytes(std::int64_t bytes) const noexcept {
    const std::int64_t threads = workers(bytes);
    if (threads == 1) return tuning->sweep_task_bytes;
    return (std::min)(tuning->sweep_task_bytes, (std::max<std::int64_t>)(4096, bytes / (2 * threads)));
  }
};

/// A tensor of the call's geometry.
template <class T>
struct Operand {
  T* data = nullptr;
  Pitch pitch;

  T* at(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return data + pitch.of_image(n) + c * pitch.channel + s;
  }
};

/// Several tensors, or the distances from element to element in each of them, in the form that kernels take.
template <class T, int Count>
struct Operands {
  Operand<T> of[Count];

  Pointers<T, Count> at(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    Pointers<T, Count> result;
    for (int j = 0; j < Count; ++j) result.p[j] = of[j].at(n, c, s);
    return result;
  }
  void copy_outer(std::int64_t (&to)[Count]) const noexcept {
    for (int j = 0; j < Count; ++j) to[j] = of[j].pitch.outer;
  }
  void copy_channel(std::int64_t (&to)[Count]) const noexcept {
    for (int j = 0; j < Count; ++j) to[j] = of[j].pitch.channel;
  }
  /// Whether every tensor has that distance from channel to channel, or from image to image.
  bool all_channel(std::int64_t pitch) const noexcept {
    return std::all_of(of, of + Count, [&](const Operand<T>& o) { return o.pitch.channel == pitch; });
  }
  bool all_outer(std::int64_t pitch) const noexcept {
    return std::all_of(of, of + Count, [&](const Operand<T>& o) { return o.pitch.outer == pitch; });
  }
};

/// Whether in every tensor the channels of an image (channels last: the rows of a run) lie without gaps.
template <Element T, int Count>
bool are_gapless(const Geometry& g, const Operands<const T, Count>& in) noexcept {
  return g.channels_last ? in.all_outer(g.c) : g.has_whole_images() && in.all_channel(g.s);
}

/// Sums over channels, block by block. A Statistic says what is summed and how blocks are put together:
///
///   Summation, summation    what the kernels compute (operands.hpp)
///   state                   arrays over channels that merged blocks are kept in
///   void begin(isa, reduction, block, first, channels, arrays) const      the constants of a block
///   void merge(isa, state, arrays, channels, before, count) const         blocks in their order; `before` values came before
///
/// and, if a block is summed twice, what the first pass computes, and what follows for the constants of the second:
///
///   rough                                                                 a Summation whose arrays are the first ones
///   void refine(isa, block, channels, arrays) const
template <Element T, class Statistic>
struct Reduction {
  using Summation = typename Statistic::Summation;
  static constexpr int inputs = Summation::inputs;

  Geometry geometry;
  Operands<const T, inputs> in;
  Partition partition;
  Statistic statistic;
  const unsigned char* bits = nullptr;
  bool is_overwritten = false;  // an output is an input: nothing beyond a task's own values may be read while others write

  std::int64_t bytes() const noexcept { return geometry.elements() * static_cast<std::int64_t>(sizeof(T)); }
  BitReader bit_reader() const noexcept { return {bits, bits == nullptr ? 0 : geometry.elements()}; }
};

/// Constants and sums of one block for channels [first, first + channels), in arrays with room for `room` channels.
/// `add(summation, arrays)` adds the values of the block.
template <Element T, class Statistic, class Add>
void sum_block(const Machine& machine, const Reduction<T, Statistic>& reduction, const Block& block, std::int64_t first,
               std::int64_t channels, std::int64_t room, const SumArrays<typename Statistic::Summation>& to,
               const Add& add) noexcept {
  for (double* constant : to.constant) std::fill_n(constant, room, 0.0);
  for (double* sum : to.sum) std::fill_n(sum, room, 0.0);
  reduction.statistic.begin(machine.isa, reduction, block, first, channels, to);
  if constexpr (requires { reduction.statistic.rough; }) {
    add(reduction.statistic.rough, leading<std::remove_cvref_t<decltype(reduction.statistic.rough)>>(to));
    reduction.statistic.refine(machine.isa, block, channels, to);
  }
  add(reduction.statistic.summation, to);
}

/// An operation on every element.
template <Element T, class Op>
struct Elementwise {
  using Operation = Op;
  static constexpr int inputs = Operation::inputs;
  static constexpr int outputs = Operation::outputs;

  Geometry geometry;
  Operands<const T, inputs> in;
  Operands<T, outputs> out;
  Operation operation;
  BitsAt bits{};

  std::int64_t bytes() const noexcept { return geometry.elements() * static_cast<std::int64_t>(sizeof(T)); }
  /// Bytes read and written.
  std::int64_t swept_bytes() const noexcept {
    std::int64_t tensors = inputs;
    for (int j = 0; j < outputs; ++j) tensors += stores(operation, j) ? 1 : 0;
    return bytes() * tensors;
  }
};

/// Calls f(first, images) for the parts of images [first, first + images) that lie in one run each.
template <class F>
void for_each_run(const Geometry& g, std::int64_t first, std::int64_t images, const F& f) noexcept {
  for (const std::int64_t end = first + images; first < end;) {
    const std::int64_t some = (std::min)(end, g.end_of_run(first)) - first;
    f(first, some);
    first += some;
  }
}

/// A value as pivot, 0 where it is not finite (then the sums are not either, whatever the pivot).
template <Element T>
double pivot_of(const T& x) noexcept {
  const double value = widened(x);
  return value - value == 0 ? value : 0.0;
}

/// Scratch arrays of doubles over channels are this much longer than the channels, so that loops need no tail.
inline constexpr std::int64_t channel_padding = 16;

/// Doubles over `channels` channels, with room for the vectors of any kernel.
constexpr std::int64_t padded(std::int64_t channels) noexcept { return detail::ceiling(channels, 8) * 8 + channel_padding; }

/// Arrays over channels, `stride` doubles apart.
struct ChannelArrays {
  double* first = nullptr;
  std::int64_t stride = 0;

  double* operator[](int k) const noexcept { return first + k * stride; }
  ChannelArrays at(std::int64_t c) const noexcept { return {first + c, stride}; }

  /// Zeros after the last channel of each array: kernels read whole pairs of vectors.
  void clear_behind(std::int64_t channels, int arrays) const noexcept {
    for (int k = 0; k < arrays; ++k) std::fill_n((*this)[k] + channels, stride - channels, 0.0);
  }
};

/// A reference to a callable, which outlives it. The walks take callbacks as such, so that they are compiled once for an
/// element type and a policy, whoever calls them.
template <class... Args>
class Callback {
 public:
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, Callback>)
  Callback(const F& callable)
  noexcept
      : callable_(std::addressof(callable)),
        call_([](const void* object, Args... args) { (*static_cast<const F*>(object))(args...); }) {}

  void operator()(Args... args) const { call_(callable_, args...); }

 private:
  const void* callable_;
  void (*call_)(const void*, Args...);
};

/// (first, channels, state): the sums of channels [first, first + channels) are merged in `state`.
using SumsCallback = Callback<std::int64_t, std::int64_t, const ChannelArrays&>;

template <Element T, class Operation>
using CoefficientsOf = Coefficients<compute_t<T>, Operation::coefficients>;

/// The same, and where the coefficients that follow from the sums go.
template <Element T, class Operation>
using CoefficientsCallback = Callback<std::int64_t, std::int64_t, const ChannelArrays&, const CoefficientsOf<T, Operation>&>;

/// Where the coefficients of all channels go.
template <Element T, class Operation>
using FillCallback = Callback<const CoefficientsOf<T, Operation>&>;

/// The same as a part of the scratch memory.
struct ChannelScratch {
  Scratch::Part<double> doubles;
  std::int64_t stride = 0;

  static ChannelScratch reserve(Scratch& scratch, std::int64_t channels, int arrays) noexcept {
    return {scratch.reserve<double>(padded(channels) * arrays), padded(channels)};
  }
  ChannelArrays in(const Scratch& scratch) const noexcept { return {scratch[doubles], stride}; }
};

template <class Compute, int Count>
struct CoefficientScratch {
  Scratch::Part<Compute> values;
  std::int64_t stride = 0;

  static CoefficientScratch reserve(Scratch& scratch, std::int64_t positions) noexcept {
    return {scratch.reserve<Compute>(Count * padded(positions)), padded(positions)};
  }
  Coefficients<Compute, Count> in(const Scratch& scratch) const noexcept {
    Coefficients<Compute, Count> result;
    for (int k = 0; k < Count; ++k) result.array[k] = scratch[values] + k * stride;
    return result;
  }
};

/// Positions p in [0, count) get the coefficients of channel p / length mod channels.
template <class Compute, int Count>
void expand(const Coefficients<Compute, Count>& from, std::int64_t channels, std::int64_t length,
            const Coefficients<Compute, Count>& to, std::int64_t count) noexcept {
  if (length == 1) {
    for (int k = 0; k < Count; ++k) {
      for (std::int64_t p = 0; p < count; p += channels) {
        std::copy_n(from.array[k], (std::min)(channels, count - p), to.array[k] + p);
      }
    }
    return;
  }
  std::int64_t c = 0;
  for (std::int64_t p = 0; p < count; p += length) {
    const std::int64_t some = (std::min)(length, count - p);
    for (int k = 0; k < Count; ++k) std::fill_n(to.array[k] + p, some, from.array[k][c]);
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

/// Calls task(worker, i) for i in [0, count), in ascending order within each worker, which is in [0, workers). The tasks run in
/// the default mode, the executor's own code in that of its threads.
template <class F>
void for_each(const Machine& machine, int workers, std::int64_t count, F&& task) noexcept {
  if (workers == 1 || count == 1) {
    return in_default_mode([&] {
      for (std::int64_t i = 0; i < count; ++i) task(0, i);
    });
  }
  Counter counter;
  machine.executor->run(static_cast<int>((std::min<std::int64_t>)(workers, count)), [&](int worker) {
    in_default_mode([&] {
      for (std::int64_t i = counter.take(); i < count; i = counter.take()) task(worker, i);
    });
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
