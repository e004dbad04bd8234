// SPDX-License-Identifier: MIT

// The library's declarations alone: no call, so no kernel is instantiated.

#include <batchnorm/batchnorm.hpp>
