// SPDX-License-Identifier: MIT
#pragma once

// The floating-point mode that calls compute in, whatever the calling thread and the threads of the executor have set
// (docs/decisions/0012-one-floating-point-mode.md).

#include <batchnorm/vector/config.hpp>
#include <batchnorm/vector/ordered_accesses.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cfenv>
#endif

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// While it lives the thread rounds to nearest, keeps subnormal numbers and traps nothing. Then the thread has its own mode
/// back, and the exception flags as they were.
class DefaultMode {
 public:
  DefaultMode(const DefaultMode&) = delete;
  DefaultMode& operator=(const DefaultMode&) = delete;

#if defined(__x86_64__)
  DefaultMode() noexcept : own_(_mm_getcsr()) {
    if ((own_ & ~exception_flags) != default_mode) _mm_setcsr(default_mode);
  }
  ~DefaultMode() {
    if (_mm_getcsr() != own_) _mm_setcsr(own_);
  }

 private:
  // MXCSR, the only register that counts: nothing here computes in the x87 unit. Writing it costs more than reading it.
  static constexpr unsigned exception_flags = 0x3f, default_mode = 0x1f80;

  unsigned own_;
#else
  DefaultMode() noexcept {
    std::fegetenv(&own_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultMode() { std::fesetenv(&own_); }

 private:
  std::fenv_t own_;
#endif
};

/// A call that is not inlined: a compiler moves arithmetic across a change of the mode, but not across this.
template <class F>
[[gnu::noinline]] void call_apart(const F& f) {
  f();
}

/// Calls f in the default mode. What f throws leaves the thread in its own.
template <class F>
void in_default_mode(const F& f) {
  const DefaultMode mode;
  const OrderedAccesses ordered;
  call_apart(f);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
