// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "onnx/batch_normalization.hpp"
#include "onnx/model.hpp"
#include "onnx/values.hpp"
#include "onnx_batchnorm/any_tensor.hpp"

// Computes what a model puts out, by loops in double, as far as the tests of folding need: layers over one spatial axis.
namespace support {

/// [N, C, L] of a convolution, [M, K, 1] of a Gemm.
struct Data {
  std::array<std::int64_t, 3> shape{};
  std::vector<double> values{};

  double& at(std::int64_t n, std::int64_t c, std::int64_t l) {
    return values[static_cast<std::size_t>((n * shape[1] + c) * shape[2] + l)];
  }
};

inline Data zeros(std::int64_t n, std::int64_t c, std::int64_t l) {
  return {{n, c, l}, std::vector<double>(static_cast<std::size_t>(n * c * l))};
}

class OnnxEvaluator {
 public:
  /// The main graph's tensors by their names, given its input x.
  static std::map<std::string, Data> run(std::string_view file, const Data& x) {
    const onnx::Model model = onnx::parse_model({file});
    OnnxEvaluator evaluator(model.graphs[0]);
    evaluator.data_["x"] = x;
    for (const onnx::Node& node : model.graphs[0].nodes) evaluator.compute(node);
    return evaluator.data_;
  }

 private:
  explicit OnnxEvaluator(const onnx::Graph& graph) : graph_(graph) {}

  double number(const onnx::Node& node, std::string_view name, double otherwise) const {
    const auto attribute = onnx::find_attribute(node, name);
    if (!attribute) return otherwise;
    return attribute->f ? static_cast<double>(*attribute->f) : static_cast<double>(attribute->i.value_or(0));
  }

  onnx_tool::Tensor<double> constant(const onnx::Node& node, std::size_t k) {
    const onnx::Value value = values_.of(graph_, k < node.inputs.size() ? node.inputs[k] : "");
    if (value.tensor == nullptr) return onnx_tool::Tensor<double>(batchnorm::Shape{1});
    return onnx_tool::converted<double>(onnx_tool::decode(*value.tensor));
  }

  void compute(const onnx::Node& node) {
    if (node.op_type == "Constant") return;
    Data& x = data_.at(std::string(node.inputs[0]));
    Data y = x;
    if (node.op_type == "Conv") y = convolution(node, x);
    if (node.op_type == "ConvTranspose") y = transposed(node, x);
    if (node.op_type == "Gemm") y = product(node, x);
    if (node.op_type == "BatchNormalization") normalize(node, y);
    if (node.op_type == "Relu") {
      for (double& value : y.values) value = value > 0 ? value : 0;
    }
    data_[std::string(node.outputs[0])] = y;
  }

  Data convolution(const onnx::Node& node, Data& x) {
    const auto w = constant(node, 1), b = constant(node, 2);
    const auto groups = static_cast<std::int64_t>(number(node, "group", 1));
    const std::int64_t out = w.shape()[0], in = w.shape()[1], kernel = w.shape()[2];
    Data y = zeros(x.shape[0], out, x.shape[2] - kernel + 1);
    for (std::int64_t n = 0; n < y.shape[0]; ++n) {
      for (std::int64_t o = 0; o < out; ++o) {
        for (std::int64_t l = 0; l < y.shape[2]; ++l) {
          y.at(n, o, l) = b[b.size() == 1 ? 0 : o];
          for (std::int64_t i = 0; i < in; ++i) {
            for (std::int64_t k = 0; k < kernel; ++k) {
              y.at(n, o, l) += w[(o * in + i) * kernel + k] * x.at(n, o / (out / groups) * in + i, l + k);
            }
          }
        }
      }
    }
    return y;
  }

  Data transposed(const onnx::Node& node, Data& x) {
    const auto w = constant(node, 1), b = constant(node, 2);
    const auto groups = static_cast<std::int64_t>(number(node, "group", 1));
    const std::int64_t in = w.shape()[0], out = w.shape()[1], kernel = w.shape()[2];
    Data y = zeros(x.shape[0], out * groups, x.shape[2] + kernel - 1);
    for (std::int64_t n = 0; n < y.shape[0]; ++n) {
      for (std::int64_t o = 0; o < out * groups; ++o) {
        for (std::int64_t l = 0; l < y.shape[2]; ++l) y.at(n, o, l) = b[b.size() == 1 ? 0 : o];
      }
      for (std::int64_t i = 0; i < in; ++i) {
        const std::int64_t first = i / (in / groups) * out;
        for (std::int64_t o = 0; o < out; ++o) {
          for (std::int64_t l = 0; l < x.shape[2]; ++l) {
            for (std::int64_t k = 0; k < kernel; ++k)
              y.at(n, first + o, l + k) += w[(i * out + o) * kernel + k] * x.at(n, i, l);
          }
        }
      }
    }
    return y;
  }

  Data product(const onnx::Node& node, Data& x) {
    const auto w = constant(node, 1), b = constant(node, 2);
    const bool is_transposed = number(node, "transB", 0) != 0;
    const double alpha = number(node, "alpha", 1), beta = number(node, "beta", 1);
    const std::int64_t k = w.shape()[is_transposed ? 1 : 0], columns = w.shape()[is_transposed ? 0 : 1];
    const std::int64_t width = b.shape()[b.shape().rank() - 1], rows = b.size() / width;
    Data y = zeros(x.shape[0], columns, 1);
    for (std::int64_t m = 0; m < y.shape[0]; ++m) {
      for (std::int64_t n = 0; n < columns; ++n) {
        for (std::int64_t i = 0; i < k; ++i) {
          y.at(m, n, 0) += alpha * x.at(m, i, 0) * w[is_transposed ? n * k + i : i * columns + n];
        }
        y.at(m, n, 0) += beta * b[(rows == 1 ? 0 : m * width) + (width == 1 ? 0 : n)];
      }
    }
    return y;
  }

  void normalize(const onnx::Node& node, Data& y) {
    const auto scale = constant(node, 1), bias = constant(node, 2), mean = constant(node, 3), variance = constant(node, 4);
    const double epsilon = number(node, "epsilon", 1e-5F);
    for (std::int64_t n = 0; n < y.shape[0]; ++n) {
      for (std::int64_t c = 0; c < y.shape[1]; ++c) {
        for (std::int64_t l = 0; l < y.shape[2]; ++l) {
          y.at(n, c, l) = (y.at(n, c, l) - mean[c]) / std::sqrt(variance[c] + epsilon) * scale[c] + bias[c];
        }
      }
    }
  }

  const onnx::Graph& graph_;
  onnx::Values values_;
  std::map<std::string, Data> data_;
};

}  // namespace support
