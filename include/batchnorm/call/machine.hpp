// SPDX-License-Identifier: MIT
#pragma once

// The machine that a call runs on.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include <batchnorm/call/machine_tuning.hpp>
#include <batchnorm/call/reporter.hpp>
#include <batchnorm/element.hpp>
#include <batchnorm/isa.hpp>
#include <batchnorm/options.hpp>
#include <batchnorm/plan/geometry.hpp>
#include <batchnorm/plan/machine.hpp>
#include <batchnorm/thread_team.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// The instruction set for elements of so many bytes. Where none is asked for and the processor executes 64-byte vectors in
/// halves, elements of 2 bytes take these all the same, except in short runs: converting and packing them takes half as many
/// instructions. On Zen 4, medians over shapes of time with x86-64-v4 over x86-64-v3, training / inference / backward: half
/// 0.97 / 1.08 / 0.97 NCHW, 0.84 / 0.91 / 0.80 NHWC; bfloat16 0.90 / 0.93 / 0.90 and 0.93 / 0.81 / 0.97; planes of 49 values,
/// where the ends of runs weigh, 1.0 to 1.2.
/// @throws ValueError   BATCHNORM_ISA cannot be used
inline Isa isa_for(std::size_t element_bytes, const cpu::Geometry& geometry) {
  constexpr std::int64_t short_run = 64;
  if (element_bytes != 2 || !(geometry.channels_last || geometry.s >= short_run)) return active_isa();
  if (cpu::chosen_isa() != batchnorm::detail::automatic_isa) return active_isa();
  return std::clamp(batchnorm::detail::best_isa_of_processor(), compiled_isa(), largest_isa());
}

/// Of a call on elements of T.
/// @throws ValueError   BATCHNORM_ISA, BATCHNORM_NUM_THREADS or BATCHNORM_TUNING cannot be used
template <Element T>
cpu::Machine machine_of(const CallOptions& call, const cpu::Geometry& geometry) {
  return {isa_for(sizeof(T), geometry), call.executor != nullptr ? call.executor : &default_executor(),
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
