// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// All the temporary memory of a call: parts are reserved, then allocated at once, before anything is written.
class Scratch {
 public:
  /// A part: where it begins.
  template <class T>
  struct Part {
    std::size_t offset = 0;
  };

  /// Room for `count` elements, aligned to a cache line. What the address space cannot hold `allocate` will refuse.
  template <class T>
  Part<T> reserve(std::int64_t count) noexcept {
    const Part<T> part{bytes_};
    std::size_t bytes = 0;
    const bool fits = count >= 0 && !__builtin_mul_overflow(static_cast<std::size_t>(count), sizeof(T), &bytes) &&
                      bytes <= most_bytes - bytes_;
    bytes_ = fits ? bytes_ + (bytes + 63) / 64 * 64 : most_bytes;
    return part;
  }

  /// @throws std::bad_alloc
  void allocate() {
    if (bytes_ == 0) return;
    // Aligned here: an allocation that is to be aligned takes the C library several times as long.
    memory_.reset(static_cast<std::byte*>(::operator new(bytes_ + 63)));
    first_ = memory_.get() + (64 - reinterpret_cast<std::uintptr_t>(memory_.get()) % 64) % 64;
  }

  template <class T>
  T* operator[](Part<T> part) const noexcept {
    return reinterpret_cast<T*>(first_ + part.offset);
  }

 private:
  struct Free {
    void operator()(std::byte* p) const noexcept { ::operator delete(p); }
  };

  static constexpr std::size_t most_bytes = std::size_t{PTRDIFF_MAX} / 64 * 64 - 64;

  std::size_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> memory_;
  std::byte* first_ = nullptr;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
