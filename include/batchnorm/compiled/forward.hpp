// SPDX-License-Identifier: MIT
#pragma once

// The forward pass as a library: what its sources instantiate (PREFIX empty) and programs that link it declare (PREFIX extern).
// A program compiles what is not on the list, such as an activation of its own, as it does without the library.

#include <batchnorm/batch_norm.hpp>
#include <batchnorm/compiled/kernel.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu::compiled {

template <Element T>
using Plain = Normalization<T, Identity, false, false>;
template <Element T>
using ToRelu = Normalization<T, Relu, false, false>;
template <Element T>
using ToReluAndMask = Normalization<T, Relu, false, true>;
template <Element T>
using ToLeakyRelu = Normalization<T, LeakyRelu, false, false>;
template <Element T>
using ToLeakyReluAndMask = Normalization<T, LeakyRelu, false, true>;
template <Element T>
using AddResidual = Normalization<T, Identity, true, false>;
template <Element T>
using AddResidualToRelu = Normalization<T, Relu, true, false>;
template <Element T>
using AddResidualToReluAndMask = Normalization<T, Relu, true, true>;
template <Element T>
using AddResidualToLeakyRelu = Normalization<T, LeakyRelu, true, false>;
template <Element T>
using AddResidualToLeakyReluAndMask = Normalization<T, LeakyRelu, true, true>;

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu::compiled

#define BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, OPERATION) \
  BATCHNORM_COMPILED_DEPENDENT(PREFIX, T, cpu::MomentStatistic<T>, cpu::compiled::OPERATION<T>)

/// What follows from the statistics of channels, for parameters of type P.
#define BATCHNORM_COMPILED_CHANNELS(PREFIX, COMPUTE, P)                \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::FinalizeChannels<COMPUTE, P>) \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::ConstantCoefficients<COMPUTE, P>)

#define BATCHNORM_COMPILED_EPILOGUE(PREFIX, T, P, ...)                                                \
  PREFIX template void batch_norm<T, P, __VA_ARGS__>(Format, const Options&, const InputViews<T, P>&, \
                                                     const OutputViews<T, P>&, const __VA_ARGS__&, const CallOptions&);

/// The calls with parameters of type P and no epilogue.
#define BATCHNORM_COMPILED_CALLS(PREFIX, T, P)                                                                            \
  BATCHNORM_COMPILED_EPILOGUE(PREFIX, T, P, Identity)                                                                     \
  PREFIX template void normalize<T, P, Identity>(Format, const InputViews<T, P>&, double, TensorView<T>, const Identity&, \
                                                 const CallOptions&);                                                     \
  PREFIX template void normalize<T, P, Identity>(Format, const InputViews<T, P>&, const Moments&, double, TensorView<T>,  \
                                                 const Identity&, const CallOptions&);

#define BATCHNORM_COMPILED_MERGES(PREFIX)              \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::MergeMoments) \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::MergeBlock)   \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::SumSegments)  \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::RefinePivots)

#define BATCHNORM_COMPILED_FORWARD(PREFIX, T, P)                                  \
  BATCHNORM_COMPILED_STATISTIC(PREFIX, T, cpu::MomentStatistic<T>)                \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, Plain)                              \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, ToRelu)                             \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, ToReluAndMask)                      \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, ToLeakyRelu)                        \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, ToLeakyReluAndMask)                 \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, AddResidual)                        \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, AddResidualToRelu)                  \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, AddResidualToReluAndMask)           \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, AddResidualToLeakyRelu)             \
  BATCHNORM_COMPILED_NORMALIZATION(PREFIX, T, AddResidualToLeakyReluAndMask)      \
  BATCHNORM_COMPILED_CALLS(PREFIX, T, P)                                          \
  BATCHNORM_COMPILED_EPILOGUE(PREFIX, T, P, Relu)                                 \
  BATCHNORM_COMPILED_EPILOGUE(PREFIX, T, P, batchnorm::AddResidual<T, LeakyRelu>) \
  PREFIX template Moments moments<T>(TensorView<const T>, Format, const CallOptions&);

#if BATCHNORM_USES_COMPILED
namespace batchnorm {
inline namespace BATCHNORM_KERNELS {

BATCHNORM_COMPILED_MERGES(extern)
BATCHNORM_COMPILED_CHANNELS(extern, float, float)
BATCHNORM_COMPILED_CHANNELS(extern, float, half)
BATCHNORM_COMPILED_CHANNELS(extern, float, bfloat16)
BATCHNORM_COMPILED_CHANNELS(extern, double, double)
BATCHNORM_COMPILED_FORWARD(extern, float, float)
BATCHNORM_COMPILED_CALLS(extern, float, half)
BATCHNORM_COMPILED_FORWARD(extern, double, double)
BATCHNORM_COMPILED_FORWARD(extern, half, float)
BATCHNORM_COMPILED_CALLS(extern, half, half)
BATCHNORM_COMPILED_FORWARD(extern, bfloat16, float)
BATCHNORM_COMPILED_CALLS(extern, bfloat16, bfloat16)

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
#endif
