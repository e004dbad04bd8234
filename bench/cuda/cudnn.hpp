// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "buffers.hpp"

namespace bench {

/// cuDNN's answer to the same problem, on the same buffers.
struct CudnnCall {
  std::string name;  ///< "cudnn_spatial"
  DeviceCall call;   ///< @throws std::runtime_error   cuDNN refuses
};

/// "cuDNN 9.12.0", or nothing where the program was built without it.
std::string cudnn_version();

/// Nothing where the program was built without cuDNN. `buffers` outlive the calls.
std::vector<CudnnCall> cudnn_calls(const Problem& problem, const DeviceBuffers& buffers);

}  // namespace bench
