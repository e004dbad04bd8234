// SPDX-License-Identifier: MIT
#include "normalize_element.hpp"

namespace onnx_tool {

template std::vector<AnyTensor> normalize(const batchnorm::Options&, const Tensor<batchnorm::half>&, const Operands&,
                                          const batchnorm::CallOptions&);

}  // namespace onnx_tool
