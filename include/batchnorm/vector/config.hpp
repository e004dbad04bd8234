// SPDX-License-Identifier: MIT
#pragma once

// The compiler's own flags add to the target attributes of the shells: under -march=skylake-avx512 even the baseline kernels
// hold AVX-512 code, and the linker keeps only one of two functions of the same name. So everything that computes lives in an
// inline namespace that names those flags, and two translation units compiled differently share no kernel.
#if defined(__AVX2__)
#define BATCHNORM_FLAG_AVX2 avx2_
#else
#define BATCHNORM_FLAG_AVX2
#endif
#if defined(__FMA__)
#define BATCHNORM_FLAG_FMA fma_
#else
#define BATCHNORM_FLAG_FMA
#endif
#if defined(__AVX512F__)
#define BATCHNORM_FLAG_AVX512 avx512_
#else
#define BATCHNORM_FLAG_AVX512
#endif
#if defined(__FAST_MATH__)
#define BATCHNORM_FLAG_MATH fast
#else
#define BATCHNORM_FLAG_MATH exact
#endif

// How many instruction sets kernels are compiled for. Defined before the library is included, BATCHNORM_WITHOUT_AVX512 leaves
// the kernels of x86-64-v4 out, a third less to compile where no processor will run them, and BATCHNORM_BASELINE_ONLY those of
// x86-64-v3, too. Without effect where the compiler's flags demand these instruction sets.
#if defined(BATCHNORM_BASELINE_ONLY) && !defined(__AVX2__)
#define BATCHNORM_ISAS 1
#define BATCHNORM_FLAG_SETS baseline_only_
#elif (defined(BATCHNORM_WITHOUT_AVX512) || defined(BATCHNORM_BASELINE_ONLY)) && !defined(__AVX512F__)
#define BATCHNORM_ISAS 2
#define BATCHNORM_FLAG_SETS without_avx512_
#else
#define BATCHNORM_ISAS 3
#define BATCHNORM_FLAG_SETS
#endif

#define BATCHNORM_JOIN_EXPANDED(a, b, c, d, e) kernels_##a##b##c##d##e
#define BATCHNORM_JOIN(a, b, c, d, e) BATCHNORM_JOIN_EXPANDED(a, b, c, d, e)
#define BATCHNORM_KERNELS \
  BATCHNORM_JOIN(BATCHNORM_FLAG_AVX2, BATCHNORM_FLAG_FMA, BATCHNORM_FLAG_AVX512, BATCHNORM_FLAG_SETS, BATCHNORM_FLAG_MATH)

// Whether this translation unit takes from a library of compiled kernels what that has. Such a library is compiled without
// flags for instruction sets, and throws; BATCHNORM_COMPILED is the number of instruction sets that it has kernels for. Units
// that are compiled in another way have kernels of their own.
#if defined(BATCHNORM_COMPILED) && defined(__cpp_exceptions) && !defined(__AVX2__) && !defined(__FMA__) && \
    !defined(__AVX512F__) && !defined(__FAST_MATH__)
#define BATCHNORM_USES_COMPILED (BATCHNORM_COMPILED == BATCHNORM_ISAS)
#else
#define BATCHNORM_USES_COMPILED 0
#endif

// Functions that are no templates and that such a library has.
#if BATCHNORM_USES_COMPILED
#define BATCHNORM_WALK
#else
#define BATCHNORM_WALK inline
#endif

// A kernel's body has no target attribute of its own: it takes its instruction set from the shell that it is inlined into.
#define BATCHNORM_INLINE __attribute__((always_inline)) inline

// Arrays of accumulators are registers only when the loop over them is unrolled.
#if defined(__clang__)
#define BATCHNORM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BATCHNORM_UNROLL _Pragma("GCC unroll 16")
#endif

// Targets of the shells and of the few functions that need an intrinsic.
#define BATCHNORM_TARGET_V3 "avx2,fma,f16c"
#define BATCHNORM_TARGET_V4 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
