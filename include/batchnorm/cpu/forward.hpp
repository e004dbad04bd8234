// SPDX-License-Identifier: MIT
#pragma once

// The operator over canonical tensors that are not empty and are known to be right.

#include <batchnorm/cpu/channels_first.hpp>
#include <batchnorm/cpu/channels_last.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The statistics of all channels with the work split by blocks: every block's sums are kept and then merged in order.
template <Element T>
class BlockwiseStatistics {
 public:
  BlockwiseStatistics(const Machine& machine, const Input<T>& input) noexcept
      : machine_(machine),
        input_(input),
        workers_(machine.workers(input.bytes())),
        rows_(machine, input),
        planes_(machine, input) {}

  void reserve(Scratch& scratch) noexcept {
    const std::int64_t blocks = input_.partition.blocks;
    block_stride_ = 3 * padded(input_.geometry.c);
    blocks_ = scratch.reserve<double>(blocks * block_stride_);
    moments_ = ChannelScratch::reserve(scratch, input_.geometry.c, 4);
    worker_doubles_ = input_.geometry.channels_last ? rows_.scratch_doubles()
                      : input_.partition.columns    ? 3 * ColumnScratch::stride
                                                    : 0;
    own_ = scratch.reserve<double>(worker_doubles_ * workers_);
  }

  /// Sums all blocks, then merges them; `finish(first, channels, moments)` is called for slices that cover all channels.
  template <class Finish>
  void run_all(const Scratch& scratch, Finish&& finish) const noexcept {
    sum_blocks(scratch);
    // Merging is worth a second thread only when there is much of it.
    const std::int64_t c = input_.geometry.c;
    const bool serial = c * input_.partition.blocks < (1 << 14);
    const std::int64_t slice =
        serial ? c : (std::max<std::int64_t>)(64, detail::ceiling(detail::ceiling(c, 2 * workers_), 64) * 64);
    const MomentSums moments = moments_.moments(scratch, 0);
    for_each(machine_, workers_, detail::ceiling(c, slice), [&](int, std::int64_t task) {
      const std::int64_t first = task * slice, channels = (std::min)(slice, c - first);
      std::int64_t before = 0;
      for (std::int64_t b = 0; b < input_.partition.blocks; ++b) {
        const std::int64_t count = block_at(input_.geometry, input_.partition, b).values();
        run(machine_.isa, MergeBlock{moments.at(first), block(scratch, b).at(first), channels, before, count});
        before += count;
      }
      finish(first, channels, moments.at(first));
    });
  }

 private:
  BlockSums block(const Scratch& scratch, std::int64_t b) const noexcept {
    const std::int64_t stride = padded(input_.geometry.c);
    double* p = scratch[blocks_] + b * block_stride_;
    return {p, p + stride, p + 2 * stride};
  }

  void sum_blocks(const Scratch& scratch) const noexcept {
    const Partition& p = input_.partition;
    for_each(machine_, workers_, p.blocks, [&](int worker, std::int64_t b) {
      double* own = scratch[own_] + worker * worker_doubles_;
      if (input_.geometry.channels_last) {
        rows_.sums(b, block(scratch, b), own);
      } else {
        planes_.sums(b, 0, input_.geometry.c, block(scratch, b), ColumnScratch::at(own));
      }
    });
  }

  Machine machine_;
  Input<T> input_;
  int workers_;
  RowBlocks<T> rows_;
  PlaneBlocks<T> planes_;
  std::int64_t block_stride_ = 0, worker_doubles_ = 0;
  Scratch::Part<double> blocks_, own_;
  ChannelScratch moments_;
};

/// Normalises everything with the constants of each channel.
template <Element T, class Activation, bool adds_residual>
class WholeSweep {
 public:
  using Compute = compute_t<T>;

  WholeSweep(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output) noexcept
      : machine_(machine),
        input_(input),
        output_(output),
        rows_(machine, input, output),
        by_rows_(input.geometry.channels_last || PlaneSweep<T, Activation, adds_residual>::needs_positions(input, output)) {}

  void reserve(Scratch& scratch) noexcept {
    channels_ = CoefficientScratch<Compute>::reserve(scratch, input_.geometry.c);
    positions_ = CoefficientScratch<Compute>::reserve(scratch, by_rows_ ? rows_.positions() : 0);
  }

  /// Where the coefficients of the channels go before `run_all`.
  Coefficients<Compute> coefficients(const Scratch& scratch) const noexcept { return channels_.in(scratch); }

  void run_all(const Scratch& scratch, bool streams, bool reversed) const noexcept {
    if (by_rows_) {
      rows_.normalize(coefficients(scratch), positions_.in(scratch), streams, reversed);
    } else {
      sweep_planes(machine_, input_, output_, coefficients(scratch), streams);
    }
  }

 private:
  Machine machine_;
  Input<T> input_;
  Output<T, Activation, adds_residual> output_;
  RowSweep<T, Activation, adds_residual> rows_;
  bool by_rows_;
  CoefficientScratch<Compute> channels_, positions_;
};

/// Bytes that a normalisation reads and writes.
template <class In, class Out>
std::int64_t swept_bytes(const In& input, const Out& output) noexcept {
  return input.bytes() * (output.residual == nullptr ? 2 : 3);
}

/// y from given coefficients: `fill(coefficients)` computes them, after all memory is allocated.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Activation, bool adds_residual, class Fill>
void normalize_with(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output,
                    Fill&& fill) {
  WholeSweep<T, Activation, adds_residual> sweep(machine, input, output);
  Scratch scratch;
  sweep.reserve(scratch);
  scratch.allocate();
  fill(sweep.coefficients(scratch));
  const Tuning& t = *machine.tuning;
  const double limit = t.inference_stream_share * static_cast<double>(t.l3_bytes);
  sweep.run_all(scratch, static_cast<double>(swept_bytes(input, output)) > limit, false);
}

/// Statistics, everything that follows from them, and y.
/// @throws std::bad_alloc   before anything is written
template <Element T, Element P, class Activation, bool adds_residual>
void train(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output,
           const ChannelArguments<P>& arguments) {
  using Compute = compute_t<T>;
  const Tuning& t = *machine.tuning;
  const double l3 = static_cast<double>(t.l3_bytes), x_bytes = static_cast<double>(input.bytes());
  const bool streams = static_cast<double>(swept_bytes(input, output)) > t.training_stream_share * l3;
  if (!input.geometry.channels_last) {
    GroupTraining<T, P, Activation, adds_residual> groups(machine, input, output, arguments, streams);
    if (groups.fits()) {
      groups.allocate();
      groups.run_all();
      return;
    }
  }
  BlockwiseStatistics<T> statistics(machine, input);
  WholeSweep<T, Activation, adds_residual> sweep(machine, input, output);
  Scratch scratch;
  statistics.reserve(scratch);
  sweep.reserve(scratch);
  scratch.allocate();
  const Coefficients<Compute> coefficients = sweep.coefficients(scratch);
  statistics.run_all(scratch, [&](std::int64_t first, std::int64_t channels, const MomentSums& moments) {
    run(machine.isa,
        FinalizeChannels<Compute, P>{moments, channels, input.geometry.values(), arguments.at(first), coefficients.at(first)});
  });
  sweep.run_all(scratch, streams, x_bytes > l3 / 2 && x_bytes < 2 * l3);
}

/// Mean, what a double cannot hold of it, and the sum of squared deviations, per channel.
/// @throws std::bad_alloc   before anything is written
template <Element T>
void collect_moments(const Machine& machine, const Input<T>& input, double* mean, double* mean_low, double* m2) {
  BlockwiseStatistics<T> statistics(machine, input);
  Scratch scratch;
  statistics.reserve(scratch);
  scratch.allocate();
  statistics.run_all(scratch, [&](std::int64_t first, std::int64_t channels, const MomentSums& from) {
    for (std::int64_t c = 0; c < channels; ++c) {
      mean[first + c] = from.mean[c];
      mean_low[first + c] = from.mean_low[c];
      m2[first + c] = from.m2[c] + from.m2_low[c];
    }
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
