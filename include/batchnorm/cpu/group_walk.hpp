// SPDX-License-Identifier: MIT
#pragma once

// The walk over groups of channels of a channels-first tensor.

#include <numeric>

#include <batchnorm/cpu/channels_first.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// A statistic of a group of channels, then an operation that depends on it, while the group is in cache and the next one is on
/// its way there. `finish(first, channels, state, coefficients)` turns merged blocks into the coefficients of the operation.
template <Element T, class Statistic, class Operation>
class GroupWalk {
 public:
  using Compute = compute_t<T>;
  using Sweep = PlaneSweep<T, Operation>;
  using Summation = typename Statistic::Summation;
  using Arrays = SumArrays<Summation>;
  using Constants = Coefficients<Compute, Operation::coefficients>;
  using Finish = CoefficientsCallback<T, Operation>;

  GroupWalk(const Machine& machine, const Reduction<T, Statistic>& reduction, const Elementwise<T, Operation>& work,
            const Finish& finish, bool streams) noexcept
      : machine_(machine),
        reduction_(reduction),
        finish_(finish),
        blocks_(machine, reduction),
        sweep_(machine, work, streams),
        workers_(machine.workers(reduction.bytes())),
        positions_(work.geometry.is_one_run() && Sweep::is_gapless(work) &&
                   (work.geometry.s < line_of<T> || reduction.partition.columns)),
        is_side_by_side_(streams && work.geometry.is_one_run() && Sweep::is_gapless(work) && !positions_) {
    choose_group();
  }

  /// False when there are too few channels to give every thread its share.
  bool fits() const noexcept { return workers_ == 1 || groups() % workers_ == 0 || groups() >= 4 * workers_; }

  /// @throws std::bad_alloc
  void allocate() {
    const auto capacity = static_cast<std::int64_t>(workers_);
    for (std::int64_t w = 0; w < capacity; ++w) {
      WorkerParts parts;
      parts.channels = ChannelScratch::reserve(scratch_, group_, Arrays::count + Statistic::state);
      parts.coefficients = decltype(parts.coefficients)::reserve(scratch_, group_);
      parts.positions = decltype(parts.positions)::reserve(scratch_, positions_ ? group_ * geometry().s + line_of<T> : 0);
      parts.columns = scratch_.template reserve<double>(blocks_.scratch_doubles());
      if (w == 0) first_worker_ = parts;
      if (w == 1) worker_bytes_ = parts.channels.doubles.offset - first_worker_.channels.doubles.offset;
    }
    scratch_.allocate();
  }

  void run_all() const noexcept {
    Counter counter;
    const auto work = [&](int worker) {
      in_default_mode([&] {
        const Worker own = worker_at(worker);
        own.state.clear_behind(group_, Statistic::state);
        if (is_side_by_side_) {
          walk<typename Sweep::Planes>(counter, own);
        } else {
          walk<NoCompanion>(counter, own);
        }
      });
    };
    if (workers_ == 1) {
      work(0);
    } else {
      machine_.executor->run(workers_, work);
    }
  }

 private:
  struct WorkerParts {
    ChannelScratch channels;
    CoefficientScratch<Compute, Operation::coefficients> coefficients, positions;
    Scratch::Part<double> columns;
  };

  struct Worker {
    Arrays block;
    ChannelArrays state;
    Constants coefficients, positions;
    double* columns;
  };

  const Geometry& geometry() const noexcept { return reduction_.geometry; }

  /// The number of channels of a group: as many as the cache share holds, whole cache lines per image where that is possible,
  /// and small enough that every thread gets two.
  void choose_group() noexcept {
    const Geometry& g = geometry();
    const Tuning& t = *machine_.tuning;
    const std::int64_t channel_bytes = g.n * g.s * static_cast<std::int64_t>(sizeof(T)) * Summation::inputs;
    const bool fits_cache = reduction_.bytes() * Summation::inputs <= t.l3_bytes;
    const std::int64_t of_planes =
        fits_cache && !is_side_by_side_ ? (std::max)(t.plane_group_bytes, t.l3_bytes / 4) : t.plane_group_bytes;
    const std::int64_t wanted = positions_ ? t.column_group_bytes : of_planes;
    const std::int64_t fair = reduction_.bytes() * Summation::inputs / ((is_side_by_side_ ? 8 : 2) * workers_);
    const std::int64_t share = workers_ == 1 && !is_side_by_side_ ? wanted : (std::min)(wanted, fair);
    const std::int64_t channels = std::clamp<std::int64_t>(share / channel_bytes, 1, g.c);
    const std::int64_t whole_lines = line_of<T> / std::gcd(line_of<T>, g.s);
    group_ = channels >= whole_lines ? channels / whole_lines * whole_lines : channels;
    if (positions_ && whole_lines <= g.c && whole_lines * channel_bytes <= 4 * wanted) {
      group_ = (std::max)(group_, whole_lines);
    }
  }

  std::int64_t groups() const noexcept { return detail::ceiling(geometry().c, group_); }

  Worker worker_at(int worker) const noexcept {
    WorkerParts parts = first_worker_;
    const std::size_t shift = static_cast<std::size_t>(worker) * worker_bytes_;
    parts.channels.doubles.offset += shift;
    parts.coefficients.values.offset += shift;
    parts.positions.values.offset += shift;
    parts.columns.offset += shift;
    const ChannelArrays arrays = parts.channels.in(scratch_);
    return {Arrays::in(arrays.first, arrays.stride),
            {arrays[Arrays::count], arrays.stride},
            parts.coefficients.in(scratch_),
            parts.positions.in(scratch_),
            scratch_[parts.columns]};
  }

  /// The groups of one worker. The companion is the operation on the group before the one that is summed.
  template <class Companion>
  void walk(Counter& counter, const Worker& own) const noexcept {
    Companion companion{};
    std::int64_t group = counter.take();
    while (group < groups()) {
      // Only the next group that is known can be prefetched; side by side, none is held back from other threads.
      const std::int64_t next = Companion::works ? 0 : counter.take();
      sum_group(group, own, companion);
      if constexpr (Companion::works) {
        if (!companion.is_done()) run(machine_.isa, companion);
      }
      finish_(first_of(group), channels_of(group), own.state, own.coefficients);
      if constexpr (Companion::works) {
        companion = sweep_.planes(0, geometry().n, first_of(group), channels_of(group), 0, geometry().s, own.coefficients);
      } else {
        operate(group, next, own);
      }
      group = Companion::works ? counter.take() : next;
    }
    if constexpr (Companion::works) {
      if (!companion.is_done()) run(machine_.isa, companion);
      intrinsics::stream_fence();  // the non-temporal stores made beside sums
    }
  }

  std::int64_t first_of(std::int64_t group) const noexcept { return group * group_; }
  std::int64_t channels_of(std::int64_t group) const noexcept { return (std::min)(group_, geometry().c - first_of(group)); }

  template <class Companion>
  void sum_group(std::int64_t group, const Worker& own, Companion& companion) const noexcept {
    const std::int64_t channels = channels_of(group);
    std::int64_t before = 0;
    for (std::int64_t b = 0; b < reduction_.partition.blocks; ++b) {
      const std::int64_t count = block_at(geometry(), reduction_.partition, b).values();
      blocks_.sums(b, first_of(group), channels, padded(channels), own.block, own.columns, companion);
      reduction_.statistic.merge(machine_.isa, own.state, own.block, channels, before, count);
      before += count;
    }
  }

  /// The operation on a group, while the next one is prefetched.
  void operate(std::int64_t group, std::int64_t next, const Worker& own) const noexcept {
    const Geometry& g = geometry();
    const std::int64_t first = first_of(group), channels = channels_of(group);
    if (positions_) {
      const bool prefetches = next < groups() && reduction_.bytes() * Summation::inputs > machine_.tuning->l2_bytes;
      expand(own.coefficients, channels, g.s, own.positions, channels * g.s + line_of<T>);
      sweep_.run_positions(first, channels, own.positions, prefetches ? first_of(next) : -1);
      return;
    }
    // Of a group that fills a good part of the cache, what was summed last is still there.
    const std::int64_t group_bytes = channels * g.n * g.s * static_cast<std::int64_t>(sizeof(T)) * Summation::inputs;
    if (group_bytes <= machine_.tuning->l3_bytes / 8) {
      sweep_.run_planes(0, g.n, first, channels, 0, g.s, own.coefficients);
      return;
    }
    for (std::int64_t n = g.n - 1; n >= 0; --n) sweep_.run_planes(n, 1, first, channels, 0, g.s, own.coefficients);
  }

  Machine machine_;
  Reduction<T, Statistic> reduction_;
  Finish finish_;
  PlaneBlocks<T, Statistic> blocks_;
  Sweep sweep_;
  int workers_;
  bool positions_;
  bool is_side_by_side_;
  std::int64_t group_ = 1;
  Scratch scratch_;
  WorkerParts first_worker_;
  std::size_t worker_bytes_ = 0;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
