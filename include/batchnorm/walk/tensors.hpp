// SPDX-License-Identifier: MIT
#pragma once

// What a walk is given: tensors as bytes, tables of kernels, pointers to policies.

#include <batchnorm/kernel/tables.hpp>
#include <batchnorm/plan/plan.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// What is summed (problem.hpp says what a statistic is).
struct Sums {
  explicit Sums(const StatisticKernels& of_statistic) noexcept : kernels(of_statistic) {}

  const StatisticKernels& kernels;
  const void* statistic = nullptr;
  const void* summation = nullptr;
  const void* rough = nullptr;  // the Summation of the first of two passes
  Geometry geometry;
  Partition partition;
  Inputs in;
  const unsigned char* bits = nullptr;
  bool is_overwritten = false;  // an output is an input: nothing beyond a task's own values may be read while others write

  SummedShape shape() const noexcept { return {geometry, partition, kernels.value_bytes, kernels.inputs}; }
  BitReader bit_reader() const noexcept { return {bits, bits == nullptr ? 0 : geometry.elements()}; }
  InputPointers pointers(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return cpu::pointers<InputPointers>(in, kernels.inputs, kernels.value_bytes, n, c, s);
  }
  /// The arrays of a block's sums.
  SumArrays arrays(double* memory, std::int64_t stride) const noexcept {
    return SumArrays::in(memory, stride, kernels.sums.constants, kernels.sums.sums);
  }
  int array_count() const noexcept { return kernels.sums.constants + kernels.sums.sums; }
};

/// An operation on every element.
struct Work {
  explicit Work(const OperationKernels& of_operation) noexcept : kernels(of_operation) {}

  const OperationKernels& kernels;
  const void* operation = nullptr;
  int stored = 0;  // outputs that are wanted
  Geometry geometry;
  Inputs in;
  OutputTensors out;
  BitsAt bits;

  SweptShape shape() const noexcept {
    const Geometry& g = geometry;
    return {g,
            kernels.value_bytes,
            kernels.compute_bytes,
            kernels.inputs,
            stored,
            kernels.coefficients,
            g.has_whole_images() && all_pitches(&Pitch::channel, g.s),
            all_pitches(&Pitch::outer, g.c * g.s)};
  }
  bool all_pitches(std::int64_t Pitch::*pitch, std::int64_t value) const noexcept {
    return have_pitch(in, kernels.inputs, pitch, value) && have_pitch(out, kernels.outputs, pitch, value);
  }
  InputPointers in_pointers(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return pointers<InputPointers>(in, kernels.inputs, kernels.value_bytes, n, c, s);
  }
  OutputPointers out_pointers(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return pointers<OutputPointers>(out, kernels.outputs, kernels.value_bytes, n, c, s);
  }
  CoefficientArrays from(const CoefficientArrays& coefficients, std::int64_t c) const noexcept {
    return at(coefficients, c, kernels.compute_bytes);
  }
  void expand(const CoefficientArrays& channels, std::int64_t count, const CoefficientArrays& to,
              std::int64_t positions) const noexcept {
    if (kernels.compute_bytes == sizeof(float)) {
      cpu::expand<float>(channels, kernels.coefficients, count, geometry.s, to, positions);
    } else {
      cpu::expand<double>(channels, kernels.coefficients, count, geometry.s, to, positions);
    }
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
