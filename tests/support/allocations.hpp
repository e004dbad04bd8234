// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

// Memory that a program takes from operator new, on any thread. Link allocations.cpp into the program.
namespace support {

/// Bytes that are allocated now.
std::size_t allocated() noexcept;

/// Allocations that nobody has released.
std::int64_t live_allocations() noexcept;

/// The most bytes above `start` that were allocated at one time while the object lived.
class AllocationPeak {
 public:
  AllocationPeak() noexcept;
  std::size_t bytes() const noexcept;

 private:
  std::size_t start_;
};

/// While the object lives, allocation number `countdown` (from 1) throws std::bad_alloc, once.
class FailingAllocation {
 public:
  explicit FailingAllocation(std::int64_t countdown) noexcept;
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
  ~FailingAllocation();

  /// Whether the last that was to fail has been asked for.
  static bool has_failed() noexcept;
};

/// Calls call() once for each of its allocations, which fails, and then once with all of them. After each failure it calls
/// check(k), k from 1. Returns the number of failures.
template <class Call, class Check>
long with_each_allocation_failing(Call call, Check check) {
  constexpr long most = 10000;  // a call that takes more each time that it fails would never end
  for (long k = 1;; ++k) {
    bool failed = false;
    try {
      const FailingAllocation failing(k);
      call();
      failed = FailingAllocation::has_failed();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    if (!failed || k > most) return k - 1;
    check(k);
  }
}

}  // namespace support
