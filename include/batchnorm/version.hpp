// SPDX-License-Identifier: MIT
#pragma once

// The one place of the version: CMakeLists.txt reads it from here.
#define BATCHNORM_VERSION_MAJOR 0
#define BATCHNORM_VERSION_MINOR 1
#define BATCHNORM_VERSION_PATCH 0
