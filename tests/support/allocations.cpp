// SPDX-License-Identifier: MIT
#include "support/allocations.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>

namespace support {
namespace {

std::size_t current = 0, peak = 0;
long until_failure = 0;  // 0 where none is asked for
bool failure_has_happened = false;

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  current += malloc_usable_size(memory);
  peak = (std::max)(peak, current);
  return memory;
}

void* allocate(std::size_t size, std::size_t alignment) {
  if (until_failure > 0 && --until_failure == 0) {
    failure_has_happened = true;
    throw std::bad_alloc();
  }
  if (alignment == 0) return counted(std::malloc((std::max<std::size_t>)(size, 1)));
  return counted(std::aligned_alloc(alignment, (size / alignment + 1) * alignment));
}

void release(void* memory) noexcept {
  if (memory == nullptr) return;
  current -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

std::size_t allocated() noexcept { return current; }

AllocationPeak::AllocationPeak() noexcept : start_(current) { peak = current; }
std::size_t AllocationPeak::bytes() const noexcept { return peak - start_; }

FailingAllocation::FailingAllocation(long countdown) noexcept {
  until_failure = countdown;
  failure_has_happened = false;
}
FailingAllocation::~FailingAllocation() { until_failure = 0; }
bool FailingAllocation::has_failed() noexcept { return failure_has_happened; }

}  // namespace support

void* operator new(std::size_t size) { return support::allocate(size, 0); }
void* operator new[](std::size_t size) { return support::allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return support::allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return support::allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { support::release(memory); }
void operator delete[](void* memory) noexcept { support::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { support::release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { support::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { support::release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { support::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { support::release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { support::release(memory); }
