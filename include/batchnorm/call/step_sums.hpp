// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// Sums of multiples of steps, each multiple within bounds of its own: the distances between elements of two tensors. Whether
/// one of them falls into a window is an integer program. With the strides of real tensors a search from the largest step
/// down, which gives up what bounds and common divisors rule out, ends after some dozens of steps.
class StepSums {
 public:
  /// The multiples from least * step to most * step, step > 0, beside what was added before. Up to 10 different steps.
  void add(std::int64_t step, std::int64_t least, std::int64_t most) noexcept {
    std::size_t place = count_;
    while (place > 0 && terms_[place - 1].step < step) --place;  // from the largest step down
    if (place > 0 && terms_[place - 1].step == step) {
      terms_[place - 1].least += least;
      terms_[place - 1].most += most;
      return;
    }
    for (std::size_t i = count_++; i > place; --i) terms_[i] = terms_[i - 1];
    terms_[place] = {step, least, most};
  }

  /// False only where no sum is in [least, most]; true where one is, or where the search would take too long. Of the same sums
  /// with the opposite sign and window the answer is the same: it visits as many places.
  bool may_be_within(std::int64_t least, std::int64_t most) noexcept {
    rest_[count_] = {};
    for (std::size_t i = count_; i-- > 0;) {
      const auto& [step, lowest, highest] = terms_[i];
      rest_[i] = {rest_[i + 1].least + lowest * step, rest_[i + 1].most + highest * step, std::gcd(rest_[i + 1].divisor, step)};
    }
    visits_left_ = most_visits;
    return is_within(0, least, most);
  }

 private:
  static constexpr int most_visits = 4096;

  struct Term {
    std::int64_t step = 0, least = 0, most = 0;
  };
  /// Bounds of the sums of the smaller steps, and what divides them all; 0 where none are left.
  struct Rest {
    std::int64_t least = 0, most = 0, divisor = 0;
  };

  static std::int64_t floor_of_quotient(std::int64_t a, std::int64_t b) noexcept { return a / b - (a % b < 0 ? 1 : 0); }

  /// Whether a sum of the terms from i on is in the window.
  bool is_within(std::size_t i, std::int64_t least, std::int64_t most) noexcept {
    const Rest& sums = rest_[i];
    const std::int64_t low = (std::max)(least, sums.least), high = (std::min)(most, sums.most);
    if (low > high) return false;
    if (sums.divisor == 0) return true;
    if (floor_of_quotient(high, sums.divisor) * sums.divisor < low) return false;
    if (i + 1 == count_) return true;  // all multiples of a single step are sums
    const auto& [step, lowest, highest] = terms_[i];
    const Rest& smaller = rest_[i + 1];
    const std::int64_t first = (std::max)(lowest, -floor_of_quotient(smaller.most - least, step));
    const std::int64_t last = (std::min)(highest, floor_of_quotient(most - smaller.least, step));
    for (std::int64_t k = first; k <= last; ++k) {
      if (visits_left_-- == 0 || is_within(i + 1, least - k * step, most - k * step)) return true;
    }
    return false;
  }

  std::array<Term, 10> terms_{};
  std::array<Rest, 11> rest_{};
  std::size_t count_ = 0;
  int visits_left_ = 0;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
