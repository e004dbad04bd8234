// SPDX-License-Identifier: MIT
#pragma once

// The walks that walks.hpp declares; in the library of compiled kernels, its walks.cpp has them.

#include <batchnorm/walk/groups.hpp>
#include <batchnorm/walk/walks.hpp>

#if !BATCHNORM_USES_COMPILED || defined(BATCHNORM_COMPILES_WALKS)
namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

namespace detail {

/// The sums of all channels with the work split by blocks: every block's sums are kept and then merged in order.
class AllSums {
 public:
  AllSums(const Machine& machine, const Plan& plan, const Sums& sums, Scratch& scratch) noexcept
      : machine_(machine), plan_(plan), sums_(sums), scratch_(scratch), summation_(machine, sums) {
    const std::int64_t c = sums.geometry.c;
    block_doubles_ = sums.array_count() * padded(c);
    worker_doubles_ = summation_.scratch_doubles();
    blocks_ = scratch.reserve<double>(sums.partition.blocks * block_doubles_);
    state_ = ChannelScratch::reserve(scratch, c, sums.kernels.state);
    own_ = scratch.reserve<double>(worker_doubles_ * plan.workers);
  }

  /// Sums all blocks.
  void add_all() const noexcept {
    const std::int64_t slices = ceiling(sums_.geometry.c, plan_.sum_slice);
    for_each(machine_, plan_.workers, sums_.partition.blocks * slices, [&](int worker, std::int64_t task) {
      add(worker, task / slices, task % slices * plan_.sum_slice, plan_.sum_slice);
    });
  }

  /// Sums channels [first, first + slice) of block b.
  void add(int worker, std::int64_t b, std::int64_t first, std::int64_t slice) const noexcept {
    const std::int64_t c = sums_.geometry.c;
    const bool is_last = first + slice >= c;
    const std::int64_t channels = is_last ? c - first : slice, room = is_last ? padded(c) - first : slice;
    summation_.add(b, first, channels, room, block(b).at(first), scratch_[own_] + worker * worker_doubles_, nullptr);
  }

  /// Merges the blocks; `finish(first, channels, state)` is called for slices that cover all channels.
  template <class Finish>
  void merge(const Finish& finish) const noexcept {
    const std::int64_t c = sums_.geometry.c;
    const ChannelArrays state = state_.in(scratch_);
    state.clear_padding(c, sums_.kernels.state);
    for_each(machine_, plan_.workers, ceiling(c, plan_.merge_slice), [&](int, std::int64_t task) {
      const std::int64_t first = task * plan_.merge_slice, channels = (std::min)(plan_.merge_slice, c - first);
      std::int64_t before = 0;
      for (std::int64_t b = 0; b < sums_.partition.blocks; ++b) {
        const std::int64_t count = block_at(sums_.geometry, sums_.partition, b).values();
        sums_.kernels.merge(sums_.statistic, machine_.isa, state.at(first), block(b).at(first), channels, before, count);
        before += count;
      }
      finish(first, channels, state.at(first));
    });
  }

 private:
  SumArrays block(std::int64_t b) const noexcept {
    return sums_.arrays(scratch_[blocks_] + b * block_doubles_, padded(sums_.geometry.c));
  }

  const Machine& machine_;
  const Plan& plan_;
  const Sums& sums_;
  const Scratch& scratch_;
  BlockSummation summation_;
  std::int64_t block_doubles_ = 0, worker_doubles_ = 0;
  Scratch::Part<double> blocks_, own_;
  ChannelScratch state_;
};

/// The operation on everything, with the coefficients of each channel.
class WholeSweep {
 public:
  WholeSweep(const Machine& machine, const Plan& plan, const Work& work, const SweptShape& shape, Scratch& scratch) noexcept
      : machine_(machine), plan_(plan), work_(work), scratch_(scratch), sweep_(plan, work, shape) {
    const OperationKernels& k = work.kernels;
    const std::int64_t channels = work.geometry.c, positions = sweep_.positions();
    const bool are_positions = plan.by_rows && work.geometry.s == 1;  // then they repeat in place
    channels_ = CoefficientScratch::reserve(scratch, are_positions ? (std::max)(channels, positions) : channels, k.coefficients,
                                            k.compute_bytes);
    positions_ = are_positions ? channels_ : CoefficientScratch::reserve(scratch, positions, k.coefficients, k.compute_bytes);
  }

  /// Where the coefficients of the channels go before anything runs.
  CoefficientArrays coefficients() const noexcept { return channels_.in(scratch_); }

  /// Once the coefficients of the channels are known.
  void expand() const noexcept {
    if (plan_.by_rows) work_.expand(coefficients(), work_.geometry.c, positions_.in(scratch_), sweep_.positions());
  }

  void run_all() const noexcept { sweep_.run_all(machine_, (plan_.by_rows ? positions_ : channels_).in(scratch_)); }

  /// All channels of a block.
  void run_block(const Block& block) const noexcept {
    if (plan_.by_rows) return sweep_.run_rows(block.first_image, block.images, positions_.in(scratch_));
    sweep_.run_planes(block.first_image, block.images, 0, work_.geometry.c, block.first_position, block.length, coefficients());
  }

 private:
  const Machine& machine_;
  const Plan& plan_;
  const Work& work_;
  const Scratch& scratch_;
  Sweep sweep_;
  CoefficientScratch channels_, positions_;
};

}  // namespace detail

BATCHNORM_WALK void walk_sums(const Machine& machine, const Sums& sums, const SumsCallback& finish) {
  const Plan plan = plan_of_sums(machine, sums.shape());
  Scratch scratch;
  const detail::AllSums all(machine, plan, sums, scratch);
  scratch.allocate();
  all.add_all();
  all.merge(finish);
}

BATCHNORM_WALK void walk_operation(const Machine& machine, const Work& work, const FillCoefficients& fill) {
  const SweptShape shape = work.shape();
  const Plan plan = plan_of_operation(machine, shape);
  Scratch scratch;
  const detail::WholeSweep sweep(machine, plan, work, shape, scratch);
  scratch.allocate();
  in_default_mode([&] { fill(sweep.coefficients()); });
  sweep.expand();
  sweep.run_all();
}

BATCHNORM_WALK void walk_prepared(const Machine& machine, const Work& work, const PreparedCoefficients& prepared) {
  const SweptShape shape = work.shape();
  Plan plan = plan_of_operation(machine, shape);
  if (plan.by_rows && work.geometry.s != prepared.length) {
    return walk_operation(machine, work, [&](const CoefficientArrays& to) {
      const auto bytes = static_cast<std::size_t>(work.geometry.c * work.kernels.compute_bytes);
      for (std::size_t k = 0; k < static_cast<std::size_t>(work.kernels.coefficients); ++k) {
        std::memcpy(to[k], prepared.of_channels[k], bytes);
      }
    });
  }
  plan.period = prepared.period;
  const Sweep sweep(plan, work, shape);
  sweep.run_all(machine, plan.by_rows ? prepared.of_positions : prepared.of_channels);
}

BATCHNORM_WALK void walk_sums_and_operation(const Machine& machine, Sums& sums, const Work& work, const BesideKernels& beside,
                                            bool in_place, const SumsToCoefficients& finish) {
  const SweptShape shape = work.shape();
  const Plan plan = plan_of_sums_and_operation(machine, sums.shape(), shape);
  if (plan.walk != Walk::sums_operation) {
    sums.is_overwritten = in_place;  // groups are overwritten while others are summed
    GroupWalk groups(machine, plan, sums, work, shape, beside, finish);
    groups.allocate();
    return groups.run_all();
  }
  Scratch scratch;
  const detail::AllSums all(machine, plan, sums, scratch);
  const detail::WholeSweep sweep(machine, plan, work, shape, scratch);
  scratch.allocate();
  all.add_all();
  const CoefficientArrays coefficients = sweep.coefficients();
  all.merge([&](std::int64_t first, std::int64_t channels, const ChannelArrays& state) {
    finish(first, channels, state, work.from(coefficients, first));
  });
  sweep.expand();
  sweep.run_all();
}

BATCHNORM_WALK void walk_blocks(const Machine& machine, Sums& sums, const Work& work, bool in_place,
                                const FillCoefficients& fill, const SumsCallback& finish) {
  const SweptShape shape = work.shape();
  const Plan plan = plan_of_blocks(machine, sums.shape(), shape);
  sums.is_overwritten = in_place;
  Scratch scratch;
  const detail::AllSums all(machine, plan, sums, scratch);
  const detail::WholeSweep sweep(machine, plan, work, shape, scratch);
  scratch.allocate();
  in_default_mode([&] { fill(sweep.coefficients()); });
  sweep.expand();
  for_each(machine, plan.workers, sums.partition.blocks, [&](int worker, std::int64_t b) {
    all.add(worker, b, 0, sums.geometry.c);
    sweep.run_block(block_at(sums.geometry, sums.partition, b));
  });
  all.merge(finish);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
#endif
