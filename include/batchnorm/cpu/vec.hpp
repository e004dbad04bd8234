// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <batchnorm/cpu/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

template <class T, int Bytes>
struct NativeVector {
  typedef T type __attribute__((vector_size(Bytes)));
};

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
  static BATCHNORM_INLINE vec broadcast(T value) { return {value - native{}}; }
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

/// Lane by lane: mask ? a : b.
template <class M, class T, int Bytes>
BATCHNORM_INLINE vec<T, Bytes> select(const Mask<M>& mask, const vec<T, Bytes>& a, const vec<T, Bytes>& b) {
  return {mask.v ? a.v : b.v};
}

/// 0, 1, 2, ... lane by lane.
template <class V>
BATCHNORM_INLINE V lane_numbers() {
  V result;
  for (int i = 0; i < V::lanes; ++i) result.v[i] = static_cast<typename V::scalar>(i);
  return result;
}

/// The sum of the lanes, by halving: the same tree for every compiler.
template <class T, int Bytes>
BATCHNORM_INLINE T sum(const vec<T, Bytes>& a) {
  if constexpr (Bytes == 2 * sizeof(T)) {
    return a.v[0] + a.v[1];
  } else {
    vec<T, Bytes / 2> low, high;
    std::memcpy(&low, &a, sizeof(low));
    std::memcpy(&high, reinterpret_cast<const char*>(&a) + sizeof(low), sizeof(high));
    return sum(low + high);
  }
}

/// |a|
template <class V>
BATCHNORM_INLINE V absolute(const V& a) {
  return select(a < V::zero(), V::zero() - a, a);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
