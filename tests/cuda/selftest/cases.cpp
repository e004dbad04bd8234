// SPDX-License-Identifier: MIT
#include "cases.hpp"

#include <algorithm>

namespace selftest {
namespace {

constexpr ElementType all_types[] = {ElementType::float32, ElementType::float64, ElementType::half, ElementType::bfloat16};
constexpr batchnorm::Format all_formats[] = {batchnorm::Format::NCHW, batchnorm::Format::NHWC};
constexpr Operation all_operations[] = {Operation::training, Operation::inference, Operation::backward, Operation::fused,
                                        Operation::through_mask};

const char* name_of(ElementType type) {
  switch (type) {
    case ElementType::float32: return "float";
    case ElementType::float64: return "double";
    case ElementType::half: return "half";
    case ElementType::bfloat16: return "bfloat16";
  }
  return "";
}

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::training: return "training";
    case Operation::inference: return "inference";
    case Operation::backward: return "backward";
    case Operation::fused: return "fused";
    case Operation::through_mask: return "through_mask";
  }
  return "";
}

std::int64_t bytes_of(ElementType type) { return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2; }

// What each is for, on a device as the table's (suite.hpp). Fused, odd planes are read twice: their masks share bytes.
constexpr Case shapes[] = {
    {{}, {}, {}, 3, 5, 7, 7},                // odd planes, odd channels
    {{}, {}, {}, 2, 6, 13, 5},               // channels that are no multiple of 4
    {{}, {}, {}, 2, 6, 13, 5, 1, 1},         // no tensor aligned, all alike
    {{}, {}, {}, 2, 6, 13, 5, 1, 0},         // each in its own way: element by element
    {{}, {}, {}, 1, 2, 151, 151},            // planes of several slices
    {{}, {}, {}, 2, 136, 8, 8},              // channels first: a block for each channel
    {{}, {}, {}, 9, 2300, 0, 0},             // channels last: the same, a matrix
    {{}, {}, {}, 3, 80, 13, 5},              // channels first: clusters of two
    {{}, {}, {}, 2, 1, 320, 160},            // channels first: a channel of 200 KB and more, in a cluster of 8
    {{}, {}, {}, 20, 16, 20, 20},            // channels last: a tile of channels of 256 KB, in a cluster of 8
    {{}, {}, {}, 4, 8, 12, 12, 0, 0, true},  // an offset
    {{}, {}, {}, 5, 3, 31, 33, 0, 0, true},  // and odd planes
    {{}, {}, {}, 129, 70, 0, 0},             // matrices with many rows
    {{}, {}, {}, 2000, 48, 0, 0},
    {{}, {}, {}, 1, 1, 1, 1},  // one value
};

}  // namespace

std::string name_of(const Case& one) {
  std::string name = name_of(one.type);
  name.append(one.format == batchnorm::Format::NCHW ? " NCHW " : " NHWC ").append(name_of(one.operation));
  name.append(" ").append(std::to_string(one.n)).append(",").append(std::to_string(one.c));
  if (one.h > 0) name.append(",").append(std::to_string(one.h)).append(",").append(std::to_string(one.w));
  if (one.in != 0 || one.out != 0)
    name.append(" at ").append(std::to_string(one.in)).append(" ").append(std::to_string(one.out));
  if (one.has_offset) name.append(" +1e4");
  return name;
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const ElementType type : all_types) {
    for (const batchnorm::Format format : all_formats) {
      const auto add = [&](const Case& shape, Operation operation) {
        Case one = shape;
        one.type = type, one.format = format, one.operation = operation;
        result.push_back(one);
      };
      for (const Case& shape : shapes) {
        for (const Operation operation : all_operations) add(shape, operation);
      }
      // Few channels of more than a cluster of 8 blocks holds, or than so few clusters should work on: a cooperative grid.
      add({{}, {}, {}, 1, 1, 960, 2400 / bytes_of(type)}, Operation::training);
      add({{}, {}, {}, 2, 3, 160, 1280 / bytes_of(type)}, Operation::training);
      add({{}, {}, {}, 2, 3, 160, 1280 / bytes_of(type)}, Operation::fused);
    }
  }
  return result;
}

}  // namespace selftest
