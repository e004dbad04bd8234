// SPDX-License-Identifier: MIT
#include "copy.hpp"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bench {
namespace {

constexpr std::int64_t line = 64;

#if defined(__x86_64__)

[[gnu::target("avx2")]] void copy_lines_avx2(char* to, const char* from, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += line) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + line / 2));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), first);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + line / 2), second);
  }
  _mm_sfence();
}

void copy_lines_sse2(char* to, const char* from, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += line) {
    for (std::int64_t k = i; k < i + line; k += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
    }
  }
  _mm_sfence();
}

void copy_lines(char* to, const char* from, std::int64_t bytes) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  has_avx2 ? copy_lines_avx2(to, from, bytes) : copy_lines_sse2(to, from, bytes);
}

#else

void copy_lines(char* to, const char* from, std::int64_t bytes) { std::memcpy(to, from, static_cast<std::size_t>(bytes)); }

#endif

void copy_share(char* to, const char* from, std::int64_t bytes) {
  const std::int64_t whole = bytes / line * line;
  copy_lines(to, from, whole);
  std::memcpy(to + whole, from + whole, static_cast<std::size_t>(bytes - whole));
}

}  // namespace

void copy(batchnorm::Executor& executor, void* to, const void* from, std::int64_t bytes) {
  const std::int64_t tasks = executor.concurrency();
  const std::int64_t share = (bytes / tasks + line - 1) / line * line;
  executor.run(static_cast<int>(tasks), [&](int task) {
    const std::int64_t first = std::min(bytes, task * share);
    const std::int64_t last = task + 1 == tasks ? bytes : std::min(bytes, first + share);
    copy_share(static_cast<char*>(to) + first, static_cast<const char*>(from) + first, last - first);
  });
}

}  // namespace bench
