// SPDX-License-Identifier: MIT
#pragma once

// A plan in words.

#include <string>
#include <string_view>

#include <batchnorm/plan/plan.hpp>
#include <batchnorm/plan/tuning.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

namespace detail {

inline std::string counted(std::int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

inline std::string words_of(const Geometry& g) {
  if (g.channels_last) return counted(g.n, "row") + " of " + counted(g.c, "channel");
  const std::string planes = counted(g.c, "channel") + " of " + counted(g.s, "value");
  return counted(g.n, g.is_of_rows() ? "row of pictures, each" : "image") + " of " + planes;
}

inline std::string words_of(const Partition& p, const Geometry& g) {
  std::string words = "sums in " + counted(p.blocks, "block");
  if (p.parts > 1) return words + " of up to " + counted(p.length, "value") + " of a plane";
  words += " of up to " + counted(p.images, g.channels_last ? "row" : "image");
  if (p.columns) words += ", column by column";
  if (p.super_row > 1) words += ", " + std::to_string(p.super_row) + " rows side by side";
  return words;
}

/// What is done in each task of an operation.
inline std::string words_of_operation(const Plan& plan) {
  std::string words = plan.by_rows ? (plan.is_flat ? "positions in one run" : "positions row by row") : "plane by plane";
  if (plan.is_reversed) words += ", from the end";
  return words + " in " + counted(plan.tasks, "task");
}

inline std::string words_of_walk(const Plan& plan) {
  switch (plan.walk) {
    case Walk::sums: return "all sums, then merged";
    case Walk::operation: return words_of_operation(plan);
    case Walk::sums_operation: return "all sums, then the operation, " + words_of_operation(plan);
    case Walk::blocks: return "block by block, the sums and the operation";
    case Walk::groups:
      return "groups of " + counted(plan.group, "channel") + ", the sums, then the operation" +
             (plan.expands ? " position by position" : "") +
             (plan.prefetches_next ? " while the next group is prefetched" : "") +
             (plan.is_walked_back ? ", last image first" : "");
    case Walk::groups_side_by_side:
      return "groups of " + counted(plan.group, "channel") + ", the operation beside the sums of the next group";
  }
  return {};
}

}  // namespace detail

inline std::string_view words_of(MachineKind kind) noexcept {
  switch (kind) {
    case MachineKind::complexes: return "complexes of cores";
    case MachineKind::large_l2: return "a large second-level cache";
    case MachineKind::unknown: break;
  }
  return "an unknown machine";
}

/// One line; `partition` is null where nothing is summed.
inline std::string explain(const Plan& plan, const Geometry& geometry, const Partition* partition) {
  std::string words = detail::words_of(geometry) + ": " + detail::words_of_walk(plan);
  if (partition != nullptr) words += "; " + detail::words_of(*partition, geometry);
  if (plan.walk != Walk::sums) words += plan.streams ? "; non-temporal stores" : "; plain stores";
  return words + "; " + detail::counted(plan.workers, "thread");
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
