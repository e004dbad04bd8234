// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <batchnorm/executor.hpp>

namespace bench {

/// Copies with non-temporal stores where the processor has them (`to` on a border of 64 bytes), each thread a share of whole
/// lines: the fastest way to move the bytes of a large tensor, and what every time is compared with.
void copy(batchnorm::Executor& executor, void* to, const void* from, std::int64_t bytes);

}  // namespace bench
