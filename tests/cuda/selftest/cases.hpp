// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <batchnorm/format.hpp>

// The calls that the self-test makes on a device. Their inputs are the same on every machine.
namespace selftest {

enum class ElementType { float32, float64, half, bfloat16 };

enum class Operation {
  training,
  inference,
  backward,
  fused,         ///< training with a residual, ReLU and a mask
  through_mask,  ///< backward through the mask of a ReLU, with the gradient of the residual
};

struct Case {
  ElementType type;
  batchnorm::Format format;
  Operation operation;
  std::int64_t n, c, h, w;  ///< h = 0: a matrix
  int in = 0, out = 0;      ///< elements past a border of 16 bytes where inputs and outputs begin
  bool has_offset = false;  ///< x lies about 1e4

  std::int64_t spatial() const { return h == 0 ? 1 : h * w; }
  std::int64_t elements() const { return n * c * spatial(); }
};

/// "half NHWC fused 3,5,7,7", with "at 1 2" for tensors that are not aligned and "+1e4" for an offset.
std::string name_of(const Case& one);

/// All of them, always in the same order.
std::vector<Case> cases();

}  // namespace selftest
