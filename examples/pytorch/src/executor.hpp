// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Parallel.h>

#include <cstdint>

#include <batchnorm/executor.hpp>

#if !defined(INTRA_OP_PARALLEL)
#error "Without OpenMP at::parallel_for runs on one thread: compile with -fopenmp"
#endif

namespace batchnorm_torch {

/// Runs tasks on the threads of PyTorch, as many as torch.set_num_threads says. Where the call stands inside a parallel region
/// of PyTorch, all run on the calling thread.
class TorchExecutor final : public batchnorm::Executor {
 public:
  int concurrency() const noexcept override { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

  void run(int count, batchnorm::Task task) noexcept override {
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) task(static_cast<int>(i));
    });
  }
};

}  // namespace batchnorm_torch
