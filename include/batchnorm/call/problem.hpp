// SPDX-License-Identifier: MIT
#pragma once

// What a call asks for, with its types: sums over channels, and operations on every element. `sums_of` and `work_of` make of it
// what walks take.

#include <batchnorm/kernel/channel_arrays.hpp>
#include <batchnorm/kernel/operands.hpp>
#include <batchnorm/plan/partition.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// A tensor of the call's geometry.
template <class T>
struct Operand {
  T* data = nullptr;
  Pitch pitch;

  T* at(std::int64_t n, std::int64_t c, std::int64_t s = 0) const noexcept {
    return data + pitch.of_image(n) + c * pitch.channel + s;
  }
};

/// Whether in every tensor the channels of an image (channels last: the rows of a run) lie without gaps.
template <class T, std::size_t Count>
bool are_gapless(const Geometry& g, const std::array<Operand<T>, Count>& in) noexcept {
  const auto all = [&](std::int64_t Pitch::*pitch, std::int64_t value) {
    return std::all_of(in.begin(), in.end(), [&](const Operand<T>& o) { return o.pitch.*pitch == value; });
  };
  return g.channels_last ? all(&Pitch::outer, g.c) : g.has_whole_images() && all(&Pitch::channel, g.s);
}

/// Sums over channels, block by block. A Statistic says what is summed and how blocks are put together:
///
///   Summation, summation    what the kernels compute (operands.hpp)
///   state                   arrays over channels that merged blocks are kept in
///   void begin(in, block, first, channels, arrays) const                  the constants of a block
///   void merge(isa, state, arrays, channels, before, count) const         blocks in their order; `before` values came before
///
/// and, if a block is summed twice, what the first pass computes, and what follows for the constants of the second:
///
///   Rough, rough                                                          a Summation whose arrays are the first ones
///   void refine(isa, block, channels, arrays) const
template <Element T, class Statistic>
struct Reduction {
  using Summation = typename Statistic::Summation;

  Geometry geometry;
  std::array<Operand<const T>, Summation::inputs> in;
  Partition partition;
  Statistic statistic;
  const unsigned char* bits = nullptr;
};

/// An operation on every element.
template <Element T, class Op>
struct Elementwise {
  using Operation = Op;

  Geometry geometry;
  std::array<Operand<const T>, Operation::inputs> in;
  std::array<Operand<T>, Operation::outputs> out;
  Operation operation;
  BitsAt bits{};
};

template <Element T, class Operation>
using CoefficientsOf = Coefficients<compute_t<T>, Operation::coefficients>;

/// (first, channels, state, coefficients): the sums of channels [first, first + channels) are merged in `state`; where the
/// coefficients that follow from them go.
template <Element T, class Operation>
using CoefficientsCallback = Callback<std::int64_t, std::int64_t, const ChannelArrays&, const CoefficientsOf<T, Operation>&>;

/// Where the coefficients of all channels go.
template <Element T, class Operation>
using FillCallback = Callback<const CoefficientsOf<T, Operation>&>;

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
