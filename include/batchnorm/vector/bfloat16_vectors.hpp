// SPDX-License-Identifier: MIT
#pragma once

// Several vectors of float at a time from and to bfloat16. Two that are stored together share the work of packing and a
// comparison that looks for NaN in both.

#include <batchnorm/vector/intrinsics.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu::intrinsics {

/// Two vectors of 16-bit values in memory order, from the upper halves of the lanes of `a` and then of `b`.
template <int Bytes>
BATCHNORM_INLINE void pack_upper_halves(vec<std::uint32_t, Bytes>& r, const vec<std::uint32_t, Bytes>& a,
                                        const vec<std::uint32_t, Bytes>& b) {
  char packed[Bytes];
  for (int i = 0; i < Bytes / 4; ++i) {
    const auto low = static_cast<std::uint16_t>(a.v[i] >> 16), high = static_cast<std::uint16_t>(b.v[i] >> 16);
    std::memcpy(packed + 2 * i, &low, 2);
    std::memcpy(packed + Bytes / 2 + 2 * i, &high, 2);
  }
  r = vec<std::uint32_t, Bytes>::load(packed);
}

/// The same, but the values of `a` and of `b` take turns.
template <int Bytes>
BATCHNORM_INLINE void weave_upper_halves(vec<std::uint32_t, Bytes>& r, const vec<std::uint32_t, Bytes>& a,
                                         const vec<std::uint32_t, Bytes>& b) {
  r.v = (a.v >> 16) | (b.v & 0xffff0000U);
}

/// Not 0 where a lane of either is NaN. What the bits say is asked, not the comparison of a value with itself, which compilers
/// leave out where they are told that there is no NaN.
template <int Bytes>
BATCHNORM_INLINE std::uint32_t lanes_with_nan(const vec<float, Bytes>& a, const vec<float, Bytes>& b) {
  using Signed = typename NativeVector<std::int32_t, Bytes>::type;
  Signed x, y;
  std::memcpy(&x, &a, Bytes);
  std::memcpy(&y, &b, Bytes);
  const auto is_nan = ((x & 0x7fffffff) > 0x7f800000) | ((y & 0x7fffffff) > 0x7f800000);
  vec<float, Bytes> signs;
  std::memcpy(&signs, &is_nan, Bytes);
  return sign_bits(signs);
}

#if defined(__x86_64__)
using u32 = vec<std::uint32_t, 32>;
using u64 = vec<std::uint32_t, 64>;

// The arithmetic shift makes the saturating pack keep all 16 bits.
inline void pack_upper_halves(u16& r, const u16& a, const u16& b) {
  r.v = u16::native(_mm_packs_epi32(_mm_srai_epi32(__m128i(a.v), 16), _mm_srai_epi32(__m128i(b.v), 16)));
}
[[gnu::target(BATCHNORM_TARGET_V3)]] inline void pack_upper_halves(u32& r, const u32& a, const u32& b) {
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(__m256i(a.v), 16), _mm256_srli_epi32(__m256i(b.v), 16));
  r.v = u32::native(_mm256_permute4x64_epi64(packed, 0xd8));
}
[[gnu::target(BATCHNORM_TARGET_V3)]] inline void weave_upper_halves(u32& r, const u32& a, const u32& b) {
  r.v = u32::native(_mm256_blend_epi16(_mm256_srli_epi32(__m256i(a.v), 16), __m256i(b.v), 0xaa));
}
[[gnu::target(BATCHNORM_TARGET_V3)]] inline std::uint32_t lanes_with_nan(const f32& a, const f32& b) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(__m256(a.v), __m256(b.v), _CMP_UNORD_Q)));
}
[[gnu::target(BATCHNORM_TARGET_V4)]] inline std::uint32_t lanes_with_nan(const f64& a, const f64& b) {
  return _mm512_cmp_ps_mask(__m512(a.v), __m512(b.v), _CMP_UNORD_Q);
}
[[gnu::target(BATCHNORM_TARGET_V4)]] inline void pack_upper_halves(u64& r, const u64& a, const u64& b) {
  static constexpr auto odd_words = [] {
    std::array<std::uint16_t, 32> numbers{};
    for (std::size_t i = 0; i < 32; ++i) numbers[i] = static_cast<std::uint16_t>(2 * i + 1);
    return numbers;
  }();
  const __m512i numbers = _mm512_loadu_si512(odd_words.data());
  r.v = u64::native(_mm512_maskz_permutex2var_epi16(~__mmask32{0}, __m512i(a.v), numbers, __m512i(b.v)));
}
#endif

/// Rounded to bfloat16, to nearest even, in the upper half of each lane; NaN stays a quiet NaN.
template <int Bytes, int Count>
BATCHNORM_INLINE void round_to_upper_halves(vec<std::uint32_t, Bytes> (&r)[Count], const vec<float, Bytes> (&a)[Count]) {
  std::uint32_t nan = 0;
  BATCHNORM_UNROLL
  for (int v = 0; v < Count; ++v) {
    if (v % 2 == 0) nan |= lanes_with_nan(a[v], a[v + 1]);
    std::memcpy(&r[v], &a[v], Bytes);
    r[v].v += 0x7fffU + ((r[v].v >> 16) & 1U);
  }
  if (__builtin_expect(nan == 0, 1)) return;
  BATCHNORM_UNROLL
  for (int v = 0; v < Count; ++v) r[v].v = bfloat16_bits(a[v]).v << 16;
}

/// As many elements at p as the vectors hold. In memory order, or each pair of vectors with the elements of even and of odd
/// places, which is faster.
template <bool in_order, int Bytes, int Count>
BATCHNORM_INLINE void load_bfloat16(vec<float, Bytes> (&r)[Count], const void* p) {
  const char* from = static_cast<const char*>(p);
  BATCHNORM_UNROLL
  for (int v = 0; v < Count; v += 2, from += Bytes) {
    if constexpr (in_order) {
      load_bfloat16(r[v], from);
      load_bfloat16(r[v + 1], from + Bytes / 2);
    } else {
      const auto bits = vec<std::uint32_t, Bytes>::load(from).v;
      const auto even = bits << 16, odd = bits & 0xffff0000U;
      std::memcpy(&r[v], &even, Bytes);
      std::memcpy(&r[v + 1], &odd, Bytes);
    }
  }
}

/// Stores vectors in the order that they were loaded in; an even number of them. `past`: non-temporal, p aligned to a
/// vector.
template <bool in_order, bool past, int Bytes, int Count>
BATCHNORM_INLINE void store_bfloat16(void* p, const vec<float, Bytes> (&a)[Count]) {
  vec<std::uint32_t, Bytes> rounded[Count];
  round_to_upper_halves(rounded, a);
  char* to = static_cast<char*>(p);
  BATCHNORM_UNROLL
  for (int v = 0; v < Count; v += 2, to += Bytes) {
    vec<std::uint32_t, Bytes> packed;
    if constexpr (in_order) {
      pack_upper_halves(packed, rounded[v], rounded[v + 1]);
    } else {
      weave_upper_halves(packed, rounded[v], rounded[v + 1]);
    }
    if constexpr (past) {
      vec<float, Bytes> bits;
      std::memcpy(&bits, &packed, Bytes);
      stream(to, bits);
    } else {
      packed.store(to);
    }
  }
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu::intrinsics
