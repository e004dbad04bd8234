// SPDX-License-Identifier: MIT

// Whether batchnorm::cuda works on the CUDA device of this machine: batchnorm_cuda_selftest [TEXT] runs the cases whose name
// contains TEXT, each on a stream, on the default stream and as a graph. Status 0: all is well; 1: it is not; 77: there is no
// device, or no driver.

#include <cstdio>
#include <exception>

#include <cuda_runtime.h>

#include <batchnorm/cuda/error.hpp>
#include <batchnorm/version.hpp>

#include "suite.hpp"

namespace {

constexpr int no_device = 77;

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) {
    throw batchnorm::cuda::CudaError(call, status, cudaGetErrorName(status), cudaGetErrorString(status));
  }
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, 0), "cudaDeviceGetAttribute");
  return value;
}

class CudaMachine final : public selftest::Machine {
 public:
  CudaMachine() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  ~CudaMachine() override { cudaStreamDestroy(stream_); }

  void* allocate(std::size_t bytes) override {
    void* p = nullptr;
    check(cudaMalloc(&p, bytes), "cudaMalloc");
    return p;
  }
  void release(void* p) noexcept override { cudaFree(p); }
  void to_device(void* to, const void* from, std::size_t bytes) override {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  void from_device(void* to, const void* from, std::size_t bytes) override {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
  }

  std::vector<std::string> ways() const override { return {"a stream", "the default stream", "a graph"}; }
  void run(std::size_t way, const std::function<void(batchnorm::cuda::Stream)>& enqueue) override {
    switch (way) {
      case 0: enqueue(stream_); break;
      case 1: enqueue(nullptr); break;
      default: replay(enqueue);
    }
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

 private:
  void replay(const std::function<void(batchnorm::cuda::Stream)>& enqueue) const {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    try {
      enqueue(stream_);
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
    check(cudaGraphLaunch(executable, stream_), "cudaGraphLaunch");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
    check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }

  cudaStream_t stream_ = nullptr;
};

/// Whether the plans, and so the last bits, are those of the table.
bool is_cut_as_the_table() {
  return attribute(cudaDevAttrComputeCapabilityMajor) == 9 && attribute(cudaDevAttrComputeCapabilityMinor) == 0 &&
         attribute(cudaDevAttrMultiProcessorCount) == 132 && attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) == 227 << 10 &&
         attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) == 228 << 10 && attribute(cudaDevAttrClusterLaunch) != 0 &&
         attribute(cudaDevAttrCooperativeLaunch) != 0;
}

int run(std::string_view filter) {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || devices == 0) {
    std::printf("batchnorm_cuda_selftest: no CUDA device to run on: %s\n",
                found == cudaSuccess ? "the driver names none" : cudaGetErrorString(found));
    return no_device;
  }
  check(cudaSetDevice(0), "cudaSetDevice");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  std::printf("batchnorm %d.%d.%d, %s, compute capability %d.%d, %d multiprocessors, driver %d, runtime %d\n",
              BATCHNORM_VERSION_MAJOR, BATCHNORM_VERSION_MINOR, BATCHNORM_VERSION_PATCH, properties.name, properties.major,
              properties.minor, properties.multiProcessorCount, driver, runtime);
  const bool is_comparable = is_cut_as_the_table();
  std::printf("checksums %s\n", is_comparable
                                    ? "are compared with those of the emulator"
                                    : "not comparable: the table is for compute capability 9.0 with 132 multiprocessors");
  CudaMachine machine;
  const selftest::Report report = selftest::run_cases(machine, filter, is_comparable);
  std::printf("%d cases, %d failed\n", report.cases, report.failed);
  if (report.cases == 0) std::printf("no case has '%.*s' in its name\n", static_cast<int>(filter.size()), filter.data());
  return report.failed == 0 && report.cases > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "");
  } catch (const std::exception& error) {
    std::printf("batchnorm_cuda_selftest: %s\n", error.what());
    return 1;
  }
}
