// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <batchnorm/cuda/accelerator.cuh>

// The accelerator of batchnorm/cuda/accelerator.cuh on a processor. Each CUDA thread is a fiber of the thread that launches; it
// runs until it waits (at a barrier, for its warp) or ends, and the schedule says which one goes on.
//
// What a launch reports, as std::runtime_error with the thread, its block and the line in the body, and without what was left
// on the stacks of the threads being destroyed:
//
//   * threads that do not meet: a barrier or a warp operation that others pass by, reach at another line, or have exited
//   before;
//   * grid_sync() without a cooperative launch, a deadlock;
//   * addresses that load(), load_own() and store() are not aligned for; load() of what the same launch stores;
//   * cluster_shared() of an address outside the block's shared memory or of a block outside the cluster;
//   * bytes written beside shared memory or beside a DeviceBuffer. Further away are guard pages, which end the program;
//   * a launch that CUDA refuses.
//
// An exception of the body ends the launch and is thrown on. Shared memory is 0xFF (NaN) when a block starts and, in a cluster,
// from when it ends. A lane out of range is read as 0xFF bytes.
//
// Under the thread sanitizer each CUDA thread is a thread to it, ordered with others by barriers, warp operations and the
// launch alone: whatever the schedule, it reports a missing barrier at the lines that race. Under the address sanitizer the
// bytes beside memory are not even read.
namespace support {

enum class Schedule {
  random,    ///< by the seed: warps in turns or one far ahead, blocks in any order, some of them together
  in_order,  ///< each warp as far as it gets, the first of those that can go on; blocks one after another
  reverse,   ///< the same from the last to the first
};

struct EmulatorOptions {
  std::uint64_t seed = 1;  ///< of Schedule::random; each launch of an emulator has another schedule
  Schedule schedule = Schedule::random;
  std::vector<std::int64_t> blocks = {};  ///< unless empty, run only the clusters of these blocks
  bool read_only = true;                  ///< report load() of what is stored in the same launch
};

struct EmulatorStatistics {
  std::int64_t launches = 0;  ///< each under a schedule of its own
  std::int64_t blocks = 0;
  std::int64_t threads = 0;
  std::int64_t barriers = 0;  ///< passed by a block, a cluster or the grid
  std::int64_t warp_operations = 0;
  std::int64_t switches = 0;  ///< from one thread to another

  EmulatorStatistics& operator+=(const EmulatorStatistics& other);
};

std::string to_string(const EmulatorStatistics& statistics);

namespace emulation {
class Machine;
struct Fiber;
enum class Wait : std::uint8_t { none, sync, cluster_sync, grid_sync, shuffle_xor, shuffle, bits_of, ended };
}  // namespace emulation

/// What a body sees: one CUDA thread.
class EmulatedThread {
  using Chunk = batchnorm::cuda::Chunk;

 public:
  EmulatedThread(const EmulatedThread&) = delete;
  EmulatedThread& operator=(const EmulatedThread&) = delete;

  int thread_rank() const { return thread_rank_; }
  int block_size() const { return block_size_; }
  std::int64_t block_rank() const { return block_rank_; }
  std::int64_t block_count() const { return block_count_; }
  int cluster_rank() const { return static_cast<int>(block_rank_ % cluster_size_); }
  int cluster_size() const { return cluster_size_; }

  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const { wait(emulation::Wait::sync, file, line); }
  void cluster_sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    wait(emulation::Wait::cluster_sync, file, line);
  }
  void grid_sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    wait(emulation::Wait::grid_sync, file, line);
  }

  template <class V>
  V shuffle_xor(V value, int lane_mask, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return exchange(emulation::Wait::shuffle_xor, value, thread_rank_ % batchnorm::cuda::warp_size ^ lane_mask, file, line);
  }
  template <class V>
  V shuffle(V value, int lane, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return exchange(emulation::Wait::shuffle, value, lane, file, line);
  }
  std::uint32_t bits_of(bool predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;

  std::byte* shared() const { return shared_; }

  template <class V>
  V* cluster_shared(V* p, int rank, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    const void* there = shared_of(p, sizeof(V), rank, file, line);
    return static_cast<V*>(const_cast<void*>(there));
  }

  Chunk load(const Chunk* p, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    check_access("load()", p, loads, file, line);
    return *p;
  }
  Chunk load_own(const Chunk* p, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    check_access("load_own()", p, 0, file, line);
    return *p;
  }
  void store(Chunk* p, const Chunk& chunk, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    check_access("store()", p, stores, file, line);
    *p = chunk;
  }

 private:
  friend class emulation::Machine;
  static constexpr unsigned loads = 1, stores = 2;

  EmulatedThread() = default;

  template <class V>
  V exchange(emulation::Wait operation, V value, int lane, const char* file, int line) const {
    static_assert(std::is_arithmetic_v<V> && (sizeof(V) == 4 || sizeof(V) == 8));
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(V));
    bits = exchange_bits(operation, bits, lane, file, line);
    std::memcpy(&value, &bits, sizeof(V));
    return value;
  }

  void wait(emulation::Wait barrier, const char* file, int line) const;
  std::uint64_t exchange_bits(emulation::Wait operation, std::uint64_t bits, int lane, const char* file, int line) const;
  const void* shared_of(const void* p, std::size_t size, int rank, const char* file, int line) const;
  void check_access(const char* what, const void* p, unsigned access, const char* file, int line) const;

  emulation::Machine* machine_ = nullptr;
  emulation::Fiber* fiber_ = nullptr;
  std::byte* shared_ = nullptr;
  std::int64_t block_rank_ = 0, block_count_ = 0;
  int thread_rank_ = 0, block_size_ = 0, cluster_size_ = 0;
};

class Emulator {
 public:
  explicit Emulator(EmulatorOptions options = {}) : options_(std::move(options)), random_(options_.seed) {}

  /// Runs the body in all threads of the launch; returns when all have ended.
  template <class Body>
  void launch(const Body& body, const batchnorm::cuda::Launch& launch) {
    static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= 4096, "what CUDA takes as arguments of a kernel");
    static_assert(Body::max_threads >= 1 && Body::max_threads <= 1024);
    run(launch, Body::max_threads, &body,
        [](const void* arguments, EmulatedThread& thread) { (*static_cast<const Body*>(arguments))(thread); });
  }

  const EmulatorOptions& options() const { return options_; }
  const EmulatorStatistics& statistics() const { return statistics_; }
  /// Of all emulators of this program.
  static EmulatorStatistics total_statistics();

 private:
  friend class emulation::Machine;
  using Entry = void (*)(const void* body, EmulatedThread& thread);

  void run(const batchnorm::cuda::Launch& launch, int max_threads, const void* body, Entry entry);

  EmulatorOptions options_;
  std::uint64_t random_;
  EmulatorStatistics statistics_;
};

/// Calls function(Emulator&) with an emulator in order, one in reverse and one for each seed from 1.
template <class Function>
void for_each_schedule(int seeds, Function&& function) {
  const auto call = [&](EmulatorOptions options) {
    Emulator emulator(std::move(options));
    function(emulator);
  };
  call({.schedule = Schedule::in_order});
  call({.schedule = Schedule::reverse});
  for (int seed = 1; seed <= seeds; ++seed) call({.seed = static_cast<std::uint64_t>(seed)});
}

/// Where memory lies between its guard pages.
struct Placement {
  enum class Edge { begin, end };

  Edge edge = Edge::end;     ///< the guard page that it touches; the end leaves up to 15 bytes, for the alignment
  std::size_t offset = 0;    ///< elements past a 16-byte border
  bool guard_exact = false;  ///< touch the end's guard page with the last byte; the offset then follows from the size
};

/// Bytes between guard pages, poisoned with 0xFF.
class GuardedMemory {
 public:
  GuardedMemory(std::size_t size, std::size_t offset, Placement::Edge edge, bool guard_exact);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

  /// Whether the bytes between the guard pages and the memory are as they were.
  bool intact() const;
  void make_read_only(bool read_only);
  void poison();
  /// Poisons; the thread sanitizer forgets all accesses.
  void renew();

  /// Of all those alive.
  static const GuardedMemory* first_not_intact();

 private:
  void poison_borders(bool poisoned) const;

  std::size_t size_;
  std::byte* mapping_ = nullptr;  // the first guard page
  std::byte *pages_ = nullptr, *pages_end_ = nullptr;
  std::byte* data_ = nullptr;
};

/// Host memory that stands for `size` elements of device memory, 0xFF bytes at first. A launch reports what it writes beside.
template <class T>
class DeviceBuffer {
  static_assert(std::is_trivially_copyable_v<T> && 16 % sizeof(T) == 0);

 public:
  explicit DeviceBuffer(std::size_t size, Placement placement = {})
      : memory_(std::make_unique<GuardedMemory>(size * sizeof(T), placement.offset * sizeof(T), placement.edge,
                                                placement.guard_exact)) {}
  explicit DeviceBuffer(std::span<const T> values, Placement placement = {}) : DeviceBuffer(values.size(), placement) {
    assign(values);
  }
  explicit DeviceBuffer(const std::vector<T>& values, Placement placement = {})
      : DeviceBuffer(std::span<const T>(values), placement) {}

  T* data() const { return reinterpret_cast<T*>(memory_->data()); }
  std::size_t size() const { return memory_->size() / sizeof(T); }
  std::span<T> span() const { return {data(), size()}; }

  /// As many values as it has, to its begin.
  void assign(std::span<const T> values) { std::copy_n(values.begin(), (std::min)(values.size(), size()), data()); }
  std::vector<T> values() const { return {data(), data() + size()}; }
  void poison() { memory_->poison(); }

  /// From now on a write ends the program.
  void make_read_only(bool read_only = true) { memory_->make_read_only(read_only); }
  bool intact() const { return memory_->intact(); }

 private:
  std::unique_ptr<GuardedMemory> memory_;
};

}  // namespace support
