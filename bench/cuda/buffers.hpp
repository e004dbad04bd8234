// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "../suite/row.hpp"
#include "device.hpp"

namespace bench {

/// The tensors of a row: as many sets as are needed for each to be out of the cache when its turn comes.
struct DeviceBuffers {
  struct Set {
    DeviceMemory x, y, dy;  ///< y: what the operation writes, dx in backward; dy empty but there
  };

  std::vector<Set> sets;
  DeviceMemory scale, bias, mean, variance, saved_mean, saved_variance, dscale, dbias;

  /// Filled with noise, scale, bias and statistics with values near 1 and 0.
  DeviceBuffers(const Problem& problem, const DeviceFacts& facts);
};

/// Bytes of x.
std::size_t tensor_bytes(const Problem& problem);

/// The library's call; `buffers` outlive it.
DeviceCall library_call(const Problem& problem, const DeviceBuffers& buffers);
/// y, or dx, is a copy of x.
DeviceCall copy_call(const Problem& problem, const DeviceBuffers& buffers);

}  // namespace bench
