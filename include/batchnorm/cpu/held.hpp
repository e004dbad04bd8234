// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <optional>

#include <batchnorm/cpu/config.hpp>

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

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
