// SPDX-License-Identifier: MIT
// x of half takes parameters of float or half.
#include <batchnorm/batchnorm.hpp>

using batchnorm::Format;
#if FORBIDDEN
using BatchNorm = batchnorm::BatchNorm<batchnorm::half, Format::NCHW, double>;
#else
using BatchNorm = batchnorm::BatchNorm<batchnorm::half, Format::NCHW, batchnorm::half>;
#endif

BatchNorm batch_norm;
