// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include <batchnorm/executor.hpp>
#include <batchnorm/plan/tuning.hpp>

#include "../rivals/rival.hpp"
#include "errors.hpp"
#include "row.hpp"

namespace bench {

/// The library's answer to a problem, with the buffers it works on; they are filled and touched.
class Workload {
 public:
  virtual ~Workload() = default;

  /// The operation once, on the instruction set in force.
  virtual void run() = 0;

  /// Runs it once and compares with the oracle: what is wrong, or nothing.
  virtual std::string check() = 0;

  virtual Buffers buffers() = 0;

  /// Takes x and dy, in memory's order, instead of noise. Where statistics are given, they are those of the batch; momentum is
  /// 1, so that the running ones become those of the batch alone.
  virtual void set_values(std::span<const double> x, std::span<const double> dy) = 0;

  /// How far off the buffers are after `compute`, which finds NaN in all that it should write; not of the moments.
  virtual Errors errors_of(const std::function<void()>& compute) = 0;

  /// From now on runs with other numbers than this machine's. They stay the caller's.
  virtual void use(const batchnorm::Tuning& tuning) = 0;
};

/// Each type is compiled in a file of its own.
template <class T>
std::unique_ptr<Workload> make_workload_of(const Problem& problem, batchnorm::Executor& executor);

/// Of the problem's type.
std::unique_ptr<Workload> make_workload(const Problem& problem, batchnorm::Executor& executor);

/// Bytes of the buffers that a workload allocates.
double workload_bytes(const Problem& problem);

}  // namespace bench
