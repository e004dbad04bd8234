// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <batchnorm/element.hpp>
#include <batchnorm/vector/bfloat16_vectors.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// a * b + c, fused where the instruction set has it; the same in every lane of every loop.
template <class V>
BATCHNORM_INLINE V fma(const V& a, const V& b, const V& c) {
  V result;
  intrinsics::fma(result, a, b, c);
  return result;
}

template <class V>
BATCHNORM_INLINE V square_root(const V& a) {
  V result;
  intrinsics::sqrt(result, a);
  return result;
}

/// Elements of T that one vector of its computing type holds.
template <int Bytes, Element T>
inline constexpr std::int64_t lanes_of = Bytes / static_cast<std::int64_t>(sizeof(compute_t<T>));

/// Elements that a pair of vectors of double holds: the step of everything that is summed in double.
template <int Bytes>
inline constexpr std::int64_t pair_of = 2 * Bytes / 8;

/// Elements of T in a cache line.
template <Element T>
inline constexpr std::int64_t line_of = 64 / static_cast<std::int64_t>(sizeof(T));

template <int Bytes, Element T>
BATCHNORM_INLINE vec<compute_t<T>, Bytes> load(const T* p) {
  vec<compute_t<T>, Bytes> result;
  if constexpr (std::same_as<T, half>) {
    intrinsics::load_half(result, p);
  } else if constexpr (std::same_as<T, bfloat16>) {
    intrinsics::load_bfloat16(result, p);
  } else {
    result = vec<T, Bytes>::load(p);
  }
  return result;
}

/// One rounding, to nearest even.
template <int Bytes, Element T>
BATCHNORM_INLINE void store(T* p, const vec<compute_t<T>, Bytes>& a) {
  if constexpr (std::same_as<T, half>) {
    intrinsics::store_half(p, a);
  } else if constexpr (std::same_as<T, bfloat16>) {
    intrinsics::store_bfloat16(p, a);
  } else {
    a.store(p);
  }
}

/// a as it will be read back from memory.
template <Element T, class V>
BATCHNORM_INLINE V rounded(const V& a) {
  if constexpr (sizeof(T) != 2) return a;
  constexpr int bytes = V::lanes * static_cast<int>(sizeof(typename V::scalar));
  T buffer[lanes_of<bytes, T>];
  store<bytes>(static_cast<T*>(buffer), a);
  return load<bytes>(static_cast<const T*>(buffer));
}

/// Non-temporal stores; p is aligned to the bytes written.
template <int Bytes, Element T>
BATCHNORM_INLINE void stream(T* p, const vec<compute_t<T>, Bytes>& a) {
  if constexpr (std::same_as<T, half>) {
    intrinsics::stream_half(p, a);
  } else {
    static_assert(!std::same_as<T, bfloat16>, "bfloat16 is streamed two vectors at a time");
    intrinsics::stream(p, a);
  }
}

/// The elements of `Count` vectors. Where the order does not matter it is one that loading and storing agree on.
template <bool in_order, Element T, int Bytes, int Count>
BATCHNORM_INLINE void load(vec<compute_t<T>, Bytes> (&a)[Count], const T* p) {
  if constexpr (std::same_as<T, bfloat16> && Count % 2 == 0) {
    intrinsics::load_bfloat16<in_order>(a, p);
  } else {
    BATCHNORM_UNROLL
    for (int v = 0; v < Count; ++v) a[v] = load<Bytes>(p + v * lanes_of<Bytes, T>);
  }
}
template <bool in_order, bool past, Element T, int Bytes, int Count>
BATCHNORM_INLINE void store(T* p, const vec<compute_t<T>, Bytes> (&a)[Count]) {
  if constexpr (std::same_as<T, bfloat16> && Count % 2 == 0) {
    intrinsics::store_bfloat16<in_order, past>(p, a);
  } else {
    BATCHNORM_UNROLL
    for (int v = 0; v < Count; ++v) {
      T* to = p + v * lanes_of<Bytes, T>;
      if constexpr (past) {
        stream<Bytes>(to, a[v]);
      } else {
        store<Bytes>(to, a[v]);
      }
    }
  }
}

/// pair_of<Bytes> elements as double.
template <int Bytes, Element T>
BATCHNORM_INLINE void load_pair(vec<double, Bytes>& low, vec<double, Bytes>& high, const T* p) {
  if constexpr (std::same_as<T, double>) {
    low = vec<double, Bytes>::load(p);
    high = vec<double, Bytes>::load(p + vec<double, Bytes>::lanes);
  } else if constexpr (std::same_as<T, float>) {
    intrinsics::load_float(low, high, p);
  } else if constexpr (std::same_as<T, half>) {
    intrinsics::load_half(low, high, p);
  } else {
    intrinsics::load_bfloat16(low, high, p);
  }
}

/// pair_of<Bytes> doubles, rounded to T (by way of float for the 16-bit types: 0.501 ulp).
template <int Bytes, Element T>
BATCHNORM_INLINE void store_pair(T* p, const vec<double, Bytes>& low, const vec<double, Bytes>& high) {
  if constexpr (std::same_as<T, double>) {
    low.store(p);
    high.store(p + vec<double, Bytes>::lanes);
  } else {
    vec<float, Bytes> narrow;
    intrinsics::narrow(narrow, low, high);
    store<Bytes>(p, narrow);
  }
}

/// The first `count` elements at p, followed by zeros; reads no further.
template <int Bytes, Element T>
BATCHNORM_INLINE vec<compute_t<T>, Bytes> load_first(const T* p, std::int64_t count) {
  T buffer[lanes_of<Bytes, T>] = {};
  std::memcpy(static_cast<void*>(buffer), p, static_cast<std::size_t>(count) * sizeof(T));
  return load<Bytes>(static_cast<const T*>(buffer));
}

template <int Bytes, Element T>
BATCHNORM_INLINE void store_first(T* p, const vec<compute_t<T>, Bytes>& a, std::int64_t count) {
  T buffer[lanes_of<Bytes, T>];
  store<Bytes>(static_cast<T*>(buffer), a);
  std::memcpy(static_cast<void*>(p), buffer, static_cast<std::size_t>(count) * sizeof(T));
}

template <int Bytes, Element T>
BATCHNORM_INLINE void load_pair_first(vec<double, Bytes>& low, vec<double, Bytes>& high, const T* p, std::int64_t count) {
  T buffer[pair_of<Bytes>] = {};
  std::memcpy(static_cast<void*>(buffer), p, static_cast<std::size_t>(count) * sizeof(T));
  load_pair(low, high, static_cast<const T*>(buffer));
}

/// `count` elements at p in the last lanes, zeros before them.
template <int Bytes, Element T>
BATCHNORM_INLINE void load_pair_last(vec<double, Bytes>& low, vec<double, Bytes>& high, const T* p, std::int64_t count) {
  T buffer[pair_of<Bytes>] = {};
  std::memcpy(static_cast<void*>(buffer + pair_of<Bytes> - count), p, static_cast<std::size_t>(count) * sizeof(T));
  load_pair(low, high, static_cast<const T*>(buffer));
}

template <int Bytes, Element T>
BATCHNORM_INLINE void store_pair_first(T* p, const vec<double, Bytes>& low, const vec<double, Bytes>& high,
                                       std::int64_t count) {
  T buffer[pair_of<Bytes>];
  store_pair(static_cast<T*>(buffer), low, high);
  std::memcpy(static_cast<void*>(p), buffer, static_cast<std::size_t>(count) * sizeof(T));
}

/// Prefetches the line of p into the second-level cache. Any address is allowed.
BATCHNORM_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

/// Prefetches the line of p into the first-level cache. Any address is allowed.
BATCHNORM_INLINE void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }

/// x - center. Where there is a fused multiply-add it does the subtraction, which leaves the adders to the sums and
/// conversions. `one` is 1, and not known to the compiler to be.
template <class V>
BATCHNORM_INLINE V difference(const V& x, const V& center, double one) {
  constexpr int bytes = V::lanes * static_cast<int>(sizeof(typename V::scalar));
  if constexpr (intrinsics::has_fma<bytes> && bytes > 16) return fma(x, V::broadcast(one), V{-center.v});
  return x - center;
}

/// So far ahead a sum in memory order asks for each line: the hardware's prefetcher stops at the end of a page and has too few
/// lines under way. An operation, which stores as well, has less to gain, and most from a shorter distance.
template <Element T>
inline constexpr std::int64_t sum_distance = 4096 / static_cast<std::int64_t>(sizeof(T));
inline constexpr std::int64_t operation_distance_bytes = 1024;
template <Element T>
inline constexpr std::int64_t operation_distance = operation_distance_bytes / static_cast<std::int64_t>(sizeof(T));

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
