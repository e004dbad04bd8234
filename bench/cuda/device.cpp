// SPDX-License-Identifier: MIT
#include "device.hpp"

#include <batchnorm/cuda/error.hpp>

namespace bench {

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) {
    throw batchnorm::cuda::CudaError(call, status, cudaGetErrorName(status), cudaGetErrorString(status));
  }
}

std::string find_device(DeviceFacts& facts) {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess) return cudaGetErrorString(found);
  if (devices == 0) return "the driver names none";
  check(cudaSetDevice(0), "cudaSetDevice");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  facts.name = properties.name;
  facts.capability = properties.major * 10 + properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.cache_bytes = properties.l2CacheSize;
  facts.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  check(cudaDriverGetVersion(&facts.driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&facts.runtime), "cudaRuntimeGetVersion");
  return {};
}

DeviceMemory::DeviceMemory(std::size_t bytes) : bytes_(bytes) {
  void* p = nullptr;
  if (bytes > 0) check(cudaMalloc(&p, bytes), "cudaMalloc");
  data_ = static_cast<std::byte*>(p);
}
DeviceMemory::~DeviceMemory() { cudaFree(data_); }

void DeviceMemory::upload(const void* from, std::size_t bytes) const {
  check(cudaMemcpy(data_, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}
void DeviceMemory::download(void* to, std::size_t bytes) const {
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  check(cudaMemcpy(to, data_, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

DeviceStream::DeviceStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
DeviceStream::~DeviceStream() { cudaStreamDestroy(stream_); }

Sequence::Sequence(const DeviceCall& call, std::size_t calls, std::size_t buffers, bool as_graph, cudaStream_t stream)
    : call_(call), calls_(calls), buffers_(buffers), stream_(stream) {
  // Before it is captured: the first call loads the kernels.
  call_(stream_, 0);
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  check(cudaEventCreate(&begin_), "cudaEventCreate");
  check(cudaEventCreate(&end_), "cudaEventCreate");
  if (!as_graph) return;
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  bool is_captured = true;
  try {
    enqueue_all();
  } catch (const std::exception&) {
    is_captured = false;  // another library's call may refuse; it is timed as it is
  }
  if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess) is_captured = false;
  if (is_captured) check(cudaGraphInstantiate(&executable_, graph, 0), "cudaGraphInstantiate");
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // what a refused capture leaves
}

Sequence::~Sequence() {
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

void Sequence::enqueue_all() const {
  for (std::size_t i = 0; i < calls_; ++i) call_(stream_, i % buffers_);
}

double Sequence::seconds() const {
  check(cudaEventRecord(begin_, stream_), "cudaEventRecord");
  if (executable_ != nullptr) {
    check(cudaGraphLaunch(executable_, stream_), "cudaGraphLaunch");
  } else {
    enqueue_all();
  }
  check(cudaEventRecord(end_, stream_), "cudaEventRecord");
  check(cudaEventSynchronize(end_), "cudaEventSynchronize");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin_, end_), "cudaEventElapsedTime");
  return static_cast<double>(milliseconds) * 1e-3 / static_cast<double>(calls_);
}

}  // namespace bench
