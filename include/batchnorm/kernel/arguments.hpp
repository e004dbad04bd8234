// SPDX-License-Identifier: MIT
#pragma once

// What walks hand to kernels: plain data that names neither an element type nor a policy. Strides count elements.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <batchnorm/plan/geometry.hpp>
#include <batchnorm/vector/bits.hpp>
#include <batchnorm/vector/prefetcher.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The most that any policy has of each kind.
inline constexpr int most_inputs = 3, most_outputs = 2, most_constants = 3, most_sums = 6, most_coefficients = 9;

/// A tensor as bytes, and where its elements lie.
template <class Byte>
struct Placed {
  Byte* data = nullptr;
  Pitch pitch;

  Byte* at(std::int64_t n, std::int64_t c, std::int64_t s, std::int64_t value_bytes) const noexcept {
    return data + (pitch.of_image(n) + c * pitch.channel + s) * value_bytes;
  }
};
using Inputs = std::array<Placed<const std::byte>, most_inputs>;
using OutputTensors = std::array<Placed<std::byte>, most_outputs>;

using InputPointers = std::array<const std::byte*, most_inputs>;
using OutputPointers = std::array<std::byte*, most_outputs>;
using InputStrides = std::array<std::int64_t, most_inputs>;
using OutputStrides = std::array<std::int64_t, most_outputs>;

/// Pointers to the same element of the first `count` tensors.
template <class Pointers, class Tensors>
Pointers pointers(const Tensors& tensors, int count, std::int64_t value_bytes, std::int64_t n, std::int64_t c,
                  std::int64_t s) noexcept {
  Pointers result{};
  for (std::size_t j = 0; j < static_cast<std::size_t>(count); ++j) result[j] = tensors[j].at(n, c, s, value_bytes);
  return result;
}

/// A distance of each tensor, in elements.
template <class Tensors>
std::array<std::int64_t, std::tuple_size_v<Tensors>> pitches(const Tensors& tensors, std::int64_t Pitch::*pitch) noexcept {
  std::array<std::int64_t, std::tuple_size_v<Tensors>> result;
  for (std::size_t j = 0; j < result.size(); ++j) result[j] = tensors[j].pitch.*pitch;
  return result;
}

/// Whether the first `count` tensors have that distance.
template <class Tensors>
bool have_pitch(const Tensors& tensors, int count, std::int64_t Pitch::*pitch, std::int64_t value) noexcept {
  return std::all_of(tensors.begin(), tensors.begin() + count,
                     [&](const auto& tensor) { return tensor.pitch.*pitch == value; });
}

/// Arrays over channels (or over columns) of a block's sums: the constants that the terms are formed with, and the sums.
struct SumArrays {
  std::array<double*, most_constants> constant{};
  std::array<double*, most_sums> sum{};

  /// constants + sums arrays of `stride` doubles, one after the other.
  static SumArrays in(double* memory, std::int64_t stride, int constants, int sums) noexcept {
    SumArrays result;
    for (int k = 0; k < constants; ++k, memory += stride) result.constant[static_cast<std::size_t>(k)] = memory;
    for (int k = 0; k < sums; ++k, memory += stride) result.sum[static_cast<std::size_t>(k)] = memory;
    return result;
  }
  /// The arrays from channel c on.
  SumArrays at(std::int64_t c) const noexcept {
    SumArrays result = *this;
    for (double*& p : result.constant) p = p == nullptr ? p : p + c;
    for (double*& p : result.sum) p = p == nullptr ? p : p + c;
    return result;
  }
};

/// The coefficients of an operation, one array over channels or positions each, in the computing type.
using CoefficientArrays = std::array<void*, most_coefficients>;

/// Sums over `images` runs of `length` values, for each of `channels` channels.
struct PlanesToSum {
  InputPointers in;
  InputStrides batch_stride, channel_stride;
  std::int64_t images, channels, length;
  BitReader bits;
  std::int64_t first_bit, batch_bits, channel_bits;
  SumArrays arrays;
};

/// Sums over `rows` rows, for each of `columns` columns.
struct ColumnsToSum {
  InputPointers in;
  InputStrides row_stride;
  std::int64_t rows, columns;
  std::int64_t safe_rows;  // rows that may be read past their last column, up to a whole pair of vectors
  BitReader bits;
  std::int64_t first_bit, row_bits;
  SumArrays arrays;
  std::array<Prefetcher, most_inputs> ahead;
};

/// Rows of 2-byte values that are copied to rows of float without gaps.
struct RowsToWiden {
  InputPointers from;
  InputStrides stride;
  std::array<float*, most_inputs> to;
  std::int64_t rows, columns;
};

/// Where the bits of an operation are; null where it has none.
struct BitsAt {
  const unsigned char* read = nullptr;
  unsigned char* written = nullptr;
  std::int64_t elements = 0;
};

/// An operation on `channels` channels of each of `images` images, `length` values each.
struct PlanesToOperateOn {
  InputPointers in;
  OutputPointers out;
  InputStrides in_batch_stride, in_stride;  // from image to image, from channel to channel
  OutputStrides out_batch_stride, out_stride;
  std::int64_t images, channels, length;
  CoefficientArrays coefficients;
  BitsAt bits;
  std::int64_t first_bit, batch_bits, channel_bits;
  bool streams;
};

/// How far an operation with non-temporal stores has come in its planes: element i of an image.
struct Progress {
  std::int64_t image = 0, channel = 0, i = 0;
  std::int64_t end_of_lines = 0;  // of the image
  bool is_inside = false;         // the image is begun
  BitReader reader;
  std::int64_t next_bit = 0;
  BitWriter writer;
};

/// An operation on rows whose positions have coefficients of their own.
struct RowsToOperateOn {
  InputPointers in;
  OutputPointers out;
  InputStrides in_stride;  // from row to row
  OutputStrides out_stride;
  std::int64_t rows, length, period;
  CoefficientArrays coefficients;
  BitsAt bits;
  std::int64_t first_bit, row_bits;
  bool streams;
  std::int64_t distance;  // elements that the inputs are prefetched ahead of their use
  std::array<Prefetcher, most_inputs> ahead;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
