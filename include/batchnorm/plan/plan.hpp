// SPDX-License-Identifier: MIT
#pragma once

// How a call goes through its tensors, as plain data. A plan follows from shapes, strides, sizes of types, and the machine.
// Nothing in it changes a result; the partition into blocks, which does, comes from partition.hpp.

#include <algorithm>
#include <cstdint>
#include <numeric>

#include <batchnorm/isa.hpp>
#include <batchnorm/plan/machine.hpp>
#include <batchnorm/plan/partition.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// What sums are taken of.
struct SummedShape {
  Geometry geometry;
  Partition partition;
  std::int64_t value_bytes = 0;  // of an element
  int inputs = 0;

  std::int64_t bytes() const noexcept { return geometry.elements() * value_bytes; }  // of one tensor
  std::int64_t read_bytes() const noexcept { return bytes() * inputs; }
};

/// What an operation is applied to.
struct SweptShape {
  Geometry geometry;
  std::int64_t value_bytes = 0, compute_bytes = 0;
  int inputs = 0, outputs = 0, coefficients = 0;
  bool has_whole_images = false;  // in every tensor, the channels of an image lie without gaps
  bool has_dense_rows = false;    // in every tensor, images (channels last: rows) lie without gaps

  std::int64_t bytes() const noexcept { return geometry.elements() * value_bytes; }
  std::int64_t swept_bytes() const noexcept { return bytes() * (inputs + outputs); }
  std::int64_t line() const noexcept { return 64 / value_bytes; }  // elements of a cache line
};

enum class Walk {
  sums,                ///< only sums, block by block
  operation,           ///< only an operation
  sums_operation,      ///< all sums, then the operation on everything
  blocks,              ///< block by block, the sums and an operation that does not depend on them
  groups,              ///< group of channels by group of channels, the sums, then the operation; the next group is prefetched
  groups_side_by_side  ///< the operation on a group, with non-temporal stores, beside the sums of the next
};

struct Plan {
  Walk walk = Walk::operation;
  int workers = 1;

  // Sums.
  std::int64_t sum_slice = 0;    ///< channels of a task that sums a block
  std::int64_t merge_slice = 0;  ///< channels of a task that merges blocks

  // Groups.
  std::int64_t group = 0;        ///< channels
  bool expands = false;          ///< the coefficients of a group are expanded to positions
  bool prefetches_next = false;  ///< the next group is prefetched
  bool is_walked_back = false;   ///< the operation begins with the images that were summed last

  // The operation.
  bool streams = false;          ///< non-temporal stores
  bool by_rows = false;          ///< with coefficients expanded to positions, otherwise plane by plane
  bool is_flat = false;          ///< rows are worked on as one long row
  bool is_reversed = false;      ///< tasks in descending order
  std::int64_t period = 0;       ///< positions after which expanded coefficients repeat
  std::int64_t task_images = 0;  ///< images (by rows: rows) of a task
  std::int64_t task_channels = 0;
  std::int64_t task_length = 0;  ///< values of each plane
  std::int64_t tasks = 0;
};

/// Sums over whole tensors by blocks. Few blocks are cut into slices of channels, so that no thread is left without work;
/// merging is worth a second thread only when there is much of it.
inline void plan_sums(const Machine& machine, const SummedShape& of, Plan& plan) noexcept {
  const std::int64_t c = of.geometry.c, blocks = of.partition.blocks;
  plan.workers = machine.workers(of.bytes());
  const bool can_slice = plan.workers > 1 && of.partition.super_row == 1;
  const bool is_serial = c * blocks < (1 << 14);
  const auto of_whole_vectors = [c](std::int64_t parts) { return detail::ceiling(detail::ceiling(c, parts), 64) * 64; };
  plan.sum_slice = can_slice ? of_whole_vectors(detail::ceiling(4 * plan.workers, blocks)) : c;
  plan.merge_slice = is_serial ? c : (std::max<std::int64_t>)(64, of_whole_vectors(2 * plan.workers));
}

/// Rows of pictures below this length are stored through the cache: the lines at both ends, stored in part, cost more.
inline bool has_short_rows(const Geometry& g) noexcept { return g.is_of_rows() && g.s < 1024; }

/// The positions after which the coefficients of one long row repeat: a multiple of `columns`, and so many that the inner loop
/// is long; still a few KB at most of float.
constexpr std::int64_t flat_period(std::int64_t columns) noexcept {
  constexpr std::int64_t least = 512;
  return columns == 0 ? 0 : detail::ceiling(least, columns) * columns;
}

/// An operation on everything.
inline void plan_operation(const Machine& machine, const SweptShape& of, bool streams, bool is_reversed, Plan& plan) noexcept {
  const Geometry& g = of.geometry;
  plan.workers = machine.workers(of.bytes());
  // Planes of less than a cache line are worked on position by position.
  plan.by_rows = g.channels_last || (g.s < of.line() && of.has_whole_images);
  plan.streams = streams && (plan.by_rows || !has_short_rows(g));
  plan.is_reversed = is_reversed && plan.by_rows;
  const std::int64_t task_bytes = plan.is_reversed ? machine.tuning->reverse_block_bytes : machine.task_bytes(of.bytes());
  if (plan.by_rows) {
    // While the coefficients stay in L1 beside x, one long row is best: it has no ends, and memory is read in order. Otherwise
    // a few rows at a time share what is loaded of them (in 0.63 of the time for 100 rows of 3000 channels on Zen 4), but for
    // non-temporal stores, which want whole lines.
    const std::int64_t columns = g.c * g.s, coefficient_bytes = of.coefficients * columns * of.compute_bytes;
    plan.is_flat = of.has_dense_rows && (coefficient_bytes <= 16 << 10 || (plan.streams && columns % of.line() != 0));
    plan.period = plan.is_flat ? (std::min)(flat_period(columns), g.n * columns) : columns;
    plan.task_images = (std::max<std::int64_t>)(1, task_bytes / (columns * of.value_bytes));
    plan.tasks = detail::ceiling(g.n, plan.task_images);
    return;
  }
  // A task is several images, or several channels of one, or a part of a plane; parts begin at whole lines.
  const std::int64_t values = task_bytes / of.value_bytes;
  plan.task_images = (std::max<std::int64_t>)(1, values / (g.c * g.s));
  plan.task_channels = std::clamp<std::int64_t>(values / g.s, 1, g.c);
  plan.task_length = g.s <= 2 * values ? g.s : (std::max<std::int64_t>)(1, values / 64) * 64;
  plan.tasks = detail::ceiling(g.n, plan.task_images) * detail::ceiling(g.c, plan.task_channels) *
               detail::ceiling(g.s, plan.task_length);
}

/// The number of channels of a group: as many as the cache share holds, whole cache lines per image where that is possible, and
/// small enough that every thread gets two.
inline std::int64_t group_of(const Machine& machine, const SummedShape& of, const Plan& plan) noexcept {
  const Geometry& g = of.geometry;
  const Tuning& t = *machine.tuning;
  const bool is_side_by_side = plan.walk == Walk::groups_side_by_side;
  const std::int64_t line = 64 / of.value_bytes, channel_bytes = g.n * g.s * of.value_bytes * of.inputs;
  const bool fits_cache = of.read_bytes() <= t.l3_bytes;
  const std::int64_t of_planes =
      fits_cache && !is_side_by_side ? (std::max)(t.plane_group_bytes, t.l3_bytes / 4) : t.plane_group_bytes;
  const std::int64_t wanted = plan.expands ? t.column_group_bytes : of_planes;
  const std::int64_t fair = of.read_bytes() / ((is_side_by_side ? 8 : 2) * plan.workers);
  const std::int64_t share = plan.workers == 1 && !is_side_by_side ? wanted : (std::min)(wanted, fair);
  const std::int64_t channels = std::clamp<std::int64_t>(share / channel_bytes, 1, g.c);
  const std::int64_t whole_lines = line / std::gcd(line, g.s);
  const std::int64_t group = channels >= whole_lines ? channels / whole_lines * whole_lines : channels;
  const bool widens = plan.expands && whole_lines <= g.c && whole_lines * channel_bytes <= 4 * wanted;
  return widens ? (std::max)(group, whole_lines) : group;
}

/// Groups of channels, of a channels-first tensor. False where there are too few to give every thread its share.
inline bool plan_groups(const Machine& machine, const SummedShape& sums, const SweptShape& swept, bool streams,
                        Plan& plan) noexcept {
  const Geometry& g = sums.geometry;
  if (g.channels_last) return false;
  const bool is_plain = g.is_one_run() && swept.has_whole_images;
  plan.workers = machine.workers(sums.bytes());
  plan.expands = is_plain && (g.s < swept.line() || sums.partition.columns);
  const bool is_side_by_side = streams && is_plain && !plan.expands && is_tuned_for(machine.isa);
  plan.walk = is_side_by_side ? Walk::groups_side_by_side : Walk::groups;
  plan.streams = streams && !has_short_rows(g);
  plan.group = group_of(machine, sums, plan);
  plan.prefetches_next = plan.expands && sums.read_bytes() > machine.tuning->l2_bytes;
  // Of a group that fills a good part of the cache, what was summed last is still there.
  plan.is_walked_back = plan.group * g.n * g.s * sums.value_bytes * sums.inputs > machine.tuning->l3_bytes / 8;
  const std::int64_t groups = detail::ceiling(g.c, plan.group);
  return plan.workers == 1 || groups % plan.workers == 0 || groups >= 4 * plan.workers;
}

inline Plan plan_of_sums(const Machine& machine, const SummedShape& of) noexcept {
  Plan plan;
  plan.walk = Walk::sums;
  plan_sums(machine, of, plan);
  return plan;
}

inline Plan plan_of_operation(const Machine& machine, const SweptShape& of) noexcept {
  Plan plan;
  plan.walk = Walk::operation;
  plan_operation(machine, of, machine.streams(of.bytes(), of.swept_bytes(), machine.tuning->inference_stream_share), false,
                 plan);
  return plan;
}

/// Sums, and an operation that does not depend on them.
inline Plan plan_of_blocks(const Machine& machine, const SummedShape& sums, const SweptShape& swept) noexcept {
  Plan plan = plan_of_operation(machine, swept);
  plan_sums(machine, sums, plan);
  plan.walk = Walk::blocks;
  return plan;
}

/// Sums, and an operation that depends on them.
inline Plan plan_of_sums_and_operation(const Machine& machine, const SummedShape& sums, const SweptShape& swept) noexcept {
  const bool streams = machine.streams(swept.bytes(), swept.swept_bytes(), machine.tuning->training_stream_share);
  const double read = static_cast<double>(sums.read_bytes()), l3 = static_cast<double>(machine.tuning->l3_bytes);
  Plan plan;
  if (plan_groups(machine, sums, swept, streams, plan)) return plan;
  plan.walk = Walk::sums_operation;
  plan_operation(machine, swept, streams, read > l3 / 2 && read < 2 * l3, plan);
  plan_sums(machine, sums, plan);
  return plan;
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
