// SPDX-License-Identifier: MIT
#pragma once

// Elements as kernels see them: stored in 2, 4 or 8 bytes, computed in float or double.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <batchnorm/cuda/accelerator.cuh>
#include <batchnorm/cuda/call.hpp>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace batchnorm::cuda {

/// Elements of a chunk.
template <class T>
inline constexpr int chunk_size = 16 / static_cast<int>(sizeof(T));

namespace detail {

template <class To, class From>
BATCHNORM_HOST_DEVICE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

/// Exact. For the emulator; a device has an instruction.
inline float float_of_half(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16, rest = h & 0x7fffU;
  if (rest >= 0x7c00U) return bits_as<float>(sign | 0x7f800000U | (rest & 0x3ffU) << 13);
  const float magnitude = bits_as<float>(rest << 13) * 0x1p112F;  // subnormals come out right: the product is exact
  return bits_as<float>(sign | bits_as<std::uint32_t>(magnitude));
}

/// To nearest, ties to even.
inline std::uint16_t half_of_float(float f) {
  const std::uint32_t bits = bits_as<std::uint32_t>(f), sign = bits >> 16 & 0x8000U, rest = bits & 0x7fffffffU;
  if (rest > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7fffU);
  if (rest >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // 2^16 and more
  if (rest < 0x38800000U) {
    // Below 2^-14 the spacing is 2^-24: so is that of floats from 2^-1 on.
    const float shifted = bits_as<float>(rest) + 0.5F;
    return static_cast<std::uint16_t>(sign | (bits_as<std::uint32_t>(shifted) - bits_as<std::uint32_t>(0.5F)));
  }
  const std::uint32_t rounded = rest + 0xfffU + (rest >> 13 & 1U);
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000U) >> 13);
}

inline std::uint16_t bfloat16_of_float(float f) {
  const std::uint32_t bits = bits_as<std::uint32_t>(f);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0x7fffU;
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

}  // namespace detail

BATCHNORM_DEVICE float widen(float v) { return v; }
BATCHNORM_DEVICE double widen(double v) { return v; }
BATCHNORM_DEVICE float widen(Half v) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(v.bits));
#else
  return detail::float_of_half(v.bits);
#endif
}
BATCHNORM_DEVICE float widen(BFloat16 v) { return detail::bits_as<float>(static_cast<std::uint32_t>(v.bits) << 16); }

/// Rounded to T, to nearest, ties to even.
template <class T>
BATCHNORM_DEVICE T narrow(Compute<T> v) {
  if constexpr (std::is_same_v<T, Half>) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(v))};
#else
    return {detail::half_of_float(v)};
#endif
  } else if constexpr (std::is_same_v<T, BFloat16>) {
#if defined(__CUDA_ARCH__)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(v))};
#else
    return {detail::bfloat16_of_float(v)};
#endif
  } else {
    return v;
  }
}

BATCHNORM_DEVICE bool is_finite(double v) { return v - v == 0; }
BATCHNORM_DEVICE bool is_finite(float v) { return v - v == 0; }

/// a * b + c with one rounding. The translation unit is compiled with -fmad=false: nothing else is contracted, and a device
/// gives the bits that the emulator gives.
BATCHNORM_DEVICE float fused(float a, float b, float c) { return std::fmaf(a, b, c); }
BATCHNORM_DEVICE double fused(double a, double b, double c) { return std::fma(a, b, c); }

/// Elements side by side, as many as a chunk holds.
template <class T>
struct Elements {
  static constexpr int size = chunk_size<T>;
  T at[size];

  BATCHNORM_DEVICE static Elements of(const Chunk& chunk) {
    Elements result;
    std::memcpy(&result, &chunk, sizeof(chunk));
    return result;
  }
  BATCHNORM_DEVICE Chunk chunk() const {
    Chunk result;
    std::memcpy(&result, this, sizeof(result));
    return result;
  }
};

}  // namespace batchnorm::cuda
