// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/batchnorm.hpp>

// The kernels of each element type are compiled once, in kernels_*.cpp.

// A macro, because an explicit instantiation and its declaration must repeat the whole signature.
#define BATCHNORM_TORCH_KERNELS(PREFIX, T, P)                                                                              \
  PREFIX template void batchnorm::batch_norm<T, P, batchnorm::Identity>(                                                   \
      Format, const Options&, TensorView<const T>, TensorView<const P>, TensorView<const P>, TensorView<P>, TensorView<P>, \
      const OutputViews<T, P>&, const Identity&, const CallOptions&);                                                      \
  PREFIX template void batchnorm::batch_norm_backward<T, P, batchnorm::Identity>(                                          \
      Format, const Options&, TensorView<const T>, TensorView<const T>, TensorView<const P>, TensorView<const P>,          \
      TensorView<const P>, const GradientViews<T, P>&, const Identity&, const CallOptions&);

BATCHNORM_TORCH_KERNELS(extern, float, float)
BATCHNORM_TORCH_KERNELS(extern, double, double)
BATCHNORM_TORCH_KERNELS(extern, batchnorm::half, float)
BATCHNORM_TORCH_KERNELS(extern, batchnorm::bfloat16, float)
