// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <cuda_runtime.h>

namespace bench {

/// @throws batchnorm::cuda::CudaError
void check(cudaError_t status, const char* call);

/// The device that is measured.
struct DeviceFacts {
  std::string name;
  int capability = 0;  ///< major * 10 + minor
  int multiprocessors = 0;
  std::int64_t cache_bytes = 0, memory_bytes = 0;
  int driver = 0, runtime = 0;
};

/// Of device 0, which becomes the current one; the reason, where there is none, else nothing.
std::string find_device(DeviceFacts& facts);

/// Device memory, aligned to 256 bytes.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes);
  DeviceMemory(DeviceMemory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
  DeviceMemory& operator=(DeviceMemory&&) = delete;
  ~DeviceMemory();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  void upload(const void* from, std::size_t bytes) const;
  void download(void* to, std::size_t bytes) const;

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

/// A stream that is not the default one.
class DeviceStream {
 public:
  DeviceStream();
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;
  ~DeviceStream();
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Enqueues a call on the buffers of that number.
using DeviceCall = std::function<void(cudaStream_t stream, std::size_t buffers)>;

/// Many calls, one after another, as one graph where they can be captured: the processor that enqueues them does not count.
class Sequence {
 public:
  /// `calls` calls in turn on the buffers from 0 to `buffers` - 1.
  Sequence(const DeviceCall& call, std::size_t calls, std::size_t buffers, bool as_graph, cudaStream_t stream);
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  /// Seconds of a call, between two events.
  double seconds() const;
  bool is_graph() const { return executable_ != nullptr; }

 private:
  void enqueue_all() const;

  DeviceCall call_;
  std::size_t calls_, buffers_;
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace bench
