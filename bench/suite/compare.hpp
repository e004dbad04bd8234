// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

#include "../rivals/rival.hpp"

namespace bench {

/// The library's y (or dx), kept while rivals write theirs.
class ResultCopy {
 public:
  ResultCopy(const Problem& problem, const Buffers& buffers);

  /// Whether y (or dx) in the buffers is the same up to a hundredth of the largest value: rivals may sum in float and round
  /// where they like, another formula is off by more.
  bool is_close_to(const Buffers& buffers) const;

 private:
  ElementType type_;
  std::vector<std::byte> bytes_;
};

}  // namespace bench
