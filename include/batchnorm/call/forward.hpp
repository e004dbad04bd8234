// SPDX-License-Identifier: MIT
#pragma once

// The forward pass over canonical tensors that are not empty and are known to be right.

#include <batchnorm/call/walks.hpp>
#include <batchnorm/policy/statistics.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The moments of x as a reduction.
template <Element T>
Reduction<T, MomentStatistic<T>> moments_of(const Geometry& geometry, const Operand<const T>& x) noexcept {
  const std::array<Operand<const T>, 1> in{x};
  return {geometry, in, partition_of<T>(geometry, are_gapless(geometry, in)), {}};
}

/// Statistics, everything that follows from them, and y.
/// @throws std::bad_alloc   before anything is written
template <Element T, Element P, class Operation>
void train(const Machine& machine, const Elementwise<T, Operation>& work, const ChannelArguments<P>& arguments) {
  const Geometry& g = work.geometry;
  const bool in_place = work.out[0].data == work.in[0].data;
  reduce_then_sweep(machine, moments_of(g, work.in[0]), work, in_place,
                    [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state,
                        const NormalizationCoefficients<compute_t<T>>& coefficients) {
                      run(machine.isa, FinalizeChannels<compute_t<T>, P>{MomentSums(state), channels, g.values(),
                                                                         arguments.at(first), coefficients});
                    });
}

/// Mean, what a double cannot hold of it, and the sum of squared deviations, per channel.
/// @throws std::bad_alloc   before anything is written
template <Element T>
void collect_moments(const Machine& machine, const Geometry& geometry, const Operand<const T>& x, double* mean,
                     double* mean_low, double* m2) {
  reduce(machine, moments_of(geometry, x), [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state) {
    const MomentSums from(state);
    for (std::int64_t c = 0; c < channels; ++c) {
      mean[first + c] = from.mean[c];
      mean_low[first + c] = from.mean_low[c];
      m2[first + c] = from.m2[c] + from.m2_low[c];
    }
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
