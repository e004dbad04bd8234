// SPDX-License-Identifier: MIT
#include <batchnorm/walk/definitions.hpp>
