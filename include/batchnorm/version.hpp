// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The version.

// The one place of it: CMakeLists.txt reads it from here.

/// 0 until the interface is settled.
#define BATCHNORM_VERSION_MAJOR 0
/// Before the first major version a new one may change the interface.
#define BATCHNORM_VERSION_MINOR 1
/// A new one keeps the interface.
#define BATCHNORM_VERSION_PATCH 0
