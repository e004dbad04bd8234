// SPDX-License-Identifier: MIT
// x of bfloat16 takes parameters of float or bfloat16.
#include <batchnorm/batchnorm.hpp>

using batchnorm::Format;
#if FORBIDDEN
using BatchNorm = batchnorm::BatchNorm<batchnorm::bfloat16, Format::NHWC, batchnorm::half>;
#else
using BatchNorm = batchnorm::BatchNorm<batchnorm::bfloat16, Format::NHWC, batchnorm::bfloat16>;
#endif

BatchNorm batch_norm;
