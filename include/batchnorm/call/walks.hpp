// SPDX-License-Identifier: MIT
#pragma once

// From calls with types to walks without.

#include <batchnorm/call/problem.hpp>
#include <batchnorm/walk/walks.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

template <class To, class From>
void place(const From& from, To& to) noexcept {
  using Byte = std::remove_pointer_t<decltype(to[0].data)>;
  for (std::size_t j = 0; j < from.size(); ++j) to[j] = {reinterpret_cast<Byte*>(from[j].data), from[j].pitch};
}

/// The reduction, which must outlive it, as walks take it.
template <Element T, class Statistic>
Sums sums_of(Isa isa, const Reduction<T, Statistic>& reduction) noexcept {
  Sums sums(statistic_kernels<T, Statistic>(isa));
  sums.statistic = &reduction.statistic;
  sums.summation = &reduction.statistic.summation;
  if constexpr (detail::SumsTwice<Statistic>) sums.rough = &reduction.statistic.rough;
  sums.geometry = reduction.geometry;
  sums.partition = reduction.partition;
  place(reduction.in, sums.in);
  sums.bits = reduction.bits;
  return sums;
}

/// The same for an operation.
template <Element T, class Operation>
Work work_of(Isa isa, const Elementwise<T, Operation>& elementwise) noexcept {
  Work work(operation_kernels<T, Operation>(isa));
  work.operation = &elementwise.operation;
  for (int j = 0; j < Operation::outputs; ++j) work.stored += stores(elementwise.operation, j) ? 1 : 0;
  work.geometry = elementwise.geometry;
  place(elementwise.in, work.in);
  place(elementwise.out, work.out);
  work.bits = elementwise.bits;
  return work;
}

/// A statistic, and an operation that depends on it. `finish(first, channels, state, coefficients)` turns one into the other.
/// `in_place`: an output of the operation is an input of the reduction.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Statistic, class Operation>
void reduce_then_sweep(const Machine& machine, const Reduction<T, Statistic>& reduction, const Elementwise<T, Operation>& work,
                       bool in_place, const std::type_identity_t<CoefficientsCallback<T, Operation>>& finish) {
  Sums sums = sums_of(machine.isa, reduction);
  walk_sums_and_operation(
      machine, sums, work_of(machine.isa, work), beside_kernels<T, Statistic, Operation>(machine.isa), in_place,
      [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state, const CoefficientArrays& to) {
        finish(first, channels, state, CoefficientsOf<T, Operation>(to));
      });
}

/// Only the statistic. `finish(first, channels, state)` is called for slices that cover all channels.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Statistic>
void reduce(const Machine& machine, const Reduction<T, Statistic>& reduction, const SumsCallback& finish) {
  walk_sums(machine, sums_of(machine.isa, reduction), finish);
}

/// Only the operation. `fill(coefficients)` computes its coefficients, after all memory is allocated.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Operation>
void sweep(const Machine& machine, const Elementwise<T, Operation>& work,
           const std::type_identity_t<FillCallback<T, Operation>>& fill) {
  walk_operation(machine, work_of(machine.isa, work),
                 [&](const CoefficientArrays& to) { fill(CoefficientsOf<T, Operation>(to)); });
}

/// Only the operation, with coefficients that were computed before.
/// @throws std::bad_alloc   where walk_prepared() allocates, and before anything is written
template <Element T, class Operation>
void sweep_prepared(const Machine& machine, const Elementwise<T, Operation>& work, const PreparedCoefficients& prepared) {
  walk_prepared(machine, work_of(machine.isa, work), prepared);
}

/// A statistic and an operation that does not depend on it, block by block: what both read is read once. `fill(coefficients)`
/// comes before, `finish(first, channels, state)` after.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Statistic, class Operation>
void reduce_and_sweep(const Machine& machine, const Reduction<T, Statistic>& reduction, const Elementwise<T, Operation>& work,
                      bool in_place, const std::type_identity_t<FillCallback<T, Operation>>& fill, const SumsCallback& finish) {
  Sums sums = sums_of(machine.isa, reduction);
  walk_blocks(
      machine, sums, work_of(machine.isa, work), in_place,
      [&](const CoefficientArrays& to) { fill(CoefficientsOf<T, Operation>(to)); }, finish);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
