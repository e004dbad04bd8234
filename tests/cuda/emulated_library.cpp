// SPDX-License-Identifier: MIT
#include "emulated_library.hpp"

#include <cstring>
#include <typeinfo>

#include <cxxabi.h>

#include <batchnorm/cuda/dispatch.hpp>

namespace support {

EmulatedDevice& emulated_device() {
  static EmulatedDevice device;
  return device;
}

namespace {

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

template <class Body>
struct OnSlowDoubles {
  static constexpr int max_threads = Body::max_threads;
  Body body;

  void operator()(EmulatedThread& thread) const {
    SlowDoubles own(thread);
    body(own);
  }
};

/// "SumPlanes<float, ...>"
template <class Body>
std::string name_of_body() {
  int status = 0;
  char* text = abi::__cxa_demangle(typeid(Body).name(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : typeid(Body).name();
  std::free(text);
  const std::string space = "batchnorm::cuda::";
  for (std::size_t at = name.find(space); at != std::string::npos; at = name.find(space)) name.erase(at, space.size());
  return name;
}

class EmulatedRuntime {
 public:
  EmulatedRuntime() : emulator_(emulated_device().options) {}

  template <class Body>
  void launch(const Body& body, const batchnorm::cuda::Launch& launch) {
    emulated_device().launches.push_back(name_of_body<Body>());
    if (emulated_device().adds_doubles_fast) {
      emulator_.launch(body, launch);
    } else {
      emulator_.launch(OnSlowDoubles<Body>{body}, launch);
    }
  }
  void clear(void* p, std::size_t bytes) { std::memset(p, 0, bytes); }

 private:
  Emulator emulator_;
};

template <class Call>
void run_forward(const Call& call, void* workspace) {
  EmulatedRuntime runtime;
  batchnorm::cuda::forward(runtime, call, workspace, emulated_device().device, emulated_device().policy);
}
template <class Call>
void run_backward(const Call& call, void* workspace) {
  EmulatedRuntime runtime;
  batchnorm::cuda::backward(runtime, call, workspace, emulated_device().device, emulated_device().policy);
}
template <class T>
std::size_t bytes_of(const batchnorm::cuda::Geometry& g) {
  return batchnorm::cuda::workspace_bytes<T>(g, emulated_device().device, emulated_device().policy);
}

}  // namespace
}  // namespace support

namespace batchnorm::cuda::library {

template <>
std::size_t workspace_bytes<float>(const Geometry& g) {
  return support::bytes_of<float>(g);
}
template <>
std::size_t workspace_bytes<double>(const Geometry& g) {
  return support::bytes_of<double>(g);
}
template <>
std::size_t workspace_bytes<Half>(const Geometry& g) {
  return support::bytes_of<Half>(g);
}
template <>
std::size_t workspace_bytes<BFloat16>(const Geometry& g) {
  return support::bytes_of<BFloat16>(g);
}

void forward(const ForwardCall<float>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void forward(const ForwardCall<double>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void forward(const ForwardCall<Half>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void forward(const ForwardCall<BFloat16>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void backward(const BackwardCall<float>& call, void* workspace, Stream) { support::run_backward(call, workspace); }
void backward(const BackwardCall<double>& call, void* workspace, Stream) { support::run_backward(call, workspace); }
void backward(const BackwardCall<Half>& call, void* workspace, Stream) { support::run_backward(call, workspace); }
void backward(const BackwardCall<BFloat16>& call, void* workspace, Stream) { support::run_backward(call, workspace); }

}  // namespace batchnorm::cuda::library
