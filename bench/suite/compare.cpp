// SPDX-License-Identifier: MIT
#include "compare.hpp"

#include <algorithm>
#include <cmath>

#include <batchnorm/element.hpp>

#include "names.hpp"

namespace bench {
namespace {

template <class T>
bool is_close(const std::byte* expected, const void* got, std::size_t count) {
  const T* const want = reinterpret_cast<const T*>(expected);
  const T* const have = static_cast<const T*>(got);
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double value = batchnorm::widened(want[i]), off = std::abs(batchnorm::widened(have[i]) - value);
    largest = std::max(largest, std::abs(value));
    if (!(off <= difference)) difference = off;  // takes NaN, too
  }
  return difference <= 1e-2 * largest;
}

}  // namespace

ResultCopy::ResultCopy(const Problem& problem, const Buffers& buffers) : type_(problem.type) {
  const auto* const first = static_cast<const std::byte*>(buffers.y);
  bytes_.assign(first, first + problem.elements() * bytes_of(type_));
}

bool ResultCopy::is_close_to(const Buffers& buffers) const {
  const std::size_t count = bytes_.size() / static_cast<std::size_t>(bytes_of(type_));
  switch (type_) {
    case ElementType::float32: return is_close<float>(bytes_.data(), buffers.y, count);
    case ElementType::float64: return is_close<double>(bytes_.data(), buffers.y, count);
    case ElementType::half: return is_close<batchnorm::half>(bytes_.data(), buffers.y, count);
    case ElementType::bfloat16: return is_close<batchnorm::bfloat16>(bytes_.data(), buffers.y, count);
  }
  return false;
}

}  // namespace bench
