// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/batchnorm.hpp>

namespace support {

/// y = leaky ReLU(z + residual): with slope 1 the plain sum, with slope 0 the sum's ReLU.
template <class T>
using LeakySum = batchnorm::AddResidual<T, batchnorm::LeakyRelu>;

// Back through an activation, whose pieces the mask or the output gives.
using ThroughLeakyMask = batchnorm::ThroughMask<batchnorm::LeakyRelu>;
template <class T>
using ThroughLeakyOutput = batchnorm::ThroughOutput<T, batchnorm::LeakyRelu>;
using ThroughReluMask = batchnorm::ThroughMask<batchnorm::Relu>;
template <class T>
using ThroughReluOutput = batchnorm::ThroughOutput<T, batchnorm::Relu>;

}  // namespace support
