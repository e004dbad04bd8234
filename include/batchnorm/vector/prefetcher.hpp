// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>

#include <batchnorm/vector/elements.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Walks a matrix in memory order, row by row, and prefetches it one line a step, while the kernel that steps works on
/// another one: the order of access that the memory sees is that of this walk. A line a step, and the step a handful of
/// instructions: a burst of prefetches holds up the reads after it.
class Prefetcher {
 public:
  Prefetcher() = default;
  /// Rows of so many bytes, so many bytes apart.
  Prefetcher(const void* x, std::int64_t row_stride, std::int64_t rows, std::int64_t row_bytes) noexcept
      : next_(static_cast<const char*>(x)),
        lines_((row_bytes + 63) / 64),
        to_next_row_(row_stride - 64 * lines_),
        advance_(64),
        left_(lines_),
        rows_(rows) {
    if (rows <= 0) *this = {};
  }

  bool is_done() const { return advance_ == 0; }

  /// The next line; a row's last one may reach past its end. After the end of the matrix steps do nothing.
  BATCHNORM_INLINE void step() {
    prefetch(next_);
    next_ += advance_;
    if (--left_ == 0) begin_row();
  }
  BATCHNORM_INLINE void step(std::int64_t lines) {
    for (std::int64_t i = 0; i < lines; ++i) step();
  }

 private:
  void begin_row() {
    if (--rows_ > 0) {
      next_ += to_next_row_;
      left_ = lines_;
    } else {
      next_ = &idle;
      advance_ = 0;
      left_ = (std::numeric_limits<std::int64_t>::max)();
    }
  }

  // A prefetch of an address without memory would search the page tables each time.
  static constexpr char idle = 0;

  const char* next_ = &idle;
  std::int64_t lines_ = 0;
  std::int64_t to_next_row_ = 0;
  std::int64_t advance_ = 0;
  std::int64_t left_ = (std::numeric_limits<std::int64_t>::max)();
  std::int64_t rows_ = 0;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
