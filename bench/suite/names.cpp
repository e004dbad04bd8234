// SPDX-License-Identifier: MIT
#include "names.hpp"

namespace bench {

std::string_view name_of(Operation operation) {
  switch (operation) {
    case Operation::training: return "training";
    case Operation::inference: return "inference";
    case Operation::backward: return "backward";
    case Operation::training_relu: return "training_relu";
    case Operation::inference_relu: return "inference_relu";
    case Operation::inference_prepared: return "inference_prepared";
    case Operation::training_add_relu: return "training_add_relu";
    case Operation::backward_relu: return "backward_relu";
    case Operation::backward_add_relu: return "backward_add_relu";
    case Operation::moments: return "moments";
  }
  return "";
}

std::string_view name_of(Layout layout) { return layout == Layout::nchw ? "NCHW" : "NHWC"; }

std::string_view name_of(ElementType type) {
  switch (type) {
    case ElementType::float32: return "float";
    case ElementType::float64: return "double";
    case ElementType::half: return "half";
    case ElementType::bfloat16: return "bfloat16";
  }
  return "";
}

std::string name_of(const Extents& extents) {
  std::string text;
  for (const std::int64_t extent : extents) text.append(text.empty() ? "" : ",").append(std::to_string(extent));
  return text;
}

std::int64_t bytes_of(ElementType type) {
  switch (type) {
    case ElementType::float32: return 4;
    case ElementType::float64: return 8;
    default: return 2;
  }
}

bool is_backward(Operation operation) {
  return operation == Operation::backward || operation == Operation::backward_relu || operation == Operation::backward_add_relu;
}

bool is_training(Operation operation) {
  return operation == Operation::training || operation == Operation::training_relu || operation == Operation::training_add_relu;
}

bool adds_residual(Operation operation) {
  return operation == Operation::training_add_relu || operation == Operation::backward_add_relu;
}

double tensors_moved(Operation operation, ElementType type) {
  const double mask = 0.125 / static_cast<double>(bytes_of(type));
  switch (operation) {
    case Operation::moments: return 1;
    case Operation::training:
    case Operation::inference:
    case Operation::inference_relu:
    case Operation::inference_prepared: return 2;
    case Operation::training_relu: return 2 + mask;
    case Operation::backward: return 3;
    case Operation::training_add_relu:
    case Operation::backward_relu: return 3 + mask;
    case Operation::backward_add_relu: return 4 + mask;
  }
  return 0;
}

}  // namespace bench
