// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cases.hpp"
#include "machine.hpp"

namespace selftest {

/// What a call left.
struct Outcome {
  std::vector<std::byte> bits;  ///< all outputs, one after another
  std::string wrong;            ///< an array that was written beside, or an input that was changed; else empty
};

/// How far it is from what is expected.
struct Verdict {
  double ulps = 0;    ///< largest error of y or dx, in ulp of its type at the magnitude of what it is computed from
  std::string wrong;  ///< the first bound that is broken, else empty
};

/// A case with its inputs and its memory on a machine.
class Run {
 public:
  virtual ~Run() = default;

  /// Uploads the inputs, poisons outputs and workspace.
  virtual void prepare() = 0;
  virtual void enqueue(batchnorm::cuda::Stream stream) = 0;
  virtual Outcome collect() = 0;
  /// Compares what was collected last with the CPU library in double.
  virtual Verdict check() const = 0;
};

std::unique_ptr<Run> make_run(const Case& one, Machine& machine);

/// FNV-1a, 64 bits.
std::uint64_t checksum(const std::vector<std::byte>& bits);

}  // namespace selftest
