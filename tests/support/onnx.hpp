// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include <batchnorm/tensor.hpp>

#include "onnx/batch_normalization.hpp"
#include "onnx/file.hpp"
#include "onnx/model.hpp"
#include "onnx/tensor.hpp"

// The test data that ONNX publishes: folders of a model of one batch norm and the tensors of its first data set, in float.
namespace support {

struct OnnxCase {
  float epsilon = 0, momentum = 0;
  bool is_training = false;
  std::array<batchnorm::Tensor<float>, 5> inputs;  ///< X, scale, B, mean, var
  std::vector<batchnorm::Tensor<float>> outputs;
};

inline batchnorm::Tensor<float> read_onnx_tensor(const std::string& path) {
  const onnx::File file(path);
  return onnx::decode<float>(onnx::parse_tensor(file.bytes()));
}

inline OnnxCase read_onnx_case(const std::string& folder) {
  const onnx::File file(folder + "/model.onnx");
  const onnx::Model model = onnx::parse_model(file.bytes());
  onnx::Values values;
  const std::vector<onnx::BatchNormalization> norms = onnx::batch_normalizations(model, values);
  if (norms.size() != 1 || !norms[0].problem.empty()) throw std::runtime_error(folder + ": not a model of one batch norm");
  OnnxCase result{norms[0].epsilon, norms[0].momentum, norms[0].is_training, {}, {}};
  const std::string data = folder + "/test_data_set_0/";
  for (std::size_t k = 0, given = 0; k < result.inputs.size(); ++k) {
    const onnx::Value& value = norms[0].inputs[k];
    result.inputs[k] =
        value.tensor ? onnx::decode<float>(*value.tensor) : read_onnx_tensor(data + "input_" + std::to_string(given++) + ".pb");
  }
  for (std::size_t k = 0; k < norms[0].node->outputs.size(); ++k) {
    result.outputs.push_back(read_onnx_tensor(data + "output_" + std::to_string(k) + ".pb"));
  }
  return result;
}

}  // namespace support
