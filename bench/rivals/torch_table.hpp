// SPDX-License-Identifier: MIT
#pragma once

// What the module that contains libtorch offers, in terms of C: it may have been compiled against another ABI of the standard
// library than this program.

#include <cstdint>

namespace bench {

struct Buffers;

struct TorchProblem {
  int operation, layout, type;  // the enumerators of Problem
  const std::int64_t* extents;
  int rank;
  int threads;
};

struct TorchTable {
  const char* version;
  /// Null where it does not offer the problem.
  void* (*open)(const TorchProblem* problem, const Buffers* buffers);
  void (*run)(void* opened);
  /// Copies dscale and dbias of the last run to the caller's buffers.
  void (*fetch_sums)(void* opened);
  /// Whether the result lies in the caller's buffer.
  bool (*has_plain_result)(void* opened);
  double (*seconds_to_sleep)(void* opened);
  void (*close)(void* opened);
};

}  // namespace bench

extern "C" const bench::TorchTable* batchnorm_bench_torch_table();
