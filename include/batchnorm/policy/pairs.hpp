// SPDX-License-Identifier: MIT
#pragma once

// Arrays over channels, a pair of vectors of double at a time, in kernels.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <batchnorm/vector/elements.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Half the range of double lanes: the pair that P's are read and written in.
template <int Bytes>
struct Pair {
  using D = vec<double, Bytes>;
  D low, high;

  static BATCHNORM_INLINE Pair broadcast(double value) { return {D::broadcast(value), D::broadcast(value)}; }

  /// A whole pair from p + at, or `absent` everywhere when p is null.
  template <Element P>
  static BATCHNORM_INLINE Pair load(const P* p, std::int64_t at, double absent) {
    if (p == nullptr) return broadcast(absent);
    Pair result;
    load_pair(result.low, result.high, p + at);
    return result;
  }

  /// A whole pair to p + at, unless p is null.
  template <Element P>
  BATCHNORM_INLINE void store(P* p, std::int64_t at) const {
    if (p != nullptr) store_pair(p + at, low, high);
  }
};

/// Stores a pair rounded to Compute, and gives it back as rounded.
template <int Bytes, class Compute>
BATCHNORM_INLINE Pair<Bytes> store_rounded(Compute* to, const Pair<Bytes>& value) {
  if constexpr (std::is_same_v<Compute, double>) {
    value.store(to, 0);
    return value;
  } else {
    vec<float, Bytes> narrow;
    intrinsics::narrow(narrow, value.low, value.high);
    narrow.store(to);
    Pair<Bytes> result;
    intrinsics::widen(result.low, result.high, narrow);
    return result;
  }
}

/// Copies, with room for a whole pair, of what the caller's arrays of P hold for the last channels, where these are fewer: so
/// that a loop over channels has one body, which works on whole pairs.
template <int Bytes, Element P>
class LastPair {
 public:
  /// The channels [c, c + count).
  BATCHNORM_INLINE void begin(std::int64_t c, std::int64_t count) noexcept { c_ = c, count_ = count; }

  /// The copy of what p holds for these channels, zeros after them; null where p is. What is written to it, `write_back`
  /// writes to p.
  template <class Q>
  BATCHNORM_INLINE Q* copy_of(Q* p) noexcept {
    if (p == nullptr) return nullptr;
    P* copy = copies_[used_];
    std::fill_n(copy, pair_of<Bytes>, P(0));
    std::memcpy(static_cast<void*>(copy), p + c_, bytes());
    if constexpr (!std::is_const_v<Q>) originals_[used_] = p + c_;
    ++used_;
    return copy;
  }

  BATCHNORM_INLINE void write_back() const noexcept {
    for (int k = 0; k < used_; ++k) {
      if (originals_[k] != nullptr) std::memcpy(static_cast<void*>(originals_[k]), copies_[k], bytes());
    }
  }

 private:
  static constexpr int most = 8;

  std::size_t bytes() const noexcept { return static_cast<std::size_t>(count_) * sizeof(P); }

  std::int64_t c_ = 0, count_ = 0;
  int used_ = 0;
  P* originals_[most] = {};
  P copies_[most][pair_of<Bytes>];
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
