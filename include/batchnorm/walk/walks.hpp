// SPDX-License-Identifier: MIT
#pragma once

// Walks over whole tensors of either layout. They know no element type and no policy, and are compiled once in a program.

#include <batchnorm/walk/tensors.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Only sums. `finish(first, channels, state)` is called for slices that cover all channels.
/// @throws std::bad_alloc   before anything is written
BATCHNORM_WALK void walk_sums(const Machine& machine, const Sums& sums, const SumsCallback& finish);

/// Only the operation. `fill(coefficients)` computes its coefficients, after all memory is allocated.
/// @throws std::bad_alloc   before anything is written
BATCHNORM_WALK void walk_operation(const Machine& machine, const Work& work, const FillCoefficients& fill);

/// Only the operation, with coefficients that were computed before. Allocates nothing where the coefficients of positions were
/// prepared for planes of this length, or no positions are needed.
/// @throws std::bad_alloc   before anything is written
BATCHNORM_WALK void walk_prepared(const Machine& machine, const Work& work, const PreparedCoefficients& prepared);

/// Sums, and an operation that depends on them: `finish(first, channels, state, coefficients)` turns one into the other.
/// `in_place`: an output of the operation is an input of the sums.
/// @throws std::bad_alloc   before anything is written
BATCHNORM_WALK void walk_sums_and_operation(const Machine& machine, Sums& sums, const Work& work, const BesideKernels& beside,
                                            bool in_place, const SumsToCoefficients& finish);

/// Sums, and an operation that does not depend on them, block by block: what both read is read once. `fill(coefficients)`
/// comes before, `finish(first, channels, state)` after.
/// @throws std::bad_alloc   before anything is written
BATCHNORM_WALK void walk_blocks(const Machine& machine, Sums& sums, const Work& work, bool in_place,
                                const FillCoefficients& fill, const SumsCallback& finish);

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu

#include <batchnorm/walk/definitions.hpp>
