// SPDX-License-Identifier: MIT
// x of double takes parameters of double.
#include <batchnorm/batchnorm.hpp>

using batchnorm::Format;
#if FORBIDDEN
using BatchNorm = batchnorm::BatchNorm<double, Format::NCHW, float>;
#else
using BatchNorm = batchnorm::BatchNorm<double, Format::NCHW, double>;
#endif

BatchNorm batch_norm;
