// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The instruction sets that kernels exist for, and the choice of one.
///
/// BATCHNORM_WITHOUT_AVX512, defined before the library is included, leaves the kernels of x86-64-v4 out, a third less to
/// compile where no processor will run them; BATCHNORM_BASELINE_ONLY also those of x86-64-v3. They have no effect where the
/// compiler's flags demand these instruction sets.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <batchnorm/errors.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm {

/// The instruction sets that kernels exist for, ascending.
enum class Isa {
  baseline,   ///< what every processor of the architecture has: 16-byte vectors (SSE2, NEON)
  x86_64_v3,  ///< AVX2, FMA, F16C: 32-byte vectors
  x86_64_v4   ///< AVX-512 F, BW, DQ, VL: 64-byte vectors
};

/// "baseline", "x86-64-v3", "x86-64-v4": the names that BATCHNORM_ISA takes.
constexpr std::string_view to_string(Isa isa) noexcept {
  switch (isa) {
    case Isa::x86_64_v3: return "x86-64-v3";
    case Isa::x86_64_v4: return "x86-64-v4";
    default: return "baseline";
  }
}

namespace detail {

inline Isa find_best_isa() noexcept {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  // Clang 14 rejects __builtin_cpu_supports("f16c"): CPUID leaf 1, ECX bit 29.
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1U << 29)) != 0;
  if (!(f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return Isa::baseline;
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return v4 ? Isa::x86_64_v4 : Isa::x86_64_v3;
#else
  return Isa::baseline;
#endif
}

/// Whether the processor says that it executes 64-byte vectors in halves, as Zen 4 does: nothing is gained by them, and more is
/// lost at the ends of runs. Training and gradients of float take 0.88 to 0.97 of the time with 32-byte vectors there.
/// Source: AMD64 Architecture Programmer's Manual, volume 3, appendix E, function 8000_001Ah: FP256 and FP512.
inline bool halves_64_byte_vectors() noexcept {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned fp256 = 1U << 2, fp512 = 1U << 3;
  return __get_cpuid(0x8000001aU, &a, &b, &c, &d) != 0 && (a & (fp256 | fp512)) == fp256;
#else
  return false;
#endif
}

// What follows from CPUID is found once: in a virtual machine the instruction takes several microseconds, more than a small
// call. Neither is limited to what one translation unit has kernels for: they are chosen for all of them.

/// The largest instruction set that the processor has.
inline Isa best_isa_of_processor() noexcept {
  static const Isa best = find_best_isa();
  return best;
}

/// The fastest one for float and double.
inline Isa preferred_isa_of_processor() noexcept {
  static const Isa preferred =
      best_isa_of_processor() == Isa::x86_64_v4 && halves_64_byte_vectors() ? Isa::x86_64_v3 : best_isa_of_processor();
  return preferred;
}

/// What chosen_isa holds where neither the program nor the environment asks for an instruction set.
inline constexpr int automatic_isa = 100;

/// -1 until chosen, then an Isa or automatic_isa. One for the program: where batchnorm::compiled is a shared library, that has
/// it, so that force_isa reaches its kernels whatever visibility the program's own symbols have.
#if defined(BATCHNORM_COMPILED_SHARED)
[[gnu::visibility("default")]] extern std::atomic<int> chosen_isa;
#else
inline std::atomic<int> chosen_isa{-1};
#endif

}  // namespace detail

// What depends on the compiler's flags differs from one translation unit to another.
inline namespace BATCHNORM_KERNELS {

/// The instruction set that the compiler's own flags demand of this translation unit; nothing below it can run here.
constexpr Isa compiled_isa() noexcept {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
  return Isa::x86_64_v4;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  return Isa::x86_64_v3;
#else
  return Isa::baseline;
#endif
}

/// The largest instruction set that this translation unit has kernels for (BATCHNORM_ISAS in vector/config.hpp).
constexpr Isa largest_isa() noexcept { return static_cast<Isa>(BATCHNORM_ISAS - 1); }

namespace cpu {
/// Whether kernels of that instruction set come in all the forms that make them fast: sums while an operation goes on
/// (SumPlanes with a companion), several rows at a time. Those of the baseline of x86-64 do not where there is a larger set:
/// few processors run them, and every program would compile them.
constexpr bool is_tuned_for([[maybe_unused]] Isa isa) noexcept {
#if defined(__x86_64__)
  return isa > Isa::baseline || largest_isa() == Isa::baseline;
#else
  return true;
#endif
}
}  // namespace cpu

/// The instruction sets that this translation unit can run on this processor, ascending.
inline std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::baseline, Isa::x86_64_v3, Isa::x86_64_v4}) {
    if (isa >= compiled_isa() && isa <= (std::min)(largest_isa(), detail::best_isa_of_processor())) isas.push_back(isa);
  }
  return isas;
}

/// The available instruction set that is the fastest here for float and double: the largest, or x86-64-v3 where x86-64-v4
/// brings them nothing.
inline Isa preferred_isa() noexcept { return std::clamp(detail::preferred_isa_of_processor(), compiled_isa(), largest_isa()); }

namespace cpu {

/// The available instruction set of that name, or nothing.
inline std::optional<Isa> find_isa(std::string_view name) {
  for (const Isa isa : available_isas()) {
    if (to_string(isa) == name) return isa;
  }
  return std::nullopt;
}

/// What is said of a name that is not that of an available instruction set.
inline std::string refusal_of_isa(std::string_view name, std::string_view source) {
  std::string known;
  for (const Isa isa : available_isas()) known.append(known.empty() ? "" : ", ").append(to_string(isa));
  return "batchnorm: " + std::string(source) + " is '" + std::string(name) + "', available here are " + known;
}

/// BATCHNORM_ISA, "" where it is not set.
inline std::string_view isa_of_environment() noexcept {
  const char* text = std::getenv("BATCHNORM_ISA");
  return text == nullptr ? "" : text;
}

/// What active_isa() would throw, or "".
inline std::string problem_of_isa() {
  if (batchnorm::detail::chosen_isa.load(std::memory_order_relaxed) >= 0) return {};
  const std::string_view wanted = isa_of_environment();
  if (wanted.empty() || find_isa(wanted)) return {};
  return refusal_of_isa(wanted, "BATCHNORM_ISA");
}

}  // namespace cpu

/// The available instruction set of that name.
/// @throws ValueError   unknown, or not available here; the message lists those that are
inline Isa parse_isa(std::string_view name, std::string_view source = "instruction set") {
  if (const std::optional<Isa> isa = cpu::find_isa(name)) return *isa;
  detail::fail<ValueError>(cpu::refusal_of_isa(name, source));
}

/// From now on every call of the program runs on that instruction set.
/// @throws ValueError   not available here, or below what the compiler's flags demand (compiled_isa())
inline void force_isa(Isa isa) { detail::chosen_isa.store(static_cast<int>(parse_isa(to_string(isa)))); }

namespace cpu {

/// An Isa, perhaps one that this translation unit lacks, or automatic_isa.
/// @throws ValueError   BATCHNORM_ISA is unknown or not available here
inline int chosen_isa() {
  int chosen = batchnorm::detail::chosen_isa.load(std::memory_order_relaxed);
  if (chosen < 0) {
    const std::string_view wanted = isa_of_environment();
    chosen = wanted.empty() ? batchnorm::detail::automatic_isa : static_cast<int>(parse_isa(wanted, "BATCHNORM_ISA"));
    int unset = -1;
    if (!batchnorm::detail::chosen_isa.compare_exchange_strong(unset, chosen)) chosen = unset;
  }
  return chosen;
}

}  // namespace cpu

/// The instruction set that calls run on: the forced one, or BATCHNORM_ISA, or the preferred one. Calls on elements of 2 bytes
/// may take a larger one than the preferred one (isa_of in explain.hpp).
/// @throws ValueError   BATCHNORM_ISA is unknown or not available here
inline Isa active_isa() {
  const int chosen = cpu::chosen_isa();
  if (chosen == detail::automatic_isa) return preferred_isa();
  return std::clamp(static_cast<Isa>(chosen), compiled_isa(), largest_isa());
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
