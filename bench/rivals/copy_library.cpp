// SPDX-License-Identifier: MIT

// The copy in terms of C, for bench/rivals.py.

#include <cstdint>
#include <exception>

#include <batchnorm/thread_team.hpp>

#include "../suite/copy.hpp"

extern "C" {

/// Threads to copy with; null where the system refuses them.
void* batchnorm_bench_open(int threads) {
  try {
    return new batchnorm::ThreadTeam(threads);
  } catch (const std::exception&) {
    return nullptr;
  }
}

void batchnorm_bench_close(void* team) { delete static_cast<batchnorm::ThreadTeam*>(team); }

void batchnorm_bench_copy(void* team, void* to, const void* from, std::int64_t bytes) {
  bench::copy(*static_cast<batchnorm::ThreadTeam*>(team), to, from, bytes);
}

}  // extern "C"
