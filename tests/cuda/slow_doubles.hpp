// SPDX-License-Identifier: MIT
#pragma once

#include "emulator.hpp"

namespace support {

/// A thread of a device that adds doubles slowly.
class SlowDoubles {
  using Chunk = batchnorm::cuda::Chunk;

 public:
  static constexpr bool adds_doubles_fast = false;

  explicit SlowDoubles(EmulatedThread& thread) : thread_(thread) {}

  int thread_rank() const { return thread_.thread_rank(); }
  int block_size() const { return thread_.block_size(); }
  std::int64_t block_rank() const { return thread_.block_rank(); }
  std::int64_t block_count() const { return thread_.block_count(); }
  int cluster_rank() const { return thread_.cluster_rank(); }
  int cluster_size() const { return thread_.cluster_size(); }
  std::byte* shared() const { return thread_.shared(); }
  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const { thread_.sync(file, line); }
  void cluster_sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    thread_.cluster_sync(file, line);
  }
  void grid_sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const { thread_.grid_sync(file, line); }
  template <class V>
  V shuffle_xor(V value, int lane_mask, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return thread_.shuffle_xor(value, lane_mask, file, line);
  }
  template <class V>
  V shuffle(V value, int lane, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return thread_.shuffle(value, lane, file, line);
  }
  template <class V>
  V* cluster_shared(V* p, int rank, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return thread_.cluster_shared(p, rank, file, line);
  }
  Chunk load(const Chunk* p, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return thread_.load(p, file, line);
  }
  Chunk load_own(const Chunk* p, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return thread_.load_own(p, file, line);
  }
  void store(Chunk* p, const Chunk& chunk, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    thread_.store(p, chunk, file, line);
  }

 private:
  EmulatedThread& thread_;
};

/// A body that is run by such threads.
template <class Body>
struct OnSlowDoubles {
  static constexpr int max_threads = Body::max_threads;
  Body body;

  void operator()(EmulatedThread& thread) const {
    SlowDoubles own(thread);
    body(own);
  }
};

}  // namespace support
