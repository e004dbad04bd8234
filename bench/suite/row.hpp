// SPDX-License-Identifier: MIT
#pragma once

// What is measured: one row of the table.

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

enum class Operation {
  training,
  inference,
  backward,
  training_relu,
  inference_relu,
  inference_prepared,
  training_add_relu,
  backward_relu,
  backward_add_relu,
  moments
};

enum class Layout { nchw, nhwc };

enum class ElementType { float32, float64, half, bfloat16 };

/// N, C and the spatial extents, whatever the layout.
using Extents = std::vector<std::int64_t>;

/// An operation on a tensor, without the way it is computed.
struct Problem {
  Operation operation;
  Layout layout;
  ElementType type;
  Extents extents;
  int threads;

  std::int64_t n() const { return extents[0]; }
  std::int64_t c() const { return extents[1]; }
  std::int64_t spatial() const {
    std::int64_t product = 1;
    for (std::size_t i = 2; i < extents.size(); ++i) product *= extents[i];
    return product;
  }
  std::int64_t elements() const { return n() * c() * spatial(); }
};

}  // namespace bench
