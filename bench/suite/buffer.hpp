// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>

#include "parallel.hpp"

namespace bench {

/// A tensor's memory, allocated as batchnorm::Tensor does but not written before it is filled: the system hands out pages at
/// the first touch, and that is most of the time it takes to set up a large row.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t size)
      : size_(size), data_(static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), alignment))) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete(data_, alignment); }

  T* data() { return data_; }
  std::int64_t size() const { return size_; }
  std::span<const T> values() const { return {data_, static_cast<std::size_t>(size_)}; }

  /// Noise in [-1, 1) about `offset` that repeats after a prime number of values: as fast to make as to copy, and different in
  /// each channel.
  void fill_with_noise(std::uint32_t seed, double offset) {
    const std::int64_t first = std::min(period, size_);
    std::uint32_t state = seed;
    for (std::int64_t i = 0; i < first; ++i) {
      state = state * 1664525U + 1013904223U;
      data_[i] = static_cast<T>(static_cast<float>(offset + static_cast<double>(state >> 8U) * 0x1p-23 - 1));
    }
    repeat();
  }

  void fill_with(T value) {
    std::fill_n(data_, std::min(period, size_), value);
    repeat();
  }

 private:
  static constexpr std::align_val_t alignment{64};
  static constexpr std::int64_t period = 65521;

  void repeat() {
    const std::int64_t periods = (size_ + period - 1) / period;
    in_parallel(periods - 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin + 1; k < end + 1; ++k) {
        const std::int64_t count = std::min(period, size_ - k * period);
        std::memcpy(static_cast<void*>(data_ + k * period), data_, static_cast<std::size_t>(count) * sizeof(T));
      }
    });
  }

  std::int64_t size_;
  T* data_;
};

}  // namespace bench
