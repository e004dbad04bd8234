// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace batchnorm_torch {

/// Which kernels run: these, or PyTorch's own.
inline std::atomic<bool> enabled{true};

/// What became of a call.
enum class Fate { forward_taken, forward_passed_on, backward_taken, backward_passed_on };

/// How many calls of each fate there were, in all threads.
class Counts {
 public:
  static constexpr std::size_t fates = 4;

  void add(Fate fate) noexcept { of_[static_cast<std::size_t>(fate)].fetch_add(1, std::memory_order_relaxed); }
  std::int64_t operator[](std::size_t fate) const noexcept { return of_[fate].load(std::memory_order_relaxed); }
  void reset() noexcept {
    for (auto& count : of_) count.store(0, std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<std::int64_t>, fates> of_{};
};

inline Counts counts;

}  // namespace batchnorm_torch
