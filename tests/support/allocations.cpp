// SPDX-License-Identifier: MIT
#include "support/allocations.hpp"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

namespace support {
namespace {

std::atomic<std::size_t> current{0}, peak{0};
std::atomic<std::int64_t> live{0};
std::atomic<std::int64_t> until_failure{0};  // 0 where none is asked for
std::atomic<bool> failure_has_happened{false};

bool fails() noexcept {
  if (until_failure == 0 || until_failure.fetch_sub(1) != 1) return false;
  failure_has_happened = true;
  return true;
}

/// Null where there is none.
void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (fails()) return nullptr;
  void* const memory = alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
                           ? std::malloc((std::max<std::size_t>)(size, 1))
                           : std::aligned_alloc(alignment, (size / alignment + 1) * alignment);
  if (memory == nullptr) return nullptr;
  ++live;
  const std::size_t bytes = malloc_usable_size(memory), now = current += bytes;
  std::size_t most = peak;
  while (most < now && !peak.compare_exchange_weak(most, now)) {
  }
  return memory;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment = 1) {
  if (void* const memory = allocate(size, alignment)) return memory;
  throw std::bad_alloc();
}

void release(void* memory) noexcept {
  if (memory == nullptr) return;
  --live;
  current -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

std::size_t allocated() noexcept { return current; }
std::int64_t live_allocations() noexcept { return live; }

AllocationPeak::AllocationPeak() noexcept : start_(current) { peak = start_; }
std::size_t AllocationPeak::bytes() const noexcept { return peak - start_; }

FailingAllocation::FailingAllocation(std::int64_t countdown) noexcept {
  failure_has_happened = false;
  until_failure = countdown;
}
FailingAllocation::~FailingAllocation() { until_failure = 0; }
bool FailingAllocation::has_failed() noexcept { return failure_has_happened; }

}  // namespace support

void* operator new(std::size_t size) { return support::allocate_or_throw(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return support::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return support::allocate(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return support::allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size) { return support::allocate_or_throw(size); }
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return support::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return support::allocate(size, 1); }
void operator delete(void* memory) noexcept { support::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { support::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { support::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { support::release(memory); }
void operator delete[](void* memory) noexcept { support::release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { support::release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { support::release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { support::release(memory); }
