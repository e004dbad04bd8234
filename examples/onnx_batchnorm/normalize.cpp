// SPDX-License-Identifier: MIT
#include "normalize.hpp"

#include <variant>

namespace onnx_tool {

std::vector<AnyTensor> normalize(const batchnorm::Options& options, const Operands& operands,
                                 const batchnorm::CallOptions& call) {
  return std::visit([&](const auto& x) { return normalize(options, x, operands, call); }, operands.x);
}

}  // namespace onnx_tool
