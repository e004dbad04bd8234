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

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu::compiled

/// The sums of a gradient, and an operation that follows from them or not.
#define BATCHNORM_COMPILED_GRADIENT(PREFIX, T, PASS)                                                                        \
  PREFIX template void cpu::reduce<T, cpu::GradientStatistic<T, cpu::compiled::PASS>>(                                      \
      const cpu::Machine&, const cpu::Reduction<T, cpu::GradientStatistic<T, cpu::compiled::PASS>>&,                        \
      const cpu::SumsCallback&);                                                                                            \
  PREFIX template void                                                                                                      \
  cpu::reduce_then_sweep<T, cpu::GradientStatistic<T, cpu::compiled::PASS>, cpu::TrainingGradient<T, cpu::compiled::PASS>>( \
      const cpu::Machine&, cpu::Reduction<T, cpu::GradientStatistic<T, cpu::compiled::PASS>>,                               \
      const cpu::Elementwise<T, cpu::TrainingGradient<T, cpu::compiled::PASS>>&, bool,                                      \
      const cpu::CoefficientsCallback<T, cpu::TrainingGradient<T, cpu::compiled::PASS>>&);                                  \
  PREFIX template void                                                                                                      \
  cpu::reduce_and_sweep<T, cpu::GradientStatistic<T, cpu::compiled::PASS>, cpu::InferenceGradient<T, cpu::compiled::PASS>>( \
      const cpu::Machine&, cpu::Reduction<T, cpu::GradientStatistic<T, cpu::compiled::PASS>>,                               \
      const cpu::Elementwise<T, cpu::InferenceGradient<T, cpu::compiled::PASS>>&, bool,                                     \
      const cpu::FillCallback<T, cpu::InferenceGradient<T, cpu::compiled::PASS>>&, const cpu::SumsCallback&);               \
  PREFIX template void cpu::sweep<T, cpu::InferenceGradient<T, cpu::compiled::PASS>>(                                       \
      const cpu::Machine&, const cpu::Elementwise<T, cpu::InferenceGradient<T, cpu::compiled::PASS>>&,                      \
      const cpu::FillCallback<T, cpu::InferenceGradient<T, cpu::compiled::PASS>>&);                                         \
  PREFIX template void cpu::sweep<T, cpu::TrainingGradient<T, cpu::compiled::PASS>>(                                        \
      const cpu::Machine&, const cpu::Elementwise<T, cpu::TrainingGradient<T, cpu::compiled::PASS>>&,                       \
      const cpu::FillCallback<T, cpu::TrainingGradient<T, cpu::compiled::PASS>>&);

#define BATCHNORM_COMPILED_DOUBLE_GRADIENT(PREFIX, T)                                                            \
  PREFIX template void cpu::reduce<T, cpu::DoubleGradientStatistic<T>>(                                          \
      const cpu::Machine&, const cpu::Reduction<T, cpu::DoubleGradientStatistic<T>>&, const cpu::SumsCallback&); \
  PREFIX template void cpu::reduce_then_sweep<T, cpu::DoubleGradientStatistic<T>, cpu::DoubleGradient<T, true>>( \
      const cpu::Machine&, cpu::Reduction<T, cpu::DoubleGradientStatistic<T>>,                                   \
      const cpu::Elementwise<T, cpu::DoubleGradient<T, true>>&, bool,                                            \
      const cpu::CoefficientsCallback<T, cpu::DoubleGradient<T, true>>&);                                        \
  PREFIX template void cpu::reduce_and_sweep<T, cpu::DoubleGradientStatistic<T>, cpu::DoubleGradient<T, false>>( \
      const cpu::Machine&, cpu::Reduction<T, cpu::DoubleGradientStatistic<T>>,                                   \
      const cpu::Elementwise<T, cpu::DoubleGradient<T, false>>&, bool,                                           \
      const cpu::FillCallback<T, cpu::DoubleGradient<T, false>>&, const cpu::SumsCallback&);                     \
  PREFIX template void cpu::sweep<T, cpu::DoubleGradient<T, false>>(                                             \
      const cpu::Machine&, const cpu::Elementwise<T, cpu::DoubleGradient<T, false>>&,                            \
      const cpu::FillCallback<T, cpu::DoubleGradient<T, false>>&);

/// What follows from the sums of channels, for parameters of type P.
#define BATCHNORM_COMPILED_GRADIENT_CHANNELS(PREFIX, COMPUTE, P)        \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::FinalizeGradients<COMPUTE, P>) \
  BATCHNORM_COMPILED_KERNEL(PREFIX, cpu::InferenceFactors<COMPUTE, P>)

#define BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, ...)                                                            \
  PREFIX template void batch_norm_backward<T, P, __VA_ARGS__>(                                                    \
      Format, const Options&, TensorView<const T>, TensorView<const T>, TensorView<const P>, TensorView<const P>, \
      TensorView<const P>, const GradientViews<T, P>&, const __VA_ARGS__&, const CallOptions&);

/// The calls with parameters of type P and no activation.
#define BATCHNORM_COMPILED_GRADIENT_CALLS(PREFIX, T, P)                                                                        \
  BATCHNORM_COMPILED_BACKWARD(PREFIX, T, P, Identity)                                                                          \
  PREFIX template void batch_norm_double_backward<T, P>(Format, const Options&, TensorView<const T>, TensorView<const T>,      \
                                                        TensorView<const P>, TensorView<const P>, TensorView<const P>,         \
                                                        TensorView<const T>, TensorView<const P>, TensorView<const P>,         \
                                                        const DoubleGradientViews<T, P>&, const CallOptions&);                 \
  PREFIX template GradientSums gradient_sums<T, P, Identity>(TensorView<const T>, TensorView<const T>, Format,                 \
                                                             TensorView<const P>, const Identity&, const CallOptions&);        \
  PREFIX template void input_gradient<T, P, Identity>(TensorView<const T>, TensorView<const T>, Format, const GradientSums&,   \
                                                      TensorView<const P>, TensorView<const P>, TensorView<const P>, double,   \
                                                      const GradientViews<T, P>&, const Identity&, const CallOptions&);        \
  PREFIX template void input_gradient<T, P, Identity>(TensorView<const T>, TensorView<const T>, Format, const GradientSums&,   \
                                                      const Moments&, TensorView<const P>, double, const GradientViews<T, P>&, \
                                                      const Identity&, const CallOptions&);

#define BATCHNORM_COMPILED_GRADIENTS(PREFIX, T, P)                                                                          \
  BATCHNORM_COMPILED_GRADIENT(PREFIX, T, Nothing)                                                                           \
  BATCHNORM_COMPILED_GRADIENT(PREFIX, T, Inverse)                                                                           \
  BATCHNORM_COMPILED_DOUBLE_GRADIENT(PREFIX, T)                                                                             \
  BATCHNORM_COMPILED_GRADIENT_CALLS(PREFIX, T, P)                                                                           \
  PREFIX template GradientSums gradient_sums<T, Identity>(TensorView<const T>, TensorView<const T>, Format, const Moments&, \
                                                          const Identity&, const CallOptions&);

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
