// SPDX-License-Identifier: MIT

// Batch normalization on a CUDA device: the kernels around the bodies in the .cuh files, and their launches. Compile with
// -std=c++20 -fmad=false.

#include <cuda_runtime.h>

#include <batchnorm/cuda/dispatch_ranks.hpp>
#include <batchnorm/cuda/library.hpp>

namespace batchnorm::cuda {
namespace {

/// Blocks of a multiprocessor that registers are saved for; 0: as the compiler thinks best.
template <class Body>
constexpr int least_blocks() {
  if constexpr (requires { Body::least_blocks; }) {
    return Body::least_blocks;
  } else {
    return 0;
  }
}

template <class Body>
__global__ void __launch_bounds__(Body::max_threads, least_blocks<Body>()) kernel(const Body body) {
  CudaAccelerator accelerator;
  body(accelerator);
}

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CudaError(call, status, cudaGetErrorName(status), cudaGetErrorString(status));
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

/// The current device.
struct Current {
  Device device;
  Policy policy;

  Current() {
    int id = 0;
    check(cudaGetDevice(&id), "cudaGetDevice");
    const int capability =
        10 * attribute(cudaDevAttrComputeCapabilityMajor, id) + attribute(cudaDevAttrComputeCapabilityMinor, id);
    device.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, id);
    device.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, id);
    device.shared_bytes_of_multiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, id);
    // 8 blocks are what every device with clusters takes; code for devices before 9.0, brought here as PTX, knows none.
    cudaFuncAttributes code{};
    check(cudaFuncGetAttributes(&code, reinterpret_cast<const void*>(&kernel<FinishConstants<float>>)),
          "cudaFuncGetAttributes");
    device.largest_cluster = attribute(cudaDevAttrClusterLaunch, id) != 0 && code.ptxVersion >= 90 ? 8 : 1;
    device.cooperates = attribute(cudaDevAttrCooperativeLaunch, id) != 0;
    policy = policy_of(capability);
  }
};

class Runtime {
 public:
  Runtime(Stream stream, const Device& device) : stream_(stream), shared_limit_(device.shared_bytes) {}

  template <class Body>
  void launch(const Body& body, const Launch& launch) const {
    // More than 2^31 channels may be more blocks than a grid has.
    if (launch.blocks > INT32_MAX) check(cudaErrorInvalidConfiguration, "cudaLaunchKernelExC");
    const auto* function = reinterpret_cast<const void*>(&kernel<Body>);
    constexpr int granted = 48 << 10;  // what every kernel may have without asking
    if (launch.shared_bytes > granted) {
      // The limit belongs to the kernel, not to the launch: with one's own size two threads could lower each other's.
      check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit_), "cudaFuncSetAttribute");
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(launch.blocks));
    config.blockDim = dim3(static_cast<unsigned>(launch.threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(launch.shared_bytes);
    config.stream = stream_;
    cudaLaunchAttribute attribute{};
    if (launch.cluster > 1) {
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = static_cast<unsigned>(launch.cluster);
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    } else if (launch.cooperative) {
      attribute.id = cudaLaunchAttributeCooperative;
      attribute.val.cooperative = 1;
    }
    config.attrs = &attribute;
    config.numAttrs = launch.cluster > 1 || launch.cooperative ? 1 : 0;
    Body own = body;
    void* arguments[] = {&own};
    check(cudaLaunchKernelExC(&config, function, arguments), "cudaLaunchKernelExC");
  }

  void clear(void* p, std::size_t bytes) const { check(cudaMemsetAsync(p, 0, bytes, stream_), "cudaMemsetAsync"); }

 private:
  Stream stream_;
  int shared_limit_;  ///< what a block of this device can have; the kernels have no static shared memory
};

template <class Call>
void run_forward(const Call& call, void* workspace, Stream stream) {
  const Current current;
  const Runtime runtime(stream, current.device);
  cuda::forward(runtime, call, workspace, current.device, current.policy);
}

template <class Call>
void run_backward(const Call& call, void* workspace, Stream stream) {
  const Current current;
  const Runtime runtime(stream, current.device);
  cuda::backward(runtime, call, workspace, current.device, current.policy);
}

template <class T>
std::size_t bytes_of(const Geometry& g) {
  const Current current;
  return cuda::workspace_bytes<T>(g, current.device, current.policy);
}

}  // namespace

namespace library {

template <>
std::size_t workspace_bytes<float>(const Geometry& g) {
  return bytes_of<float>(g);
}
template <>
std::size_t workspace_bytes<double>(const Geometry& g) {
  return bytes_of<double>(g);
}
template <>
std::size_t workspace_bytes<Half>(const Geometry& g) {
  return bytes_of<Half>(g);
}
template <>
std::size_t workspace_bytes<BFloat16>(const Geometry& g) {
  return bytes_of<BFloat16>(g);
}

void forward(const ForwardCall<float>& call, void* workspace, Stream stream) { run_forward(call, workspace, stream); }
void forward(const ForwardCall<double>& call, void* workspace, Stream stream) { run_forward(call, workspace, stream); }
void forward(const ForwardCall<Half>& call, void* workspace, Stream stream) { run_forward(call, workspace, stream); }
void forward(const ForwardCall<BFloat16>& call, void* workspace, Stream stream) { run_forward(call, workspace, stream); }
void backward(const BackwardCall<float>& call, void* workspace, Stream stream) { run_backward(call, workspace, stream); }
void backward(const BackwardCall<double>& call, void* workspace, Stream stream) { run_backward(call, workspace, stream); }
void backward(const BackwardCall<Half>& call, void* workspace, Stream stream) { run_backward(call, workspace, stream); }
void backward(const BackwardCall<BFloat16>& call, void* workspace, Stream stream) { run_backward(call, workspace, stream); }

template <class Call>
void collect(const Call& call, const RankSums& sums, std::int64_t rank, void* workspace, Stream stream) {
  const Current current;
  const Runtime runtime(stream, current.device);
  cuda::collect(runtime, call, sums, rank, workspace, current.device, current.policy);
}
template <class Call>
void complete(const Call& call, const RankSums& sums, void* workspace, Stream stream) {
  const Current current;
  const Runtime runtime(stream, current.device);
  cuda::complete(runtime, call, sums, workspace, current.device, current.policy);
}
template void collect(const ForwardCall<float>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const ForwardCall<double>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const ForwardCall<Half>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const ForwardCall<BFloat16>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<float>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<double>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<Half>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<BFloat16>&, const RankSums&, std::int64_t, void*, Stream);
template void complete(const ForwardCall<float>&, const RankSums&, void*, Stream);
template void complete(const ForwardCall<double>&, const RankSums&, void*, Stream);
template void complete(const ForwardCall<Half>&, const RankSums&, void*, Stream);
template void complete(const ForwardCall<BFloat16>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<float>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<double>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<Half>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<BFloat16>&, const RankSums&, void*, Stream);

}  // namespace library
}  // namespace batchnorm::cuda
