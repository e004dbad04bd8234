// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/batchnorm.hpp>

// The kernels behind the calls that most tests make are compiled once, in instantiate_*.cpp, not in every test.

// A macro, because an explicit instantiation and its declaration must repeat the whole signature.
#define SUPPORT_INSTANTIATE_EPILOGUE(PREFIX, T, P, E)                                                                   \
  PREFIX template void batchnorm::batch_norm<T, P, E>(Format, const Options&, TensorView<const T>, TensorView<const P>, \
                                                      TensorView<const P>, TensorView<P>, TensorView<P>,                \
                                                      const OutputViews<T, P>&, const E&, const CallOptions&);

#define SUPPORT_INSTANTIATE_OPERATOR(PREFIX, T, P, F)                                                                        \
  PREFIX template batchnorm::Outputs<T, P> batchnorm::BatchNorm<T, F, P>::operator()<batchnorm::Identity>(                   \
      TensorView<const T>, TensorView<const P>, TensorView<const P>, TensorView<P>, TensorView<P>, const Identity&,          \
      const CallOptions&) const;                                                                                             \
  PREFIX template void batchnorm::BatchNorm<T, F, P>::operator()<batchnorm::Identity>(                                       \
      TensorView<const T>, TensorView<const P>, TensorView<const P>, TensorView<P>, TensorView<P>, const OutputViews<T, P>&, \
      const Identity&, const CallOptions&) const;                                                                            \
  PREFIX template batchnorm::Tensor<T> batchnorm::BatchNorm<T, F, P>::output_x<batchnorm::Identity>(                         \
      TensorView<const T>, TensorView<const P>, TensorView<const P>, TensorView<P>, TensorView<P>, const Identity&,          \
      const CallOptions&) const;

#define SUPPORT_INSTANTIATE_NORMALIZE(PREFIX, T, P)                                                                            \
  PREFIX template void batchnorm::normalize<T, P, batchnorm::Identity>(                                                        \
      TensorView<const T>, Format, TensorView<const P>, TensorView<const P>, TensorView<const P>, TensorView<const P>, double, \
      TensorView<T>, const Identity&, const CallOptions&);                                                                     \
  PREFIX template void batchnorm::normalize<T, P, batchnorm::Identity>(TensorView<const T>, Format, const Moments&,            \
                                                                       TensorView<const P>, TensorView<const P>, double,       \
                                                                       TensorView<T>, const Identity&, const CallOptions&);

#define SUPPORT_INSTANTIATE_BACKWARD(PREFIX, T, P, THROUGH)                                                       \
  PREFIX template void batchnorm::batch_norm_backward<T, P, THROUGH>(                                             \
      Format, const Options&, TensorView<const T>, TensorView<const T>, TensorView<const P>, TensorView<const P>, \
      TensorView<const P>, const GradientViews<T, P>&, const THROUGH&, const CallOptions&);

#define SUPPORT_INSTANTIATE_DOUBLE_BACKWARD(PREFIX, T, P)                                                                   \
  PREFIX template void batchnorm::batch_norm_double_backward<T, P>(                                                         \
      Format, const Options&, TensorView<const T>, TensorView<const T>, TensorView<const P>, TensorView<const P>,           \
      TensorView<const P>, TensorView<const T>, TensorView<const P>, TensorView<const P>, const DoubleGradientViews<T, P>&, \
      const CallOptions&);

#define SUPPORT_INSTANTIATE_GRADIENT_OPERATOR(PREFIX, T, P, F)                                                 \
  PREFIX template batchnorm::Gradients<T, P> batchnorm::BatchNorm<T, F, P>::backward<batchnorm::Identity>(     \
      TensorView<const T>, TensorView<const T>, TensorView<const P>, TensorView<const P>, TensorView<const P>, \
      const Identity&, const CallOptions&) const;                                                              \
  PREFIX template void batchnorm::BatchNorm<T, F, P>::backward<batchnorm::Identity>(                           \
      TensorView<const T>, TensorView<const T>, TensorView<const P>, TensorView<const P>, TensorView<const P>, \
      const GradientViews<T, P>&, const Identity&, const CallOptions&) const;

#define SUPPORT_INSTANTIATE_GRADIENT_PIECES(PREFIX, T, P)                                                                 \
  PREFIX template batchnorm::GradientSums batchnorm::gradient_sums<T, P, batchnorm::Identity>(                            \
      TensorView<const T>, TensorView<const T>, Format, TensorView<const P>, const Identity&, const CallOptions&);        \
  PREFIX template void batchnorm::input_gradient<T, P, batchnorm::Identity>(                                              \
      TensorView<const T>, TensorView<const T>, Format, const GradientSums&, TensorView<const P>, TensorView<const P>,    \
      TensorView<const P>, double, const GradientViews<T, P>&, const Identity&, const CallOptions&);                      \
  PREFIX template void batchnorm::input_gradient<T, P, batchnorm::Identity>(                                              \
      TensorView<const T>, TensorView<const T>, Format, const GradientSums&, const Moments&, TensorView<const P>, double, \
      const GradientViews<T, P>&, const Identity&, const CallOptions&);

#define SUPPORT_INSTANTIATE(PREFIX, T, P)                             \
  SUPPORT_INSTANTIATE_EPILOGUE(PREFIX, T, P, batchnorm::Identity)     \
  SUPPORT_INSTANTIATE_OPERATOR(PREFIX, T, P, batchnorm::Format::NCHW) \
  SUPPORT_INSTANTIATE_OPERATOR(PREFIX, T, P, batchnorm::Format::NHWC) \
  SUPPORT_INSTANTIATE_NORMALIZE(PREFIX, T, P)

#define SUPPORT_INSTANTIATE_GRADIENTS(PREFIX, T, P)                            \
  SUPPORT_INSTANTIATE_BACKWARD(PREFIX, T, P, batchnorm::Identity)              \
  SUPPORT_INSTANTIATE_DOUBLE_BACKWARD(PREFIX, T, P)                            \
  SUPPORT_INSTANTIATE_GRADIENT_OPERATOR(PREFIX, T, P, batchnorm::Format::NCHW) \
  SUPPORT_INSTANTIATE_GRADIENT_OPERATOR(PREFIX, T, P, batchnorm::Format::NHWC) \
  SUPPORT_INSTANTIATE_GRADIENT_PIECES(PREFIX, T, P)

#define SUPPORT_INSTANTIATE_MOMENTS(PREFIX, T) \
  PREFIX template batchnorm::Moments batchnorm::moments<T>(TensorView<const T>, Format, const CallOptions&);

#define SUPPORT_INSTANTIATE_GRADIENT_SUMS(PREFIX, T)                                        \
  PREFIX template batchnorm::GradientSums batchnorm::gradient_sums<T, batchnorm::Identity>( \
      TensorView<const T>, TensorView<const T>, Format, const Moments&, const Identity&, const CallOptions&);

namespace support {

/// y = leaky ReLU(z + residual): with slope 1 the plain sum, with slope 0 the sum's ReLU.
template <class T>
using LeakySum = batchnorm::AddResidual<T, batchnorm::LeakyRelu>;

// Back through an activation, whose pieces the mask or the output tells.
using ThroughLeakyMask = batchnorm::ThroughMask<batchnorm::LeakyRelu>;
template <class T>
using ThroughLeakyOutput = batchnorm::ThroughOutput<T, batchnorm::LeakyRelu>;
using ThroughReluMask = batchnorm::ThroughMask<batchnorm::Relu>;
template <class T>
using ThroughReluOutput = batchnorm::ThroughOutput<T, batchnorm::Relu>;

}  // namespace support

#define SUPPORT_INSTANTIATE_ELEMENT(PREFIX, T, P)             \
  SUPPORT_INSTANTIATE_MOMENTS(PREFIX, T)                      \
  SUPPORT_INSTANTIATE_EPILOGUE(PREFIX, T, P, batchnorm::Relu) \
  SUPPORT_INSTANTIATE_EPILOGUE(PREFIX, T, P, support::LeakySum<T>)

#define SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(PREFIX, T, P) \
  SUPPORT_INSTANTIATE_GRADIENT_SUMS(PREFIX, T)              \
  SUPPORT_INSTANTIATE_BACKWARD(PREFIX, T, P, support::ThroughReluMask)

#define SUPPORT_INSTANTIATE_ACTIVATION_GRADIENTS(PREFIX, T, P)              \
  SUPPORT_INSTANTIATE_BACKWARD(PREFIX, T, P, support::ThroughReluOutput<T>) \
  SUPPORT_INSTANTIATE_BACKWARD(PREFIX, T, P, support::ThroughLeakyMask)     \
  SUPPORT_INSTANTIATE_BACKWARD(PREFIX, T, P, support::ThroughLeakyOutput<T>)

SUPPORT_INSTANTIATE(extern, float, float)
SUPPORT_INSTANTIATE_GRADIENTS(extern, float, float)
SUPPORT_INSTANTIATE(extern, float, batchnorm::half)
SUPPORT_INSTANTIATE_GRADIENTS(extern, float, batchnorm::half)
SUPPORT_INSTANTIATE(extern, batchnorm::half, float)
SUPPORT_INSTANTIATE_GRADIENTS(extern, batchnorm::half, float)
SUPPORT_INSTANTIATE(extern, batchnorm::half, batchnorm::half)
SUPPORT_INSTANTIATE_GRADIENTS(extern, batchnorm::half, batchnorm::half)
SUPPORT_INSTANTIATE(extern, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE_GRADIENTS(extern, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE(extern, batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_INSTANTIATE_GRADIENTS(extern, batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_INSTANTIATE(extern, double, double)
SUPPORT_INSTANTIATE_GRADIENTS(extern, double, double)
SUPPORT_INSTANTIATE_ELEMENT(extern, float, float)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(extern, float, float)
SUPPORT_INSTANTIATE_ACTIVATION_GRADIENTS(extern, float, float)
SUPPORT_INSTANTIATE_ELEMENT(extern, batchnorm::half, float)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(extern, batchnorm::half, float)
SUPPORT_INSTANTIATE_ACTIVATION_GRADIENTS(extern, batchnorm::half, float)
SUPPORT_INSTANTIATE_ELEMENT(extern, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(extern, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE_ACTIVATION_GRADIENTS(extern, batchnorm::bfloat16, float)
SUPPORT_INSTANTIATE_ELEMENT(extern, double, double)
SUPPORT_INSTANTIATE_ELEMENT_GRADIENTS(extern, double, double)
SUPPORT_INSTANTIATE_ACTIVATION_GRADIENTS(extern, double, double)
