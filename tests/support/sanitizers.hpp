// SPDX-License-Identifier: MIT
#pragma once

// Which sanitizers this program is built with.

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BATCHNORM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define BATCHNORM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define BATCHNORM_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define BATCHNORM_TSAN 1
#endif

namespace support {

#if defined(BATCHNORM_ASAN)
inline constexpr bool address_sanitizer = true;
#else
inline constexpr bool address_sanitizer = false;
#endif

#if defined(BATCHNORM_TSAN)
inline constexpr bool thread_sanitizer = true;
#else
inline constexpr bool thread_sanitizer = false;
#endif

}  // namespace support
