// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/kernel/tables.hpp>

// A kernel over channels, a type of policy/, for each instruction set, compiled or (PREFIX extern) declared.
#define BATCHNORM_COMPILED_KERNEL(PREFIX, ...)                                      \
  PREFIX template void cpu::run_baseline<__VA_ARGS__>(const __VA_ARGS__&) noexcept; \
  BATCHNORM_COMPILED_V3(PREFIX, __VA_ARGS__)                                        \
  BATCHNORM_COMPILED_V4(PREFIX, __VA_ARGS__)
#if defined(__x86_64__) && BATCHNORM_ISAS >= 2
#define BATCHNORM_COMPILED_V3(PREFIX, ...) PREFIX template void cpu::run_v3<__VA_ARGS__>(const __VA_ARGS__&) noexcept;
#else
#define BATCHNORM_COMPILED_V3(PREFIX, ...)
#endif
#if defined(__x86_64__) && BATCHNORM_ISAS >= 3
#define BATCHNORM_COMPILED_V4(PREFIX, ...) PREFIX template void cpu::run_v4<__VA_ARGS__>(const __VA_ARGS__&) noexcept;
#else
#define BATCHNORM_COMPILED_V4(PREFIX, ...)
#endif

// Tables of kernels (kernel/tables.hpp).
#define BATCHNORM_COMPILED_STATISTIC(PREFIX, T, ...) \
  PREFIX template const cpu::StatisticKernels& cpu::statistic_kernels<T, __VA_ARGS__>(Isa) noexcept;
#define BATCHNORM_COMPILED_OPERATION(PREFIX, T, ...) \
  PREFIX template const cpu::OperationKernels& cpu::operation_kernels<T, __VA_ARGS__>(Isa) noexcept;
/// An operation that depends on a statistic.
#define BATCHNORM_COMPILED_DEPENDENT(PREFIX, T, STATISTIC, ...) \
  BATCHNORM_COMPILED_OPERATION(PREFIX, T, __VA_ARGS__)          \
  PREFIX template const cpu::BesideKernels& cpu::beside_kernels<T, STATISTIC, __VA_ARGS__>(Isa) noexcept;
