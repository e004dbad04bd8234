// SPDX-License-Identifier: MIT
#pragma once

// Walks over whole tensors of either layout.

#include <batchnorm/cpu/channels_last.hpp>
#include <batchnorm/cpu/group_walk.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// A statistic of all channels with the work split by blocks: every block's sums are kept and then merged in order.
template <Element T, class Statistic>
class BlockwiseSums {
 public:
  using Arrays = SumArrays<typename Statistic::Summation>;

  BlockwiseSums(const Machine& machine, const Reduction<T, Statistic>& reduction) noexcept
      : machine_(machine),
        reduction_(reduction),
        workers_(machine.workers(reduction.bytes())),
        rows_(machine, reduction),
        planes_(machine, reduction) {}

  void reserve(Scratch& scratch) noexcept {
    block_stride_ = Arrays::count * padded(reduction_.geometry.c);
    blocks_ = scratch.reserve<double>(reduction_.partition.blocks * block_stride_);
    state_ = ChannelScratch::reserve(scratch, reduction_.geometry.c, Statistic::state);
    worker_doubles_ = reduction_.geometry.channels_last ? rows_.scratch_doubles() : planes_.scratch_doubles();
    own_ = scratch.reserve<double>(worker_doubles_ * workers_);
  }

  /// Sums all blocks, then merges them; `finish(first, channels, state)` is called for slices that cover all channels.
  void run_all(const Scratch& scratch, const SumsCallback& finish) const noexcept {
    // Few blocks are cut into slices of channels, so that no thread is left without work.
    const Geometry& g = reduction_.geometry;
    const std::int64_t blocks = reduction_.partition.blocks;
    const std::int64_t wanted = detail::ceiling(4 * workers_, blocks);
    const bool can_slice = workers_ > 1 && (!g.channels_last || rows_.can_slice());
    const std::int64_t slice = !can_slice ? g.c : detail::ceiling(detail::ceiling(g.c, wanted), 64) * 64;
    const std::int64_t slices = detail::ceiling(g.c, slice);
    for_each(machine_, workers_, blocks * slices,
             [&](int worker, std::int64_t task) { add_block(scratch, worker, task / slices, task % slices * slice, slice); });
    merge_blocks(scratch, finish);
  }

  /// The same; `after_block(block)` is called when all channels of a block are summed, while it may be in cache.
  void run_all(const Scratch& scratch, const Callback<const Block&>& after_block, const SumsCallback& finish) const noexcept {
    for_each(machine_, workers_, reduction_.partition.blocks, [&](int worker, std::int64_t b) {
      add_block(scratch, worker, b, 0, reduction_.geometry.c);
      after_block(block_at(reduction_.geometry, reduction_.partition, b));
    });
    merge_blocks(scratch, finish);
  }

 private:
  /// Sums channels [first, first + slice) of block b.
  void add_block(const Scratch& scratch, int worker, std::int64_t b, std::int64_t first, std::int64_t slice) const noexcept {
    double* own = scratch[own_] + worker * worker_doubles_;
    const std::int64_t c = reduction_.geometry.c;
    const bool is_last = first + slice >= c;
    const std::int64_t channels = is_last ? c - first : slice, room = is_last ? padded(c) - first : slice;
    if (reduction_.geometry.channels_last) {
      rows_.sums(b, first, channels, room, block(scratch, b).at(first), own);
    } else {
      planes_.sums(b, first, channels, room, block(scratch, b).at(first), own);
    }
  }

  Arrays block(const Scratch& scratch, std::int64_t b) const noexcept {
    return Arrays::in(scratch[blocks_] + b * block_stride_, padded(reduction_.geometry.c));
  }

  void merge_blocks(const Scratch& scratch, const SumsCallback& finish) const noexcept {
    // Merging is worth a second thread only when there is much of it.
    const std::int64_t c = reduction_.geometry.c;
    const bool serial = c * reduction_.partition.blocks < (1 << 14);
    const std::int64_t slice =
        serial ? c : (std::max<std::int64_t>)(64, detail::ceiling(detail::ceiling(c, 2 * workers_), 64) * 64);
    const ChannelArrays state = state_.in(scratch);
    state.clear_behind(c, Statistic::state);
    for_each(machine_, workers_, detail::ceiling(c, slice), [&](int, std::int64_t task) {
      const std::int64_t first = task * slice, channels = (std::min)(slice, c - first);
      std::int64_t before = 0;
      for (std::int64_t b = 0; b < reduction_.partition.blocks; ++b) {
        const std::int64_t count = block_at(reduction_.geometry, reduction_.partition, b).values();
        reduction_.statistic.merge(machine_.isa, state.at(first), block(scratch, b).at(first), channels, before, count);
        before += count;
      }
      finish(first, channels, state.at(first));
    });
  }

  Machine machine_;
  Reduction<T, Statistic> reduction_;
  int workers_;
  RowBlocks<T, Statistic> rows_;
  PlaneBlocks<T, Statistic> planes_;
  std::int64_t block_stride_ = 0, worker_doubles_ = 0;
  Scratch::Part<double> blocks_, own_;
  ChannelScratch state_;
};

/// An operation on everything, with the coefficients of each channel.
template <Element T, class Operation>
class WholeSweep {
 public:
  using Constants = Coefficients<compute_t<T>, Operation::coefficients>;

  WholeSweep(const Machine& machine, const Elementwise<T, Operation>& work) noexcept
      : machine_(machine),
        work_(work),
        rows_(machine, work),
        by_rows_(work.geometry.channels_last || PlaneSweep<T, Operation>::needs_positions(work)) {}

  void reserve(Scratch& scratch) noexcept {
    channels_ = decltype(channels_)::reserve(scratch, work_.geometry.c);
    positions_ = decltype(positions_)::reserve(scratch, by_rows_ ? rows_.positions() : 0);
  }

  /// Where the coefficients of the channels go before anything runs.
  Constants coefficients(const Scratch& scratch) const noexcept { return channels_.in(scratch); }

  void run_all(const Scratch& scratch, bool streams, bool reversed) const noexcept {
    if (by_rows_) {
      prepare_blocks(scratch);
      rows_.run_all(positions_.in(scratch), streams, reversed);
    } else {
      sweep_planes(machine_, work_, coefficients(scratch), streams);
    }
  }

  /// Once before `run_block`.
  void prepare_blocks(const Scratch& scratch) const noexcept {
    if (by_rows_) rows_.expand_coefficients(coefficients(scratch), positions_.in(scratch));
  }
  /// All channels of a block.
  void run_block(const Scratch& scratch, const Block& block, bool streams) const noexcept {
    const Geometry& g = work_.geometry;
    if (by_rows_) return rows_.run_rows(block.first_image, block.images, positions_.in(scratch), streams);
    const PlaneSweep<T, Operation> sweep(machine_, work_, streams);
    sweep.run_planes(block.first_image, block.images, 0, g.c, block.first_position, block.length, coefficients(scratch));
  }

 private:
  Machine machine_;
  Elementwise<T, Operation> work_;
  RowSweep<T, Operation> rows_;
  bool by_rows_;
  CoefficientScratch<compute_t<T>, Operation::coefficients> channels_, positions_;
};

/// A statistic, and an operation that depends on it. `finish(first, channels, state, coefficients)` turns one into the other.
/// `in_place`: an output of the operation is an input of the reduction.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Statistic, class Operation>
void reduce_then_sweep(const Machine& machine, Reduction<T, Statistic> reduction, const Elementwise<T, Operation>& work,
                       bool in_place, const std::type_identity_t<CoefficientsCallback<T, Operation>>& finish) {
  const Tuning& t = *machine.tuning;
  const double l3 = static_cast<double>(t.l3_bytes);
  const double read_bytes = static_cast<double>(reduction.bytes() * Statistic::Summation::inputs);
  const bool streams = machine.streams(work.bytes(), work.swept_bytes(), t.training_stream_share);
  if (!reduction.geometry.channels_last) {
    // Groups are overwritten while others are summed.
    reduction.is_overwritten = in_place;
    GroupWalk<T, Statistic, Operation> groups(machine, reduction, work, finish, streams);
    if (groups.fits()) {
      groups.allocate();
      groups.run_all();
      return;
    }
    reduction.is_overwritten = false;
  }
  BlockwiseSums<T, Statistic> sums(machine, reduction);
  WholeSweep<T, Operation> sweep(machine, work);
  Scratch scratch;
  sums.reserve(scratch);
  sweep.reserve(scratch);
  scratch.allocate();
  const auto coefficients = sweep.coefficients(scratch);
  sums.run_all(scratch, [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state) {
    finish(first, channels, state, coefficients.at(first));
  });
  sweep.run_all(scratch, streams, read_bytes > l3 / 2 && read_bytes < 2 * l3);
}

/// Only the statistic. `finish(first, channels, state)` is called for slices that cover all channels.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Statistic>
void reduce(const Machine& machine, const Reduction<T, Statistic>& reduction, const SumsCallback& finish) {
  BlockwiseSums<T, Statistic> sums(machine, reduction);
  Scratch scratch;
  sums.reserve(scratch);
  scratch.allocate();
  sums.run_all(scratch, finish);
}

/// Only the operation. `fill(coefficients)` computes its coefficients, after all memory is allocated.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Operation>
void sweep(const Machine& machine, const Elementwise<T, Operation>& work,
           const std::type_identity_t<FillCallback<T, Operation>>& fill) {
  WholeSweep<T, Operation> whole(machine, work);
  Scratch scratch;
  whole.reserve(scratch);
  scratch.allocate();
  in_default_mode([&] { fill(whole.coefficients(scratch)); });
  whole.run_all(scratch, machine.streams(work.bytes(), work.swept_bytes(), machine.tuning->inference_stream_share), false);
}

/// A statistic and an operation that does not depend on it, block by block: what both read is read once. `fill(coefficients)`
/// comes before, `finish(first, channels, state)` after.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Statistic, class Operation>
void reduce_and_sweep(const Machine& machine, Reduction<T, Statistic> reduction, const Elementwise<T, Operation>& work,
                      bool in_place, const std::type_identity_t<FillCallback<T, Operation>>& fill, const SumsCallback& finish) {
  reduction.is_overwritten = in_place;
  BlockwiseSums<T, Statistic> sums(machine, reduction);
  WholeSweep<T, Operation> whole(machine, work);
  Scratch scratch;
  sums.reserve(scratch);
  whole.reserve(scratch);
  scratch.allocate();
  in_default_mode([&] { fill(whole.coefficients(scratch)); });
  whole.prepare_blocks(scratch);
  const bool streams = machine.streams(work.bytes(), work.swept_bytes(), machine.tuning->inference_stream_share);
  sums.run_all(
      scratch, [&](const Block& block) { whole.run_block(scratch, block, streams); }, finish);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
