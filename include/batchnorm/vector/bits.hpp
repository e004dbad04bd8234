// SPDX-License-Identifier: MIT
#pragma once

// Masks of 1 bit per element: bit i % 8, counted from the least, of byte i / 8 belongs to element i.

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include <batchnorm/vector/intrinsics.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

static_assert(std::endian::native == std::endian::little, "bits are read and written in words");

/// Bytes of a mask over that many elements.
constexpr std::int64_t bytes_of_bits(std::int64_t elements) noexcept { return elements / 8 + (elements % 8 != 0); }

/// Clears the bits of the last byte that belong to no element.
inline void clear_after_last(unsigned char* mask, std::int64_t elements) noexcept {
  if (mask == nullptr || elements % 8 == 0) return;
  unsigned char& last = mask[elements / 8];
  last = static_cast<unsigned char>(last & ((1U << elements % 8) - 1));
}

/// Bit i is set where lane i of the mask is.
template <class V>
BATCHNORM_INLINE std::uint32_t bits_of(const MaskOf<V>& mask) {
  V lanes;
  std::memcpy(&lanes.v, &mask.v, sizeof(lanes.v));
  return intrinsics::sign_bits(lanes);
}

/// The mask whose lane i is set where bit i is.
template <class V>
BATCHNORM_INLINE MaskOf<V> mask_of(std::uint32_t bits) {
  using Integer = std::conditional_t<sizeof(typename V::scalar) == 8, std::int64_t, std::int32_t>;
  using Native = decltype(MaskOf<V>::v);
  if constexpr (V::lanes == 2) {  // SSE2 does not compare integers of 64 bits
    static constexpr std::array<Integer, 8> masks = {0, 0, -1, 0, 0, -1, -1, -1};
    Native mask;
    std::memcpy(&mask, &masks[2 * (bits & 3)], sizeof(mask));
    return {mask};
  } else {
    static constexpr auto table = [] {
      std::array<Integer, V::lanes> single{};
      for (std::size_t i = 0; i < single.size(); ++i) single[i] = Integer{1} << i;
      return single;
    }();
    Native single;
    std::memcpy(&single, table.data(), sizeof(single));
    return {((static_cast<Integer>(bits) - Native{}) & single) == single};
  }
}

/// The bytes [first, size), fewer than 8, as a word.
inline std::uint64_t last_word(const unsigned char* bytes, std::int64_t first, std::int64_t size) noexcept {
  std::uint64_t word = 0;
  for (std::int64_t k = first; k < size; ++k) word |= std::uint64_t{bytes[k]} << (8 * (k - first));
  return word;
}

/// Reads bits from any place of a mask.
class BitReader {
 public:
  BitReader() = default;
  BitReader(const unsigned char* bytes, std::int64_t elements) : bytes_(bytes), size_(bytes_of_bits(elements)) {}

  /// The 32 bits from bit i on; what lies after the mask's last byte counts 0.
  BATCHNORM_INLINE std::uint32_t at(std::int64_t i) const {
    const std::uint64_t bit = static_cast<std::uint64_t>(i);
    const auto byte = static_cast<std::int64_t>(bit / 8);
    std::uint64_t word;
    if (byte + 8 <= size_) {
      std::memcpy(&word, bytes_ + byte, 8);
    } else {
      word = last_word(bytes_, byte, size_);
    }
    return static_cast<std::uint32_t>(word >> (bit % 8));
  }

 private:
  const unsigned char* bytes_ = nullptr;
  std::int64_t size_ = 0;
};

/// Writes bits one after the other from any place of a mask. Bytes that hold other bits too are changed by an atomic operation:
/// several threads may write neighbouring parts.
class BitWriter {
 public:
  BitWriter() = default;
  BitWriter(unsigned char* bytes, std::int64_t first)
      : next_(bytes + first / 8), filled_(static_cast<int>(first % 8)), foreign_(filled_) {}

  /// The next `count` bits, at most 32; those of `bits` above them are 0.
  BATCHNORM_INLINE void add(std::uint32_t bits, int count) {
    pending_ |= std::uint64_t{bits} << filled_;
    filled_ += count;
    if (filled_ < 32) return;
    if (foreign_ == 0) {
      std::memcpy(next_, &pending_, 4);
      next_ += 4;
      pending_ >>= 32;
      filled_ -= 32;
      // The line after next, for writing: among streamed stores, one that waits for its line holds all others up.
      __builtin_prefetch(next_ + 128, 1);
    } else {
      put_bytes();
    }
  }

  /// To be called once after the last bit.
  void finish() {
    put_bytes();
    if (filled_ > foreign_) merge((1U << filled_) - 1);
  }

 private:
  void put_bytes() {
    for (; filled_ >= 8; filled_ -= 8, pending_ >>= 8, ++next_) {
      if (foreign_ == 0) {
        *next_ = static_cast<unsigned char>(pending_);
      } else {
        merge(0xff);
        foreign_ = 0;
      }
    }
  }

  /// Replaces the bits of *next_ that are in `until` and not foreign.
  void merge(std::uint32_t until) {
    const std::uint32_t own = until & ~((1U << foreign_) - 1);
    unsigned char before = __atomic_load_n(next_, __ATOMIC_RELAXED);
    const auto after = [&] {
      return static_cast<unsigned char>((before & ~own) | (static_cast<std::uint32_t>(pending_) & own));
    };
    while (!__atomic_compare_exchange_n(next_, &before, after(), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }

  unsigned char* next_ = nullptr;
  std::uint64_t pending_ = 0;  // bits [foreign_, filled_) wait to be written from *next_ on
  int filled_ = 0;
  int foreign_ = 0;  // so many bits of *next_ are somebody else's
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
