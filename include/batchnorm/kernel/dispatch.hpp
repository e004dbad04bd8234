// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/isa.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

// A kernel is a struct of arguments with `template <int Bytes> void run() const`, always inlined. One shell per instruction
// set gives its body a target; the body never names its width. A shell works on its own copy of the arguments: nothing that the
// body stores can alias it, so the arguments stay in registers.

template <class Kernel>
void run_baseline(const Kernel& kernel) noexcept {
  const Kernel own = kernel;
  own.template run<16>();
}

#if defined(__x86_64__) && BATCHNORM_ISAS >= 2
template <class Kernel>
[[gnu::target(BATCHNORM_TARGET_V3)]] void run_v3(const Kernel& kernel) noexcept {
  const Kernel own = kernel;
  own.template run<32>();
}
#endif

#if defined(__x86_64__) && BATCHNORM_ISAS >= 3
template <class Kernel>
[[gnu::target(BATCHNORM_TARGET_V4)]] void run_v4(const Kernel& kernel) noexcept {
  const Kernel own = kernel;
  own.template run<64>();
}
#endif

/// Runs the kernel on that instruction set, one of [compiled_isa(), largest_isa()].
template <class Kernel>
void run([[maybe_unused]] Isa isa, const Kernel& kernel) noexcept {
  // Kernels below what the compiler's flags demand are not compiled.
#if defined(__x86_64__) && BATCHNORM_ISAS >= 3
  if (compiled_isa() == Isa::x86_64_v4 || isa == Isa::x86_64_v4) return run_v4(kernel);
#endif
#if defined(__x86_64__) && BATCHNORM_ISAS >= 2
  if constexpr (compiled_isa() <= Isa::x86_64_v3) {
    if (compiled_isa() == Isa::x86_64_v3 || isa == Isa::x86_64_v3) return run_v3(kernel);
  }
#endif
  if constexpr (compiled_isa() == Isa::baseline) run_baseline(kernel);
}

/// `is_tuned_for` of kernels with vectors of so many bytes.
template <int Bytes>
inline constexpr bool is_tuned = Bytes > 16 || is_tuned_for(Isa::baseline);

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
