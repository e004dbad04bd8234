// SPDX-License-Identifier: MIT
#pragma once

// What the vector extension cannot say well: fused multiply-add, square root, conversions between element types, stores past
// the caches. One overload per vector width. These are plain inline functions with a target attribute and reference arguments:
// GCC and Clang inline them into the shells, and without optimization they are called with an ABI that does not depend on it.

#include <cmath>

#include <batchnorm/vector/vec.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu::intrinsics {

using f16 = vec<float, 16>;
using f32 = vec<float, 32>;
using f64 = vec<float, 64>;
using d16 = vec<double, 16>;
using d32 = vec<double, 32>;
using d64 = vec<double, 64>;
using u16 = vec<std::uint32_t, 16>;

/// Whether `fma` rounds once.
#if defined(__x86_64__) && !defined(__FMA__)
template <int Bytes>
inline constexpr bool has_fma = Bytes > 16;
#else
template <int Bytes>
inline constexpr bool has_fma = true;
#endif

// half <-> float in integer arithmetic, four lanes at a time, exact, rounding to nearest even.
// Method: F. Giesen, "Float->half variants" (public domain), float_to_half_fast3_rtne, in lanes.
// On x86-64, where only processors before 2012 need them, they are called: inlined, they are half of the code of all kernels.
#if defined(__x86_64__)
#define BATCHNORM_APART [[gnu::noinline]] inline
#else
#define BATCHNORM_APART inline
#endif
inline void bits_of_halves(u16& r, const void* p) {
  typename NativeVector<std::uint16_t, 8>::type h;
  std::memcpy(&h, p, 8);
  r.v = u16::native{h[0], h[1], h[2], h[3]};
}

BATCHNORM_APART void load_half_exact(f16& r, const void* p) {
  u16 h;
  bits_of_halves(h, p);
  const u16::native magnitude = (h.v & 0x7fffU) << 13;
  const u16::native exponent = magnitude & (0x7c00U << 13);
  const u16::native rebased = magnitude + ((127U - 15U) << 23);
  const u16::native special = rebased + ((128U - 16U) << 23);  // Inf, NaN
  // Subnormal: put a leading one in front, subtract it as a float.
  const u16::native with_one = rebased + (1U << 23);
  f16 number, one;
  std::memcpy(&number, &with_one, 16);
  const u16::native one_bits = (113U << 23) - u16::native{};
  std::memcpy(&one, &one_bits, 16);
  const f16 subnormal = number - one;
  u16 subnormal_bits;
  std::memcpy(&subnormal_bits, &subnormal, 16);
  u16::native bits = exponent == (0x7c00U << 13) ? special : (exponent == 0U ? subnormal_bits.v : rebased);
  bits |= (h.v & 0x8000U) << 16;
  std::memcpy(&r, &bits, 16);
}

BATCHNORM_APART void pack_half_exact(void* p, const f16& a) {
  u16 x;
  std::memcpy(&x, &a, 16);
  const u16::native sign = x.v & 0x80000000U;
  const u16::native m = x.v ^ sign;
  const u16::native quiet_nan = 0x7e00U - u16::native{};
  const u16::native infinity = 0x7c00U - u16::native{};
  const u16::native special = m > (255U << 23) ? quiet_nan : infinity;
  // Subnormal result: adding 0.5 aligns the 10 bits at the bottom and rounds them to nearest even.
  f16 number, half_one;
  std::memcpy(&number, &m, 16);
  const u16::native half_bits = (126U << 23) - u16::native{};
  std::memcpy(&half_one, &half_bits, 16);
  const f16 aligned = number + half_one;
  u16 subnormal;
  std::memcpy(&subnormal, &aligned, 16);
  subnormal.v -= half_bits;
  const u16::native odd = (m >> 13) & 1U;
  const u16::native normal = (m - ((127U - 15U) << 23) + 0xfffU + odd) >> 13;
  const u16::native bits = (m >= ((127U + 16U) << 23) ? special : (m < (113U << 23) ? subnormal.v : normal)) | (sign >> 16);
  for (int i = 0; i < 4; ++i) {
    const std::uint16_t lane = static_cast<std::uint16_t>(bits[i]);
    std::memcpy(static_cast<char*>(p) + 2 * i, &lane, 2);
  }
}
#undef BATCHNORM_APART

/// float -> bfloat16 bits in the upper half of each lane's 32: round to nearest even, NaN stays a quiet NaN.
template <int Bytes>
BATCHNORM_INLINE vec<std::uint32_t, Bytes> bfloat16_bits(const vec<float, Bytes>& a) {
  using U = vec<std::uint32_t, Bytes>;
  U x;
  std::memcpy(&x, &a, Bytes);
  const typename U::native rounded = x.v + 0x7fffU + ((x.v >> 16) & 1U);
  const typename U::native quiet = x.v | 0x400000U;
  // Compared as signed numbers: one instruction, where AVX2 has none for unsigned ones.
  using Signed = typename NativeVector<std::int32_t, Bytes>::type;
  return {(Signed(x.v & 0x7fffffffU) > 0x7f800000 ? quiet : rounded) >> 16};
}

#if defined(__x86_64__)

// ------------------------------------------------------------------------------------------------------- 16 bytes: SSE2
inline void fma(f16& r, const f16& a, const f16& b, const f16& c) {
#if defined(__FMA__)
  r.v = f16::native(_mm_fmadd_ps(__m128(a.v), __m128(b.v), __m128(c.v)));
#else
  r.v = a.v * b.v + c.v;
#endif
}
inline void fma(d16& r, const d16& a, const d16& b, const d16& c) {
#if defined(__FMA__)
  r.v = d16::native(_mm_fmadd_pd(__m128d(a.v), __m128d(b.v), __m128d(c.v)));
#else
  r.v = a.v * b.v + c.v;
#endif
}
inline void sqrt(d16& r, const d16& a) { r.v = d16::native(_mm_sqrt_pd(__m128d(a.v))); }
inline std::uint32_t sign_bits(const f16& a) { return static_cast<std::uint32_t>(_mm_movemask_ps(__m128(a.v))); }
inline std::uint32_t sign_bits(const d16& a) { return static_cast<std::uint32_t>(_mm_movemask_pd(__m128d(a.v))); }
inline void load_float(d16& low, d16& high, const void* p) {
  const __m128 x = _mm_loadu_ps(static_cast<const float*>(p));
  low.v = d16::native(_mm_cvtps_pd(x));
  high.v = d16::native(_mm_cvtps_pd(_mm_movehl_ps(x, x)));
}
inline void widen(d16& low, d16& high, const f16& a) {
  low.v = d16::native(_mm_cvtps_pd(__m128(a.v)));
  high.v = d16::native(_mm_cvtps_pd(_mm_movehl_ps(__m128(a.v), __m128(a.v))));
}
inline void narrow(f16& r, const d16& low, const d16& high) {
  r.v = f16::native(_mm_movelh_ps(_mm_cvtpd_ps(__m128d(low.v)), _mm_cvtpd_ps(__m128d(high.v))));
}
inline void load_half(f16& r, const void* p) { load_half_exact(r, p); }
inline void store_half(void* p, const f16& a) { pack_half_exact(p, a); }
inline void load_bfloat16(f16& r, const void* p) {
  r.v = f16::native(_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(static_cast<const __m128i*>(p)))));
}
inline void store_bfloat16(void* p, const f16& a) {
  const u16 bits = bfloat16_bits(a);
  // Sign-extend, so that the saturating pack keeps all 16 bits.
  const __m128i x = _mm_srai_epi32(_mm_slli_epi32(__m128i(bits.v), 16), 16);
  _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packs_epi32(x, x));
}
inline void stream(void* p, const f16& a) { _mm_stream_ps(static_cast<float*>(p), __m128(a.v)); }
inline void stream(void* p, const d16& a) { _mm_stream_pd(static_cast<double*>(p), __m128d(a.v)); }
inline void stream_8(void* p, const void* from) {
  long long bits;
  std::memcpy(&bits, from, 8);
  _mm_stream_si64(static_cast<long long*>(p), bits);
}
inline void stream_half(void* p, const f16& a) {
  char packed[8];
  pack_half_exact(packed, a);
  stream_8(p, packed);
}

// ------------------------------------------------------------------------------------------- 32 bytes: AVX2, FMA, F16C
#define BATCHNORM_V3 [[gnu::target(BATCHNORM_TARGET_V3)]] inline
BATCHNORM_V3 void fma(f32& r, const f32& a, const f32& b, const f32& c) {
  r.v = f32::native(_mm256_fmadd_ps(__m256(a.v), __m256(b.v), __m256(c.v)));
}
BATCHNORM_V3 void fma(d32& r, const d32& a, const d32& b, const d32& c) {
  r.v = d32::native(_mm256_fmadd_pd(__m256d(a.v), __m256d(b.v), __m256d(c.v)));
}
BATCHNORM_V3 void sqrt(d32& r, const d32& a) { r.v = d32::native(_mm256_sqrt_pd(__m256d(a.v))); }
BATCHNORM_V3 std::uint32_t sign_bits(const f32& a) { return static_cast<std::uint32_t>(_mm256_movemask_ps(__m256(a.v))); }
BATCHNORM_V3 std::uint32_t sign_bits(const d32& a) { return static_cast<std::uint32_t>(_mm256_movemask_pd(__m256d(a.v))); }
BATCHNORM_V3 void load_float(d32& low, d32& high, const void* p) {
  low.v = d32::native(_mm256_cvtps_pd(_mm_loadu_ps(static_cast<const float*>(p))));
  high.v = d32::native(_mm256_cvtps_pd(_mm_loadu_ps(static_cast<const float*>(p) + 4)));
}
BATCHNORM_V3 void widen(d32& low, d32& high, const f32& a) {
  low.v = d32::native(_mm256_cvtps_pd(_mm256_castps256_ps128(__m256(a.v))));
  high.v = d32::native(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(a.v), 1)));
}
BATCHNORM_V3 void narrow(f32& r, const d32& low, const d32& high) {
  r.v = f32::native(
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(__m256d(low.v))), _mm256_cvtpd_ps(__m256d(high.v)), 1));
}
BATCHNORM_V3 void load_half(f32& r, const void* p) {
  r.v = f32::native(_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
BATCHNORM_V3 void store_half(void* p, const f32& a) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(a.v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
BATCHNORM_V3 void load_bfloat16(f32& r, const void* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  r.v = f32::native(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
}
BATCHNORM_V3 void load_half(d32& low, d32& high, const void* p) {
  const auto* from = static_cast<const char*>(p);
  low.v = d32::native(_mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))));
  high.v = d32::native(_mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8)))));
}
BATCHNORM_V3 d32::native widened_bfloat16(const void* p) {
  const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  return d32::native(_mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(wide, 16))));
}
BATCHNORM_V3 void load_bfloat16(d32& low, d32& high, const void* p) {
  low.v = widened_bfloat16(p);
  high.v = widened_bfloat16(static_cast<const char*>(p) + 8);
}
BATCHNORM_V3 __m128i packed_bfloat16(const f32& a) {
  const __m256i bits = __m256i(bfloat16_bits(a).v);
  return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}
BATCHNORM_V3 void store_bfloat16(void* p, const f32& a) { _mm_storeu_si128(static_cast<__m128i*>(p), packed_bfloat16(a)); }
BATCHNORM_V3 void stream(void* p, const f32& a) { _mm256_stream_ps(static_cast<float*>(p), __m256(a.v)); }
BATCHNORM_V3 void stream(void* p, const d32& a) { _mm256_stream_pd(static_cast<double*>(p), __m256d(a.v)); }
BATCHNORM_V3 void stream_half(void* p, const f32& a) {
  _mm_stream_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(a.v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#undef BATCHNORM_V3

// ------------------------------------------------------------------------------------------------------ 64 bytes: AVX-512
#define BATCHNORM_V4 [[gnu::target(BATCHNORM_TARGET_V4)]] inline
BATCHNORM_V4 void fma(f64& r, const f64& a, const f64& b, const f64& c) {
  r.v = f64::native(_mm512_fmadd_ps(__m512(a.v), __m512(b.v), __m512(c.v)));
}
BATCHNORM_V4 void fma(d64& r, const d64& a, const d64& b, const d64& c) {
  r.v = d64::native(_mm512_fmadd_pd(__m512d(a.v), __m512d(b.v), __m512d(c.v)));
}
BATCHNORM_V4 void sqrt(d64& r, const d64& a) { r.v = d64::native(_mm512_maskz_sqrt_pd(0xff, __m512d(a.v))); }
BATCHNORM_V4 std::uint32_t sign_bits(const f64& a) { return _mm512_movepi32_mask(__m512i(a.v)); }
BATCHNORM_V4 std::uint32_t sign_bits(const d64& a) { return _mm512_movepi64_mask(__m512i(a.v)); }
BATCHNORM_V4 void load_float(d64& low, d64& high, const void* p) {
  low.v = d64::native(_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(static_cast<const float*>(p))));
  high.v = d64::native(_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(static_cast<const float*>(p) + 8)));
}
BATCHNORM_V4 void widen(d64& low, d64& high, const f64& a) {
  const auto lower = __builtin_shufflevector(a.v, a.v, 0, 1, 2, 3, 4, 5, 6, 7);
  const auto upper = __builtin_shufflevector(a.v, a.v, 8, 9, 10, 11, 12, 13, 14, 15);
  low.v = d64::native(_mm512_maskz_cvtps_pd(0xff, __m256(lower)));
  high.v = d64::native(_mm512_maskz_cvtps_pd(0xff, __m256(upper)));
}
BATCHNORM_V4 void narrow(f64& r, const d64& low, const d64& high) {
  const auto lower = f32::native(_mm512_maskz_cvtpd_ps(0xff, __m512d(low.v)));
  const auto upper = f32::native(_mm512_maskz_cvtpd_ps(0xff, __m512d(high.v)));
  r.v = __builtin_shufflevector(lower, upper, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
BATCHNORM_V4 void load_half(f64& r, const void* p) {
  r.v = f64::native(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p))));
}
// As in load_float, the two halves are loaded one by one: taking a wide register apart costs more than the second load.
BATCHNORM_V4 void load_half(d64& low, d64& high, const void* p) {
  const auto* from = static_cast<const __m128i*>(p);
  low.v = d64::native(_mm512_maskz_cvtps_pd(0xff, _mm256_cvtph_ps(_mm_loadu_si128(from))));
  high.v = d64::native(_mm512_maskz_cvtps_pd(0xff, _mm256_cvtph_ps(_mm_loadu_si128(from + 1))));
}
BATCHNORM_V4 d64::native widened_bfloat16(__m128i bits) {
  return d64::native(_mm512_maskz_cvtps_pd(0xff, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))));
}
BATCHNORM_V4 void load_bfloat16(d64& low, d64& high, const void* p) {
  const auto* from = static_cast<const __m128i*>(p);
  low.v = widened_bfloat16(_mm_loadu_si128(from));
  high.v = widened_bfloat16(_mm_loadu_si128(from + 1));
}
BATCHNORM_V4 __m256i packed_half(const f64& a) {
  return _mm512_maskz_cvtps_ph(0xffff, __m512(a.v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
BATCHNORM_V4 void store_half(void* p, const f64& a) { _mm256_storeu_si256(static_cast<__m256i*>(p), packed_half(a)); }
BATCHNORM_V4 void load_bfloat16(f64& r, const void* p) {
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
  r.v = f64::native(_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, wide, 16)));
}
// Not vcvtneps2bf16: it flushes subnormals.
BATCHNORM_V4 __m256i packed_bfloat16(const f64& a) { return _mm512_maskz_cvtepi32_epi16(0xffff, __m512i(bfloat16_bits(a).v)); }
BATCHNORM_V4 void store_bfloat16(void* p, const f64& a) { _mm256_storeu_si256(static_cast<__m256i*>(p), packed_bfloat16(a)); }
BATCHNORM_V4 void stream(void* p, const f64& a) { _mm512_stream_ps(static_cast<float*>(p), __m512(a.v)); }
BATCHNORM_V4 void stream(void* p, const d64& a) { _mm512_stream_pd(static_cast<double*>(p), __m512d(a.v)); }
BATCHNORM_V4 void stream_half(void* p, const f64& a) { _mm256_stream_si256(static_cast<__m256i*>(p), packed_half(a)); }
#undef BATCHNORM_V4

/// Streaming stores are ordered only by a fence.
inline void stream_fence() { _mm_sfence(); }

#else

// ----------------------------------------------------------------------------------------- 16 bytes: any other architecture
inline void fma(f16& r, const f16& a, const f16& b, const f16& c) {
  for (int i = 0; i < 4; ++i) r.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
}
inline void fma(d16& r, const d16& a, const d16& b, const d16& c) {
  for (int i = 0; i < 2; ++i) r.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
}
inline void sqrt(d16& r, const d16& a) {
  for (int i = 0; i < 2; ++i) r.v[i] = std::sqrt(a.v[i]);
}
template <class V>
inline std::uint32_t sign_bits(const V& a) {
  std::uint32_t bits = 0;
  for (int i = 0; i < V::lanes; ++i) bits |= std::uint32_t{std::signbit(a.v[i])} << i;
  return bits;
}
inline void widen(d16& low, d16& high, const f16& a) {
  low.v = d16::native{a.v[0], a.v[1]};
  high.v = d16::native{a.v[2], a.v[3]};
}
inline void load_float(d16& low, d16& high, const void* p) { widen(low, high, f16::load(p)); }
inline void narrow(f16& r, const d16& low, const d16& high) {
  r.v = f16::native{static_cast<float>(low.v[0]), static_cast<float>(low.v[1]), static_cast<float>(high.v[0]),
                    static_cast<float>(high.v[1])};
}
inline void load_half(f16& r, const void* p) { load_half_exact(r, p); }
inline void store_half(void* p, const f16& a) { pack_half_exact(p, a); }
inline void load_bfloat16(f16& r, const void* p) {
  u16 bits;
  bits_of_halves(bits, p);
  bits.v <<= 16;
  std::memcpy(&r, &bits, 16);
}
inline void store_bfloat16(void* p, const f16& a) {
  const u16 bits = bfloat16_bits(a);
  for (int i = 0; i < 4; ++i) {
    const std::uint16_t lane = static_cast<std::uint16_t>(bits.v[i]);
    std::memcpy(static_cast<char*>(p) + 2 * i, &lane, 2);
  }
}
inline void stream(void* p, const f16& a) { a.store(p); }
inline void stream(void* p, const d16& a) { a.store(p); }
inline void stream_half(void* p, const f16& a) { store_half(p, a); }
inline void stream_fence() {}

#endif

inline void load_half(d16& low, d16& high, const void* p) {
  f16 wide;
  load_half(wide, p);
  widen(low, high, wide);
}
inline void load_bfloat16(d16& low, d16& high, const void* p) {
  f16 wide;
  load_bfloat16(wide, p);
  widen(low, high, wide);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu::intrinsics
