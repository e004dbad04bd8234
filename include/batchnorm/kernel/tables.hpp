// SPDX-License-Identifier: MIT
#pragma once

// Tables of function pointers to kernels: a walk calls these without knowing element type, policy or instruction set. A
// kernel is instantiated once per element type, policy and instruction set.

#include <batchnorm/kernel/channel_arrays.hpp>
#include <batchnorm/kernel/dispatch.hpp>
#include <batchnorm/kernel/operate_on_planes.hpp>
#include <batchnorm/kernel/operate_on_rows.hpp>
#include <batchnorm/kernel/sum_columns.hpp>
#include <batchnorm/kernel/sum_planes.hpp>
#include <batchnorm/kernel/widen.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The kernels of a Summation. The first argument is the Summation.
struct SumKernels {
  int constants = 0, sums = 0;
  void (*planes)(const void*, const PlanesToSum&) noexcept = nullptr;
  void (*short_planes)(const void*, const PlanesToSum&) noexcept = nullptr;
  void (*columns)(const void*, const ColumnsToSum&) noexcept = nullptr;
  void (*widened_columns)(const void*, const ColumnsToSum&) noexcept = nullptr;  // of values that are float already
};

/// The kernels of a statistic (problem.hpp says what that is). The first argument of `begin`, `refine` and `merge` is the
/// statistic.
struct StatisticKernels {
  int inputs = 0;
  int state = 0;                 // arrays over channels that merged blocks are kept in
  std::int64_t value_bytes = 0;  // of an element
  SumKernels sums;
  SumKernels rough;  // what the first of two passes computes; without kernels where there is one pass
  void (*widen)(const RowsToWiden&) noexcept = nullptr;
  void (*begin)(const void*, const Inputs&, const Block&, std::int64_t first, std::int64_t channels,
                const SumArrays& to) noexcept = nullptr;
  void (*refine)(const void*, Isa, const Block&, std::int64_t channels, const SumArrays&) noexcept = nullptr;
  void (*merge)(const void*, Isa, const ChannelArrays& state, const SumArrays& block, std::int64_t channels,
                std::int64_t before, std::int64_t count) noexcept = nullptr;
};

/// The kernels of an operation. The first argument is the operation.
struct OperationKernels {
  int inputs = 0, outputs = 0, coefficients = 0;
  int prefetched = 0;  // the first so many inputs are prefetched ahead of time
  std::int64_t value_bytes = 0, compute_bytes = 0;
  void (*planes)(const void*, const PlanesToOperateOn&, const Progress&) noexcept = nullptr;
  void (*rows)(const void*, const RowsToOperateOn&) noexcept = nullptr;
};

/// Sums over planes while an operation goes on in other planes: the kernels of the pass that reads the planes from memory, the
/// first of two. The second finds them in cache.
using SumBeside = void (*)(const void* summation, const PlanesToSum&, const void* operation, const PlanesToOperateOn&,
                           Progress&) noexcept;
struct BesideKernels {
  SumBeside planes = nullptr, short_planes = nullptr;
};

namespace detail {

// A shell gives a kernel's body the target of an instruction set, and works on its own copy of the arguments: nothing that the
// body stores can alias it.
#define BATCHNORM_SHELL(NAME, ISA, BYTES, ...)                                                                \
  struct NAME {                                                                                               \
    static constexpr Isa isa = ISA;                                                                           \
    template <class Kernel, class... Arguments>                                                               \
    __VA_ARGS__ static void run(Arguments... arguments) noexcept {                                            \
      const Kernel own(arguments...);                                                                         \
      own.template run<BYTES>();                                                                              \
    }                                                                                                         \
    template <class Kernel>                                                                                   \
    __VA_ARGS__ static void run_beside(const void* summation, const PlanesToSum& sums, const void* operation, \
                                       const PlanesToOperateOn& arguments, Progress& progress) noexcept {     \
      typename Kernel::Beside beside(operation, arguments, progress);                                         \
      const Kernel own(summation, sums);                                                                      \
      own.template run<BYTES>(beside);                                                                        \
      beside.save(progress);                                                                                  \
    }                                                                                                         \
  };
BATCHNORM_SHELL(Baseline, Isa::baseline, 16)
#if defined(__x86_64__) && BATCHNORM_ISAS >= 2
BATCHNORM_SHELL(V3, Isa::x86_64_v3, 32, [[gnu::target(BATCHNORM_TARGET_V3)]])
#endif
#if defined(__x86_64__) && BATCHNORM_ISAS >= 3
BATCHNORM_SHELL(V4, Isa::x86_64_v4, 64, [[gnu::target(BATCHNORM_TARGET_V4)]])
#endif
#undef BATCHNORM_SHELL

template <class Shell, Element T, class Summation>
constexpr SumKernels sum_kernels() noexcept {
  SumKernels kernels;
  kernels.constants = Summation::constants;
  kernels.sums = Summation::sums;
  kernels.planes = Shell::template run<SumPlanes<T, Summation, false>>;
  kernels.short_planes = Shell::template run<SumPlanes<T, Summation, true>>;
  kernels.columns = Shell::template run<SumColumns<T, Summation>>;
  if constexpr (widens_columns<T>) kernels.widened_columns = Shell::template run<SumColumns<float, Summation>>;
  return kernels;
}

template <class Statistic>
concept SumsTwice = requires(const Statistic& statistic) {
  statistic.rough;
};

/// What the first pass over the values computes.
template <class Statistic>
struct FirstPass {
  using Summation = typename Statistic::Summation;
};
template <SumsTwice Statistic>
struct FirstPass<Statistic> {
  using Summation = typename Statistic::Rough;
};

template <class Shell, Element T, class Statistic>
constexpr StatisticKernels statistic_kernels() noexcept {
  using Summation = typename Statistic::Summation;
  StatisticKernels kernels;
  kernels.inputs = Summation::inputs;
  kernels.state = Statistic::state;
  kernels.value_bytes = sizeof(T);
  kernels.sums = sum_kernels<Shell, T, Summation>();
  if constexpr (widens_columns<T>) kernels.widen = Shell::template run<WidenRows<T, Summation::inputs>>;
  kernels.begin = [](const void* statistic, const Inputs& x, const Block& block, std::int64_t first, std::int64_t channels,
                     const SumArrays& to) noexcept {
    static_cast<const Statistic*>(statistic)->begin(x, block, first, channels, to);
  };
  kernels.merge = [](const void* statistic, Isa isa, const ChannelArrays& state, const SumArrays& block, std::int64_t channels,
                     std::int64_t before, std::int64_t count) noexcept {
    static_cast<const Statistic*>(statistic)->merge(isa, state, block, channels, before, count);
  };
  if constexpr (SumsTwice<Statistic>) {
    kernels.rough = sum_kernels<Shell, T, typename Statistic::Rough>();
    kernels.refine = [](const void* statistic, Isa isa, const Block& block, std::int64_t channels,
                        const SumArrays& sums) noexcept {
      static_cast<const Statistic*>(statistic)->refine(isa, block, channels, sums);
    };
  }
  return kernels;
}

template <class Shell, Element T, class Operation>
constexpr OperationKernels operation_kernels() noexcept {
  OperationKernels kernels;
  kernels.inputs = Operation::inputs;
  kernels.outputs = Operation::outputs;
  kernels.coefficients = Operation::coefficients;
  kernels.prefetched = Operation::prefetched;
  kernels.value_bytes = sizeof(T);
  kernels.compute_bytes = sizeof(compute_t<T>);
  kernels.planes = Shell::template run<OperateOnPlanes<T, Operation>>;
  kernels.rows = Shell::template run<OperateOnRows<T, Operation>>;
  return kernels;
}

template <class Shell, Element T, class Statistic, class Operation>
constexpr BesideKernels beside_kernels() noexcept {
  using Beside = OperateOnPlanes<T, Operation>;
  using Summation = typename FirstPass<Statistic>::Summation;
  BesideKernels kernels;
  if constexpr (is_tuned_for(Shell::isa)) {
    kernels.planes = Shell::template run_beside<SumPlanes<T, Summation, false, Beside>>;
    kernels.short_planes = Shell::template run_beside<SumPlanes<T, Summation, true, Beside>>;
  }
  return kernels;
}

template <class Shell, Element T, class Statistic>
inline constexpr StatisticKernels statistic_table = statistic_kernels<Shell, T, Statistic>();
template <class Shell, Element T, class Operation>
inline constexpr OperationKernels operation_table = operation_kernels<Shell, T, Operation>();
template <class Shell, Element T, class Statistic, class Operation>
inline constexpr BesideKernels beside_table = beside_kernels<Shell, T, Statistic, Operation>();

/// of(shell) for the shell of that instruction set, one of [compiled_isa(), largest_isa()].
template <class Of>
decltype(auto) with_shell([[maybe_unused]] Isa isa, const Of& of) noexcept {
  // Kernels below what the compiler's flags demand are not compiled.
#if defined(__x86_64__) && BATCHNORM_ISAS >= 3
  if (compiled_isa() == Isa::x86_64_v4 || isa == Isa::x86_64_v4) return of(V4());
#endif
#if defined(__x86_64__) && BATCHNORM_ISAS >= 2
  if constexpr (compiled_isa() <= Isa::x86_64_v3) {
    if (compiled_isa() == Isa::x86_64_v3 || isa == Isa::x86_64_v3) return of(V3());
  }
#endif
  if constexpr (compiled_isa() == Isa::baseline) return of(Baseline());
}

}  // namespace detail

template <Element T, class Statistic>
const StatisticKernels& statistic_kernels(Isa isa) noexcept {
  return detail::with_shell(
      isa, []<class Shell>(Shell) -> const StatisticKernels& { return detail::statistic_table<Shell, T, Statistic>; });
}

template <Element T, class Operation>
const OperationKernels& operation_kernels(Isa isa) noexcept {
  return detail::with_shell(
      isa, []<class Shell>(Shell) -> const OperationKernels& { return detail::operation_table<Shell, T, Operation>; });
}

template <Element T, class Statistic, class Operation>
const BesideKernels& beside_kernels(Isa isa) noexcept {
  return detail::with_shell(
      isa, []<class Shell>(Shell) -> const BesideKernels& { return detail::beside_table<Shell, T, Statistic, Operation>; });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
