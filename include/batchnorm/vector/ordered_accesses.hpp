// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// No access to memory is moved across its beginning and its end. Compilers take _Float16 and Eigen::half for types that cannot
/// share memory, but views are made of both.
class OrderedAccesses {
 public:
  OrderedAccesses() noexcept { asm volatile("" ::: "memory"); }
  OrderedAccesses(const OrderedAccesses&) = delete;
  OrderedAccesses& operator=(const OrderedAccesses&) = delete;
  ~OrderedAccesses() { asm volatile("" ::: "memory"); }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
