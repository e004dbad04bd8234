// SPDX-License-Identifier: MIT
#pragma once

// The gradients as a library, as forward.hpp says.

#include <batchnorm/compiled/kernel.hpp>
#include <batchnorm/gradients.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu::compiled {

using Nothing = Passage<Identity, Through::nothing>;
using ByMask = Passage<batchnorm::detail::TwoPieces, Through::mask>;
using ByOutput = Passage<batchnorm::detail::TwoPieces, Through::output>;
using Inverse = Passage<LeakyRelu, Through::inverse>;

// Names without commas.
template <Element T>
using SumsOfNothing = GradientStatistic<T, Nothing>;
template <Element T>
using SumsOfByMask = GradientStatistic<T, ByMask>;
template <Element T>
using SumsOfByOutput = GradientStatistic<T, ByOutput>;
template <Element T>
using SumsOfInverse = GradientStatistic<T, Inverse>;

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu::compiled

/// The sums of a gradient, the operation that follows from them, and the one that does not.
#define BATCHNORM_COMPILED_GRADIENT(PREFIX, T, PASS)                                                                     \
  BATCHNORM_COMPILED_STATISTIC(PREFIX, T, cpu::compiled::SumsOf##PASS<T>)                                                \
  BATCHNORM_COMPILED_DEPENDENT(PREFIX, T, cpu::compiled::SumsOf##PASS<T>, cpu::TrainingGradient<T, cpu::compiled::PASS>) \
  BATCHNORM_COMPILED_OPERATION(PREFIX, T, cpu::InferenceGradient<T, cpu::compiled::PASS>)

#define BATCHNORM_COMPILED_DOUBLE_GRADIENT(PREFIX, T)                                                    \
  BATCHNORM_COMPILED_STATISTIC(PREFIX, T, cpu::DoubleGradientStatistic<T>)                               \
  BATCHNORM_COMPILED_DEPENDENT(PREFIX, T, cpu::DoubleGradientStatistic<T>, cpu::DoubleGradient<T, true>) \
  BATCHNORM_COMPILED_OPERATION(PREFIX, T, cpu::DoubleGradient<T, false>)

/// What follows from the sums of channels, for parameters of type P.
#define BATCHNORM_COMPILED_GRADIENT_CHANNELS(PREFIX, COMPUTE, P)        \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::FinalizeGradients<COMPUTE, P>) \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::InferenceFactors<COMPUTE, P>)

#define BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, ...)                                                                 \
  PREFIX template void batch_norm_backward<T, P, __VA_ARGS__>(Format, const Options&, const GradientInputViews<T, P>&, \
                                                              const GradientViews<T, P>&, const __VA_ARGS__&,          \
                                                              const CallOptions&);

/// The calls with parameters of type P and no activation.
#define BATCHNORM_COMPILED_GRADIENT_CALLS(PREFIX, T, P)                                                                     \
  BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, Identity)                                                                       \
  PREFIX template void batch_norm_double_backward<T, P>(Format, const Options&, const DoubleGradientInputViews<T, P>&,      \
                                                        const DoubleGradientViews<T, P>&, const CallOptions&);              \
  PREFIX template GradientSums gradient_sums<T, P, Identity>(Format, const GradientInputViews<T, P>&, const Identity&,      \
                                                             const CallOptions&);                                           \
  PREFIX template GradientSums gradient_sums<T, P, Identity>(Format, const GradientInputViews<T, P>&, const Moments&,       \
                                                             const Identity&, const CallOptions&);                          \
  PREFIX template void input_gradient<T, P, Identity>(Format, const GradientInputViews<T, P>&, const GradientSums&, double, \
                                                      const GradientViews<T, P>&, const Identity&, const CallOptions&);     \
  PREFIX template void input_gradient<T, P, Identity>(Format, const GradientInputViews<T, P>&, const GradientSums&,         \
                                                      const Moments&, double, const GradientViews<T, P>&, const Identity&,  \
                                                      const CallOptions&);

#define BATCHNORM_COMPILED_GRADIENTS(PREFIX, T, P) \
  BATCHNORM_COMPILED_GRADIENT(PREFIX, T, Nothing)  \
  BATCHNORM_COMPILED_GRADIENT(PREFIX, T, Inverse)  \
  BATCHNORM_COMPILED_DOUBLE_GRADIENT(PREFIX, T)    \
  BATCHNORM_COMPILED_GRADIENT_CALLS(PREFIX, T, P)

#define BATCHNORM_COMPILED_ACTIVATION_GRADIENTS(PREFIX, T, P)       \
  BATCHNORM_COMPILED_GRADIENT(PREFIX, T, ByMask)                    \
  BATCHNORM_COMPILED_GRADIENT(PREFIX, T, ByOutput)                  \
  BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, ThroughMask<Relu>)      \
  BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, ThroughOutput<T, Relu>) \
  BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, ThroughMask<LeakyRelu>) \
  BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, ThroughOutput<T, LeakyRelu>)

#if BATCHNORM_USES_COMPILED
namespace batchnorm {
inline namespace BATCHNORM_KERNELS {

BATCHNORM_COMPILED_GRADIENT_CHANNELS(extern, float, float)
BATCHNORM_COMPILED_GRADIENT_CHANNELS(extern, float, half)
BATCHNORM_COMPILED_GRADIENT_CHANNELS(extern, float, bfloat16)
BATCHNORM_COMPILED_GRADIENT_CHANNELS(extern, double, double)
BATCHNORM_COMPILED_GRADIENTS(extern, float, float)
BATCHNORM_COMPILED_ACTIVATION_GRADIENTS(extern, float, float)
BATCHNORM_COMPILED_GRADIENT_CALLS(extern, float, half)
BATCHNORM_COMPILED_GRADIENTS(extern, double, double)
BATCHNORM_COMPILED_ACTIVATION_GRADIENTS(extern, double, double)
BATCHNORM_COMPILED_GRADIENTS(extern, half, float)
BATCHNORM_COMPILED_ACTIVATION_GRADIENTS(extern, half, float)
BATCHNORM_COMPILED_GRADIENT_CALLS(extern, half, half)
BATCHNORM_COMPILED_GRADIENTS(extern, bfloat16, float)
BATCHNORM_COMPILED_ACTIVATION_GRADIENTS(extern, bfloat16, float)
BATCHNORM_COMPILED_GRADIENT_CALLS(extern, bfloat16, bfloat16)

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
#endif
