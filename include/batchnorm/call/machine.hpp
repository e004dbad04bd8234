// SPDX-License-Identifier: MIT
#pragma once

// The machine that a call runs on.

#include <string>

#include <batchnorm/call/machine_tuning.hpp>
#include <batchnorm/call/reporter.hpp>
#include <batchnorm/isa.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/plan/machine.hpp>
#include <batchnorm/thread_team.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// @throws ValueError   BATCHNORM_ISA, BATCHNORM_NUM_THREADS or BATCHNORM_TUNING cannot be used
inline cpu::Machine machine_of(const CallOptions& call) {
  return {active_isa(), call.executor != nullptr ? call.executor : &default_executor(),
          call.tuning != nullptr ? call.tuning : &machine_tuning()};
}

/// Whether the call ends here: an argument was found wrong, or it was only to be checked. Where errors are reported, so is an
/// instruction set that active_isa() would refuse: for calls that need no more of the machine. To be asked when all arguments
/// are checked, before anything is written.
inline bool stops_on_this_thread(const Reporter& reporter) {
  if (reporter.reports() && !reporter.failed()) {
    const std::string problem = cpu::problem_of_isa();
    if (!problem.empty()) reporter.report<ValueError>(problem);
  }
  return reporter.stops();
}

/// The same for calls that need machine_of().
inline bool stops(const Reporter& reporter, const CallOptions& call) {
  stops_on_this_thread(reporter);
  if (reporter.reports() && !reporter.failed()) {
    std::string problem;
    if (call.executor == nullptr) problem = batchnorm::detail::default_team.problem();
    if (problem.empty() && call.tuning == nullptr) problem = batchnorm::detail::problem_of_tuning();
    if (!problem.empty()) reporter.report<ValueError>(problem);
  }
  return reporter.stops();
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
