// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

template <class T, int Bytes>
struct NativeVector {
  typedef T type __attribute__((vector_size(Bytes)));
};

/// The value in every lane. GCC makes insertions of what the vector extension says, hence the intrinsics.
template <class Native, class T>
BATCHNORM_INLINE void repeat(Native& v, T value) {
  v = value - Native{};
}
#if defined(__x86_64__)
[[gnu::target(BATCHNORM_TARGET_V3)]] inline void repeat(NativeVector<float, 32>::type& v, float value) {
  v = NativeVector<float, 32>::type(_mm256_set1_ps(value));
}
[[gnu::target(BATCHNORM_TARGET_V3)]] inline void repeat(NativeVector<double, 32>::type& v, double value) {
  v = NativeVector<double, 32>::type(_mm256_set1_pd(value));
}
[[gnu::target(BATCHNORM_TARGET_V4)]] inline void repeat(NativeVector<float, 64>::type& v, float value) {
  v = NativeVector<float, 64>::type(_mm512_set1_ps(value));
}
[[gnu::target(BATCHNORM_TARGET_V4)]] inline void repeat(NativeVector<double, 64>::type& v, double value) {
  v = NativeVector<double, 64>::type(_mm512_set1_pd(value));
}
#endif

/// What a comparison of two vec yields: all ones or all zeros in each lane.
template <class Native>
struct Mask {
  Native v;
};

/// Bytes of T side by side, over the vector extension that GCC and Clang share. Passed by reference: by value, a function
/// without a target attribute would have another ABI than one with it.
template <class T, int Bytes>
struct vec {
  using scalar = T;
  using native = typename NativeVector<T, Bytes>::type;
  static constexpr int lanes = Bytes / static_cast<int>(sizeof(T));

  native v;

  static BATCHNORM_INLINE vec zero() { return {native{}}; }
  static BATCHNORM_INLINE vec broadcast(T value) {
    vec result;
    repeat(result.v, value);
    return result;
  }
  static BATCHNORM_INLINE vec load(const void* p) {
    vec result;
    std::memcpy(&result.v, p, sizeof(native));
    return result;
  }
  BATCHNORM_INLINE void store(void* p) const { std::memcpy(p, &v, sizeof(native)); }

  friend BATCHNORM_INLINE vec operator+(const vec& a, const vec& b) { return {a.v + b.v}; }
  friend BATCHNORM_INLINE vec operator-(const vec& a, const vec& b) { return {a.v - b.v}; }
  friend BATCHNORM_INLINE vec operator*(const vec& a, const vec& b) { return {a.v * b.v}; }
  friend BATCHNORM_INLINE vec operator/(const vec& a, const vec& b) { return {a.v / b.v}; }
  friend BATCHNORM_INLINE auto operator<(const vec& a, const vec& b) { return Mask<decltype(a.v < b.v)>{a.v < b.v}; }
  friend BATCHNORM_INLINE auto operator<=(const vec& a, const vec& b) { return Mask<decltype(a.v <= b.v)>{a.v <= b.v}; }
  friend BATCHNORM_INLINE auto operator==(const vec& a, const vec& b) { return Mask<decltype(a.v == b.v)>{a.v == b.v}; }
};

/// What comparing two V yields.
template <class V>
using MaskOf = decltype(V::zero() < V::zero());

template <class M>
BATCHNORM_INLINE Mask<M> operator!(const Mask<M>& mask) {
  return {~mask.v};
}

/// Lane by lane: mask ? a : b. SSE2 has no blend: GCC would choose lane by lane where the mask comes from memory.
template <class M, class T, int Bytes>
BATCHNORM_INLINE vec<T, Bytes> select(const Mask<M>& mask, const vec<T, Bytes>& a, const vec<T, Bytes>& b) {
#if defined(__SSE2__) && !defined(__SSE4_1__)
  if constexpr (Bytes == 16) {
    M bits_a, bits_b;
    std::memcpy(&bits_a, &a.v, sizeof(M));
    std::memcpy(&bits_b, &b.v, sizeof(M));
    const M bits = (mask.v & bits_a) | (~mask.v & bits_b);
    vec<T, Bytes> result;
    std::memcpy(&result.v, &bits, sizeof(M));
    return result;
  }
#endif
  return {mask.v ? a.v : b.v};
}

/// All ones in the lanes from `first` on, zeros before; first in [-lanes, 2 * lanes].
/// A window over a table: compared with a vector of lane numbers, GCC 12 would compare lane by lane.
template <class V>
BATCHNORM_INLINE auto lanes_from(std::int64_t first) {
  using Integer = std::conditional_t<sizeof(typename V::scalar) == 8, std::int64_t, std::int32_t>;
  static constexpr auto table = [] {
    std::array<Integer, 4 * V::lanes> bits{};
    for (std::size_t i = 2 * V::lanes; i < bits.size(); ++i) bits[i] = -1;
    return bits;
  }();
  using Native = typename NativeVector<Integer, V::lanes* static_cast<int>(sizeof(Integer))>::type;
  Mask<Native> mask;
  std::memcpy(&mask.v, table.data() + 2 * V::lanes - first, sizeof(mask.v));
  return mask;
}

/// The sum of the lanes, by halving: the same tree for every compiler.
template <int Bytes>
BATCHNORM_INLINE double sum(const vec<double, Bytes>& a) {
  if constexpr (Bytes == 64) {
    return sum(vec<double, 32>{__builtin_shufflevector(a.v, a.v, 0, 1, 2, 3) + __builtin_shufflevector(a.v, a.v, 4, 5, 6, 7)});
  } else if constexpr (Bytes == 32) {
    return sum(vec<double, 16>{__builtin_shufflevector(a.v, a.v, 0, 1) + __builtin_shufflevector(a.v, a.v, 2, 3)});
  } else {
    return a.v[0] + a.v[1];
  }
}

/// The sums of the lanes of as many vectors as a vector has lanes, each by the tree of `sum`: lane k is the sum of vector k.
/// Vectors are halved and put side by side two at a time.
template <int Bytes>
BATCHNORM_INLINE vec<double, Bytes> sums(const vec<double, Bytes> (&v)[Bytes / 8]) {
  using D = vec<double, Bytes>;
  if constexpr (Bytes == 64) {
    D half[4], quarter[2];
    BATCHNORM_UNROLL
    for (int k = 0; k < 4; ++k) {
      half[k].v = __builtin_shufflevector(v[k].v, v[k + 4].v, 0, 1, 2, 3, 8, 9, 10, 11) +
                  __builtin_shufflevector(v[k].v, v[k + 4].v, 4, 5, 6, 7, 12, 13, 14, 15);
    }
    BATCHNORM_UNROLL
    for (int k = 0; k < 2; ++k) {
      quarter[k].v = __builtin_shufflevector(half[k].v, half[k + 2].v, 0, 1, 8, 9, 4, 5, 12, 13) +
                     __builtin_shufflevector(half[k].v, half[k + 2].v, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    return {__builtin_shufflevector(quarter[0].v, quarter[1].v, 0, 8, 2, 10, 4, 12, 6, 14) +
            __builtin_shufflevector(quarter[0].v, quarter[1].v, 1, 9, 3, 11, 5, 13, 7, 15)};
  } else if constexpr (Bytes == 32) {
    D half[2];
    BATCHNORM_UNROLL
    for (int k = 0; k < 2; ++k) {
      half[k].v =
          __builtin_shufflevector(v[k].v, v[k + 2].v, 0, 1, 4, 5) + __builtin_shufflevector(v[k].v, v[k + 2].v, 2, 3, 6, 7);
    }
    return {__builtin_shufflevector(half[0].v, half[1].v, 0, 4, 2, 6) +
            __builtin_shufflevector(half[0].v, half[1].v, 1, 5, 3, 7)};
  } else {
    return {__builtin_shufflevector(v[0].v, v[1].v, 0, 2) + __builtin_shufflevector(v[0].v, v[1].v, 1, 3)};
  }
}

/// |a|
template <class V>
BATCHNORM_INLINE V absolute(const V& a) {
  return select(a < V::zero(), V::zero() - a, a);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
