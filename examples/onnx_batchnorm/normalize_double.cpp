// SPDX-License-Identifier: MIT
#include "normalize_element.hpp"

namespace onnx_tool {

template std::vector<AnyTensor> normalize(const batchnorm::Options&, const Tensor<double>&, const Operands&,
                                          const batchnorm::CallOptions&);

}  // namespace onnx_tool
