// SPDX-License-Identifier: MIT
#define BATCHNORM_COMPILES_WALKS
#include <batchnorm/walk/walks.hpp>
