// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <batchnorm/tensor.hpp>

namespace support {

/// `size` elements at `offset` elements past a 64-byte border, between guards that nobody may write.
template <class T>
class Guarded {
 public:
  Guarded(std::size_t size, std::size_t offset, T fill) : size_(size), storage_(size + 2 * guard + 64 / sizeof(T) + offset) {
    std::memset(static_cast<void*>(storage_.data()), pattern, storage_.size() * sizeof(T));
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data() + guard);
    begin_ = guard + (64 - address % 64) % 64 / sizeof(T) + offset;
    for (T& value : values()) value = fill;
  }
  Guarded(std::span<const T> content, std::size_t offset) : Guarded(content.size(), offset, T{}) {
    std::copy(content.begin(), content.end(), data());
  }

  T* data() { return storage_.data() + begin_; }
  std::size_t size() const { return size_; }
  std::span<T> values() { return {data(), size_}; }
  std::span<const T> values() const { return {storage_.data() + begin_, size_}; }

  /// Whether every byte before and after the elements is as it was.
  bool guards_intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(storage_.data());
    for (std::size_t i = 0; i < storage_.size() * sizeof(T); ++i) {
      if (i >= begin_ * sizeof(T) && i < (begin_ + size_) * sizeof(T)) continue;
      if (bytes[i] != pattern) return false;
    }
    return true;
  }

 private:
  static constexpr unsigned char pattern = 0xA5;
  static constexpr std::size_t guard = 256 / sizeof(T);  // four cache lines: more than any vector store could overrun by

  std::size_t size_;
  std::vector<T> storage_;
  std::size_t begin_ = 0;
};

/// The values of a dense tensor.
template <class T>
std::span<const T> values_of(const batchnorm::Tensor<T>& tensor) {
  return {tensor.data(), static_cast<std::size_t>(tensor.size())};
}

/// The first index at which the bits of two sequences differ, or their common size; -1 stands for different sizes.
template <class A, class B>
std::ptrdiff_t first_difference(const A& a, const B& b) {
  if (std::size(a) != std::size(b)) return -1;
  std::size_t i = 0;
  while (i < std::size(a) && std::memcmp(std::data(a) + i, std::data(b) + i, sizeof(*std::data(a))) == 0) ++i;
  return static_cast<std::ptrdiff_t>(i);
}

template <class A, class B>
bool same_bits(const A& a, const B& b) {
  return first_difference(a, b) == static_cast<std::ptrdiff_t>(std::size(a));
}

}  // namespace support
