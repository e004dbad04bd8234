// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How a call will go through memory, in words, and on which instruction set.

#include <string>

#include <batchnorm/call/arguments.hpp>
#include <batchnorm/call/backward.hpp>
#include <batchnorm/moments.hpp>
#include <batchnorm/plan/explain.hpp>

namespace batchnorm {

/// A pass over x, with parameters and outputs that are usual for it.
enum class Pass {
  inference,           ///< y from given statistics
  training,            ///< the statistics of x, then y
  backward,            ///< gradients in training: dx, dscale and dbias
  inference_backward,  ///< gradients in inference
  moments              ///< the statistics of x alone
};

inline namespace BATCHNORM_KERNELS {

/// The plan of a call in one line: how x is seen (batch, channels, values), which walk goes through it, the blocks that sums
/// are taken in, whether stores are non-temporal, how many threads work, and for which kind of machine the numbers are. For
/// example
///
///   32 images of 2048 channels of 49 values: groups of 256 channels, the operation beside the sums of the next group; sums in
///   1 block of up to 32 images; non-temporal stores; 1 thread; numbers for complexes of cores
///
///   x   [N, C, spatial...] or [N, spatial..., C], rank 2 to 5; nothing is read of it
///
/// All other tensors of the call are taken to lie in memory as x does. The words may change from version to version.
/// @throws ShapeError, ValueError   as BatchNorm does for x
template <Element T>
std::string explain(Pass pass, TensorView<const T> x, Format format, const CallOptions& call = {});

/// The same of whatever a TensorView is made of.
template <TensorLike X>
std::string explain(Pass pass, const X& x, Format format, const CallOptions& call = {}) {
  return explain<element_of<X>>(pass, TensorView<const element_of<X>>(x), format, call);
}

/// The instruction set that a call on x runs on: active_isa(), but x86-64-v4 for elements of 2 bytes on a processor that
/// executes 64-byte vectors in halves, unless runs of values are short or an instruction set was forced. All other tensors of
/// the call are taken to lie in memory as x does.
///
///   x   [N, C, spatial...] or [N, spatial..., C], rank 2 to 5; nothing is read of it
/// @throws ShapeError, ValueError   as BatchNorm does for x
template <Element T>
Isa isa_of(TensorView<const T> x, Format format);

/// The same of whatever a TensorView is made of.
template <TensorLike X>
Isa isa_of(const X& x, Format format) {
  return isa_of<element_of<X>>(TensorView<const element_of<X>>(x), format);
}

// ----------------------------------------------------------------------------------------------------------------------------

namespace arguments {

/// What a pass sums and applies, as its policies say.
template <Element T>
struct PassShape {
  cpu::SummedShape sums;
  cpu::SweptShape swept;

  PassShape(Pass pass, const cpu::Geometry& geometry, const cpu::Pitch& pitch) noexcept {
    using Nothing = cpu::Passage<Identity, cpu::Through::nothing>;
    sums.geometry = swept.geometry = geometry;
    sums.value_bytes = swept.value_bytes = sizeof(T);
    swept.compute_bytes = sizeof(compute_t<T>);
    swept.outputs = 1;
    swept.has_whole_images = geometry.has_whole_images() && pitch.channel == geometry.s;
    swept.has_dense_rows = pitch.outer == geometry.c * geometry.s;
    sums.partition = cpu::partition_of<T>(geometry, geometry.channels_last ? swept.has_dense_rows : swept.has_whole_images);
    switch (pass) {
      case Pass::inference:
      case Pass::training:
      case Pass::moments: set<cpu::MomentStatistic<T>, cpu::Normalization<T, Identity, false, false>>(); break;
      case Pass::backward: set<cpu::GradientStatistic<T, Nothing>, cpu::TrainingGradient<T, Nothing>>(); break;
      case Pass::inference_backward: set<cpu::GradientStatistic<T, Nothing>, cpu::InferenceGradient<T, Nothing>>(); break;
    }
  }

  template <class Statistic, class Operation>
  void set() noexcept {
    sums.inputs = Statistic::Summation::inputs;
    swept.inputs = Operation::inputs;
    swept.coefficients = Operation::coefficients;
  }

  cpu::Plan plan(Pass pass, const cpu::Machine& machine) const noexcept {
    switch (pass) {
      case Pass::inference: return cpu::plan_of_operation(machine, swept);
      case Pass::inference_backward: return cpu::plan_of_blocks(machine, sums, swept);
      case Pass::moments: return cpu::plan_of_sums(machine, sums);
      default: return cpu::plan_of_sums_and_operation(machine, sums, swept);
    }
  }
};

/// Where the numbers of a call come from.
inline std::string words_of_tuning(const CallOptions& call) {
  if (call.tuning != nullptr) return "numbers of the caller";
  return std::string("numbers for ").append(cpu::words_of(kind_of(machine_caches()))) +
         (batchnorm::detail::settled_tuning().is_changed ? ", changed by BATCHNORM_TUNING" : "");
}

}  // namespace arguments

template <Element T>
std::string explain(Pass pass, TensorView<const T> x, Format format, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::explain", call);
  const arguments::Arguments arguments(reporter, x, format);
  if (arguments::stops(reporter, call)) return {};
  const cpu::Machine machine = arguments::machine_of<T>(call, arguments.geometry());
  if (arguments.empty()) return "an empty batch: nothing is done";
  const arguments::PassShape<T> shape(pass, arguments.geometry(), arguments.x(x).pitch);
  const cpu::Plan plan = shape.plan(pass, machine);
  return cpu::explain(plan, arguments.geometry(), pass == Pass::inference ? nullptr : &shape.sums.partition) + "; " +
         arguments::words_of_tuning(call);
}

template <Element T>
Isa isa_of(TensorView<const T> x, Format format) {
  const arguments::Arguments arguments(arguments::Reporter("batchnorm::isa_of"), x, format);
  return arguments::isa_for(sizeof(T), arguments.geometry());
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
