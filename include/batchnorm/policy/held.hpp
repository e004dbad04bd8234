// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstring>
#include <optional>

#include <batchnorm/vector/vec.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// An activation as a member of kernels, which begin without one and are assigned to: an A where A can do that itself,
/// otherwise room for one that assignment makes anew. (A closure that captures something has neither a default constructor nor
/// an assignment.)
template <std::copy_constructible A>
class Held {
 public:
  Held() = default;
  Held(const A& value) : value_(value) {}
  Held(const Held&) = default;
  Held& operator=(const Held& other) noexcept {
    if (this == &other) return *this;
    value_.reset();
    if (other.value_) value_.emplace(*other.value_);
    return *this;
  }

  BATCHNORM_INLINE const A& get() const noexcept { return *value_; }

 private:
  std::optional<A> value_;
};

template <std::semiregular A>
class Held<A> {
 public:
  Held() = default;
  Held(const A& value) : value_(value) {}

  BATCHNORM_INLINE const A& get() const noexcept { return value_; }

 private:
  A value_{};
};

#if defined(__x86_64__) && !defined(__clang__) && !defined(__OPTIMIZE__)
template <class V>
using PartOf = vec<typename V::scalar, 16>;

/// 16 bytes of a vector or of a mask.
template <class Part, class Whole>
BATCHNORM_INLINE Part part_of(const Whole& whole, std::size_t index) {
  static_assert(sizeof(Part) == 16);
  Part part;
  std::memcpy(&part.v, reinterpret_cast<const char*>(&whole.v) + 16 * index, 16);
  return part;
}

/// f(index of a part) for all parts of a vector or a mask. Without optimisation GCC calls a member of an activation that is not
/// BATCHNORM_INLINE, compiled without the instruction set of the kernel; then the two disagree on how more than 16 bytes are
/// returned.
template <class Whole, class F>
BATCHNORM_INLINE Whole by_parts(const F& f) {
  Whole whole;
  for (std::size_t i = 0; i < sizeof(Whole) / 16; ++i) {
    const auto part = f(i);
    std::memcpy(reinterpret_cast<char*>(&whole.v) + 16 * i, &part.v, 16);
  }
  return whole;
}

template <class A, class V>
BATCHNORM_INLINE V activated(const A& activation, const V& z) {
  return by_parts<V>([&](std::size_t i) {
    const auto part = part_of<PartOf<V>>(z, i);
    return activation(part);
  });
}
template <class A, class V>
BATCHNORM_INLINE MaskOf<V> passes_of(const A& activation, const V& y) {
  return by_parts<MaskOf<V>>([&](std::size_t i) {
    const auto part = part_of<PartOf<V>>(y, i);
    return activation.passes(part);
  });
}
template <class A, class V>
BATCHNORM_INLINE V gradient_of(const A& activation, const V& dy, const MaskOf<V>& passes) {
  return by_parts<V>([&](std::size_t i) {
    const auto part = part_of<PartOf<V>>(dy, i);
    const auto passing = part_of<MaskOf<PartOf<V>>>(passes, i);
    return activation.gradient(part, passing);
  });
}
template <class A, class V>
BATCHNORM_INLINE V inverse_of(const A& activation, const V& y) {
  return by_parts<V>([&](std::size_t i) {
    const auto part = part_of<PartOf<V>>(y, i);
    return activation.inverse(part);
  });
}
#else
template <class A, class V>
BATCHNORM_INLINE V activated(const A& activation, const V& z) {
  return activation(z);
}
template <class A, class V>
BATCHNORM_INLINE MaskOf<V> passes_of(const A& activation, const V& y) {
  return activation.passes(y);
}
template <class A, class V>
BATCHNORM_INLINE V gradient_of(const A& activation, const V& dy, const MaskOf<V>& passes) {
  return activation.gradient(dy, passes);
}
template <class A, class V>
BATCHNORM_INLINE V inverse_of(const A& activation, const V& y) {
  return activation.inverse(y);
}
#endif

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
