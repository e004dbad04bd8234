// SPDX-License-Identifier: MIT
//
// Half of the kernels of train_mnist, so that two processors compile them side by side.

#include "relu_layer.hpp"

template class network::BatchNormalization<float, batchnorm::Relu>;
