// SPDX-License-Identifier: MIT
#pragma once

#include "../network/batch_normalization.hpp"

extern template class network::BatchNormalization<float, batchnorm::Relu>;
