// SPDX-License-Identifier: MIT
#pragma once

// The walk over groups of channels of a channels-first tensor: the sums of a group, then the operation that depends on them,
// while the group is in cache.

#include <optional>

#include <batchnorm/walk/sum_blocks.hpp>
#include <batchnorm/walk/sweep.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

class GroupWalk {
 public:
  /// `finish` turns merged blocks into the coefficients of the operation.
  GroupWalk(const Machine& machine, const Plan& plan, const Sums& sums, const Work& work, const SweptShape& shape,
            const BesideKernels& beside, const SumsToCoefficients& finish) noexcept
      : machine_(machine),
        plan_(plan),
        sums_(sums),
        work_(work),
        shape_(shape),
        beside_(beside),
        finish_(finish),
        blocks_(machine, sums),
        sweep_(plan, work, shape),
        groups_(detail::ceiling(sums.geometry.c, plan.group)) {}

  /// @throws std::bad_alloc
  void allocate();

  void run_all() const noexcept;

 private:
  struct WorkerParts {
    ChannelScratch channels;
    CoefficientScratch coefficients, positions;
    Scratch::Part<double> columns;
  };

  /// What a worker has of its own.
  struct Worker {
    SumArrays block;
    ChannelArrays state;
    CoefficientArrays coefficients, positions;
    double* columns;
  };

  Worker worker_at(int worker) const noexcept;
  std::int64_t first_of(std::int64_t group) const noexcept { return group * plan_.group; }
  std::int64_t channels_of(std::int64_t group) const noexcept {
    return (std::min)(plan_.group, sums_.geometry.c - first_of(group));
  }

  /// Positions that the expanded coefficients of so many channels cover, the line after them included.
  std::int64_t positions_of(std::int64_t channels) const noexcept { return channels * shape_.geometry.s + shape_.line(); }

  void walk(Counter& counter, const Worker& own) const noexcept;
  void walk_side_by_side(Counter& counter, const Worker& own) const noexcept;
  void sum(std::int64_t group, const Worker& own, Companion* companion) const noexcept;
  void finish(std::int64_t group, const Worker& own) const noexcept {
    finish_(first_of(group), channels_of(group), own.state, own.coefficients);
  }
  void operate(std::int64_t group, std::int64_t next, const Worker& own) const noexcept;

  const Machine& machine_;
  const Plan& plan_;
  const Sums& sums_;
  const Work& work_;
  const SweptShape& shape_;
  const BesideKernels& beside_;
  SumsToCoefficients finish_;
  BlockSummation blocks_;
  Sweep sweep_;
  std::int64_t groups_;
  Scratch scratch_;
  WorkerParts first_worker_;
  std::size_t worker_bytes_ = 0;
};

// ----------------------------------------------------------------------------------------------------------------------------

inline void GroupWalk::allocate() {
  const std::int64_t positions = plan_.expands ? positions_of(plan_.group) : 0;
  const int arrays = sums_.array_count() + sums_.kernels.state;
  for (int w = 0; w < plan_.workers; ++w) {
    WorkerParts parts;
    parts.channels = ChannelScratch::reserve(scratch_, plan_.group, arrays);
    parts.coefficients =
        CoefficientScratch::reserve(scratch_, plan_.group, work_.kernels.coefficients, work_.kernels.compute_bytes);
    parts.positions = CoefficientScratch::reserve(scratch_, positions, work_.kernels.coefficients, work_.kernels.compute_bytes);
    parts.columns = scratch_.reserve<double>(blocks_.scratch_doubles());
    if (w == 0) first_worker_ = parts;
    if (w == 1) worker_bytes_ = parts.channels.doubles.offset - first_worker_.channels.doubles.offset;
  }
  scratch_.allocate();
}

inline GroupWalk::Worker GroupWalk::worker_at(int worker) const noexcept {
  WorkerParts parts = first_worker_;
  const std::size_t shift = static_cast<std::size_t>(worker) * worker_bytes_;
  parts.channels.doubles.offset += shift;
  parts.coefficients.values.offset += shift;
  parts.positions.values.offset += shift;
  parts.columns.offset += shift;
  const ChannelArrays arrays = parts.channels.in(scratch_);
  return {sums_.arrays(arrays.first, arrays.stride),
          {arrays[sums_.array_count()], arrays.stride},
          parts.coefficients.in(scratch_),
          parts.positions.in(scratch_),
          scratch_[parts.columns]};
}

inline void GroupWalk::run_all() const noexcept {
  Counter counter;
  const auto work = [&](int worker) {
    in_default_mode([&] {
      const Worker own = worker_at(worker);
      own.state.clear_padding(plan_.group, sums_.kernels.state);
      if (plan_.walk == Walk::groups_side_by_side) {
        walk_side_by_side(counter, own);
      } else {
        walk(counter, own);
      }
    });
  };
  if (plan_.workers == 1) {
    work(0);
  } else {
    machine_.executor->run(plan_.workers, work);
  }
}

/// Only the next group that is known can be prefetched.
inline void GroupWalk::walk(Counter& counter, const Worker& own) const noexcept {
  for (std::int64_t group = counter.take(); group < groups_;) {
    const std::int64_t next = counter.take();
    sum(group, own, nullptr);
    finish(group, own);
    operate(group, next, own);
    group = next;
  }
}

/// The operation on a group goes on beside the sums of the next one.
inline void GroupWalk::walk_side_by_side(Counter& counter, const Worker& own) const noexcept {
  std::optional<Companion> companion;
  const auto drain = [&] {
    if (companion && !companion->is_done()) sweep_.run(companion->planes, companion->progress);
  };
  for (std::int64_t group = counter.take(); group < groups_; group = counter.take()) {
    sum(group, own, companion ? &*companion : nullptr);
    drain();
    finish(group, own);
    companion.emplace(Companion{
        beside_, work_.operation,
        sweep_.planes(0, work_.geometry.n, first_of(group), channels_of(group), 0, work_.geometry.s, own.coefficients),
        Progress()});
  }
  drain();
  intrinsics::stream_fence();  // the non-temporal stores made beside sums
}

inline void GroupWalk::sum(std::int64_t group, const Worker& own, Companion* companion) const noexcept {
  const std::int64_t channels = channels_of(group);
  std::int64_t before = 0;
  for (std::int64_t b = 0; b < sums_.partition.blocks; ++b) {
    const std::int64_t count = block_at(sums_.geometry, sums_.partition, b).values();
    blocks_.add(b, first_of(group), channels, padded(channels), own.block, own.columns, companion);
    sums_.kernels.merge(sums_.statistic, machine_.isa, own.state, own.block, channels, before, count);
    before += count;
  }
}

inline void GroupWalk::operate(std::int64_t group, std::int64_t next, const Worker& own) const noexcept {
  const Geometry& g = work_.geometry;
  const std::int64_t first = first_of(group), channels = channels_of(group);
  if (plan_.expands) {
    work_.expand(own.coefficients, channels, own.positions, positions_of(channels));
    return sweep_.run_positions(first, channels, own.positions, plan_.prefetches_next && next < groups_ ? first_of(next) : -1);
  }
  if (!plan_.is_walked_back) return sweep_.run_planes(0, g.n, first, channels, 0, g.s, own.coefficients);
  for (std::int64_t n = g.n - 1; n >= 0; --n) sweep_.run_planes(n, 1, first, channels, 0, g.s, own.coefficients);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
