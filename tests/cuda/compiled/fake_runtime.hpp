// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

// The CUDA runtime as the host code of batch_norm.cu calls it, without a device: linked in its place, it executes nothing,
// writes down every call and may fail at any of them. It has no other functions than those: host code that allocates, copies or
// waits, which a stream capture forbids, does not link.
namespace support {

/// What cudaDeviceGetAttribute returns.
struct FakeDevice {
  std::string name = "H100";
  int capability = 90;
  int multiprocessors = 132;
  int shared_bytes = 227 << 10;
  int shared_bytes_of_multiprocessor = 228 << 10;
  bool has_clusters = true;
  bool cooperates = true;
  int code =
      0;  ///< what the kernels that it runs were compiled for, less than the capability where it is their PTX; 0: the same
};

/// A call that may fail; what does not belong to the function is 0.
struct FakeCall {
  std::string function;
  std::string kernel{};  ///< "void batchnorm::cuda::...::kernel<batchnorm::cuda::Sweep<...> >(...)"
  cudaStream_t stream = nullptr;
  std::int64_t blocks = 0;
  int threads = 0, shared_bytes = 0, cluster = 0;
  bool is_cooperative = false;
  void* memory = nullptr;
  std::size_t bytes = 0;
};

struct FakeError {
  cudaError_t code = cudaErrorUnknown;
  const char* name = "cudaErrorUnknown";
  const char* text = "unknown error";
};

class FakeRuntime {
 public:
  /// The one that the functions of the runtime work on.
  static FakeRuntime& instance();

  /// Forgets calls and violations; from now on, nothing fails.
  void start(const FakeDevice& device);
  /// Call number `call` (from 0) fails.
  void fail_at(std::size_t call, const FakeError& error) {
    failing_call_ = call;
    error_ = error;
  }
  /// Is called with the arguments of each launch that succeeds.
  void on_launch(std::function<void(const FakeCall&, const void* body)> observer) { observer_ = std::move(observer); }

  const std::vector<FakeCall>& calls() const { return calls_; }
  /// Those on the stream: launches, memsets and NCCL's.
  std::vector<FakeCall> enqueued() const;
  /// What a device would have refused, in words.
  const std::vector<std::string>& violations() const { return violations_; }
  std::size_t kernels() const { return names_.size(); }

  /// A call of another library that enqueues or may fail; false: it fails.
  bool call(const FakeCall& call) { return log(call) == cudaSuccess; }

  // The functions of the runtime.
  void register_kernel(const void* function, const char* name);
  cudaError_t get_device(int* device);
  cudaError_t get_attribute(int* value, cudaDeviceAttr attribute, int device);
  cudaError_t get_attributes(cudaFuncAttributes* attributes, const void* function);
  cudaError_t set_attribute(const void* function, cudaFuncAttribute attribute, int value);
  cudaError_t launch(const cudaLaunchConfig_t* config, const void* function, void** arguments);
  cudaError_t clear(void* memory, int value, std::size_t bytes, cudaStream_t stream);
  const FakeError& error() const { return error_; }

 private:
  cudaError_t log(FakeCall call);
  cudaError_t refuse(cudaError_t error, const std::string& why);

  FakeDevice device_;
  std::vector<FakeCall> calls_;
  std::vector<std::string> violations_;
  std::optional<std::size_t> failing_call_;
  FakeError error_;
  std::function<void(const FakeCall&, const void*)> observer_;
  std::map<const void*, std::string> names_;
  std::map<const void*, int> granted_;  // dynamic shared memory, beyond what each kernel has unasked
};

}  // namespace support
