// SPDX-License-Identifier: MIT
#include "fake_runtime.hpp"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include <cxxabi.h>

namespace support {

FakeRuntime& FakeRuntime::instance() {
  static FakeRuntime runtime;  // registered with before main
  return runtime;
}

void FakeRuntime::start(const FakeDevice& device) {
  device_ = device;
  calls_.clear();
  violations_.clear();
  granted_.clear();
  failing_call_.reset();
  observer_ = nullptr;
}

std::vector<FakeCall> FakeRuntime::enqueued() const {
  std::vector<FakeCall> result;
  for (const FakeCall& call : calls_) {
    const bool is_enqueued =
        call.function == "cudaLaunchKernelExC" || call.function == "cudaMemsetAsync" || call.function == "ncclAllGather";
    if (is_enqueued) result.push_back(call);
  }
  return result;
}

cudaError_t FakeRuntime::log(FakeCall call) {
  calls_.push_back(std::move(call));
  return failing_call_ == calls_.size() - 1 ? error_.code : cudaSuccess;
}

cudaError_t FakeRuntime::refuse(cudaError_t error, const std::string& why) {
  violations_.push_back(calls_.back().function + ": " + why);
  error_ = {error};
  return error;
}

void FakeRuntime::register_kernel(const void* function, const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  names_[function] = status == 0 ? text : name;
  std::free(text);
}

cudaError_t FakeRuntime::get_device(int* device) {
  *device = 3;
  return log({"cudaGetDevice"});
}

cudaError_t FakeRuntime::get_attribute(int* value, cudaDeviceAttr attribute, int device) {
  if (const cudaError_t error = log({"cudaDeviceGetAttribute"}); error != cudaSuccess) return error;
  if (device != 3) return refuse(cudaErrorInvalidDevice, "another device than the current one");
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = device_.capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = device_.capability % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = device_.multiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = device_.shared_bytes; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = device_.shared_bytes_of_multiprocessor; break;
    case cudaDevAttrClusterLaunch: *value = device_.has_clusters ? 1 : 0; break;
    case cudaDevAttrCooperativeLaunch: *value = device_.cooperates ? 1 : 0; break;
    default: return refuse(cudaErrorInvalidValue, "attribute " + std::to_string(attribute) + ", which the fake has not");
  }
  return cudaSuccess;
}

cudaError_t FakeRuntime::get_attributes(cudaFuncAttributes* attributes, const void* function) {
  if (const cudaError_t error = log({"cudaFuncGetAttributes", names_[function]}); error != cudaSuccess) return error;
  if (names_[function].empty()) return refuse(cudaErrorInvalidDeviceFunction, "not a kernel");
  *attributes = {};
  attributes->ptxVersion = device_.code == 0 ? device_.capability : device_.code;
  attributes->binaryVersion = device_.capability;
  return cudaSuccess;
}

cudaError_t FakeRuntime::set_attribute(const void* function, cudaFuncAttribute attribute, int value) {
  FakeCall call{"cudaFuncSetAttribute", names_[function]};
  call.shared_bytes = value;
  if (const cudaError_t error = log(call); error != cudaSuccess) return error;
  if (names_[function].empty()) return refuse(cudaErrorInvalidDeviceFunction, "not a kernel");
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return refuse(cudaErrorInvalidValue, "another attribute");
  if (value > device_.shared_bytes) return refuse(cudaErrorInvalidValue, std::to_string(value) + " bytes of shared memory");
  granted_[function] = value;
  return cudaSuccess;
}

cudaError_t FakeRuntime::launch(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  FakeCall call{"cudaLaunchKernelExC", names_[function], config->stream, config->gridDim.x};
  call.threads = static_cast<int>(config->blockDim.x);
  call.shared_bytes = static_cast<int>(config->dynamicSmemBytes);
  call.cluster = 1;
  bool is_flat = config->gridDim.y == 1 && config->gridDim.z == 1 && config->blockDim.y == 1 && config->blockDim.z == 1;
  bool attributes_known = true;
  for (unsigned k = 0; k < config->numAttrs; ++k) {
    const cudaLaunchAttribute& attribute = config->attrs[k];
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      call.cluster = static_cast<int>(attribute.val.clusterDim.x);
      is_flat = is_flat && attribute.val.clusterDim.y == 1 && attribute.val.clusterDim.z == 1;
    } else if (attribute.id == cudaLaunchAttributeCooperative) {
      call.is_cooperative = attribute.val.cooperative != 0;
    } else {
      attributes_known = false;
    }
  }
  if (const cudaError_t error = log(call); error != cudaSuccess) return error;

  constexpr int granted_unasked = 48 << 10;
  const auto refuse_configuration = [&](const std::string& why) { return refuse(cudaErrorInvalidConfiguration, why); };
  if (call.kernel.empty()) return refuse(cudaErrorInvalidDeviceFunction, "not a kernel");
  if (!attributes_known) return refuse_configuration("another attribute than of clusters and cooperation");
  if (!is_flat) return refuse_configuration("a grid of more than one dimension");
  if (call.blocks < 1 || call.blocks > INT32_MAX) return refuse_configuration(std::to_string(call.blocks) + " blocks");
  if (call.threads < 32 || call.threads > 1024 || call.threads % 32 != 0) {
    return refuse_configuration(std::to_string(call.threads) + " threads");
  }
  if (call.shared_bytes < 0 || call.shared_bytes > device_.shared_bytes) {
    return refuse_configuration(std::to_string(call.shared_bytes) + " bytes of shared memory");
  }
  if (call.shared_bytes > granted_unasked && call.shared_bytes > granted_[function]) {
    return refuse_configuration(std::to_string(call.shared_bytes) + " bytes of shared memory, not asked for before");
  }
  if (call.cluster > 1) {
    if (!device_.has_clusters) return refuse_configuration("clusters on a device that has none");
    if (call.cluster > 8 || call.blocks % call.cluster != 0) {
      return refuse_configuration(std::to_string(call.blocks) + " blocks in clusters of " + std::to_string(call.cluster));
    }
  }
  if (call.is_cooperative && !device_.cooperates) return refuse_configuration("cooperation on a device that has none");
  if (call.is_cooperative && call.blocks > device_.multiprocessors) {  // what is sure to be resident at once
    return refuse(cudaErrorCooperativeLaunchTooLarge, std::to_string(call.blocks) + " cooperating blocks");
  }
  if (observer_) observer_(call, arguments[0]);
  return cudaSuccess;
}

cudaError_t FakeRuntime::clear(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  FakeCall call{"cudaMemsetAsync", "", stream};
  call.memory = memory;
  call.bytes = bytes;
  if (const cudaError_t error = log(call); error != cudaSuccess) return error;
  if (value != 0) return refuse(cudaErrorInvalidValue, "another value than 0");
  if (memory == nullptr) return refuse(cudaErrorInvalidValue, "no memory");
  return cudaSuccess;
}

}  // namespace support

using support::FakeRuntime;

extern "C" {

cudaError_t cudaGetDevice(int* device) { return FakeRuntime::instance().get_device(device); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return FakeRuntime::instance().get_attribute(value, attribute, device);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return FakeRuntime::instance().get_attributes(attributes, function);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return FakeRuntime::instance().set_attribute(function, attribute, value);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return FakeRuntime::instance().launch(config, function, arguments);
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  return FakeRuntime::instance().clear(memory, value, bytes, stream);
}
const char* cudaGetErrorName(cudaError_t) { return FakeRuntime::instance().error().name; }
const char* cudaGetErrorString(cudaError_t) { return FakeRuntime::instance().error().text; }

// What nvcc's own code calls before main, and in functions for kernel<<<...>>>(...), which batch_norm.cu does without.
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  FakeRuntime::instance().register_kernel(function, name);
}

static cudaError_t no_such_launch() {
  std::fputs("a kernel is launched otherwise than by cudaLaunchKernelExC\n", stderr);
  std::abort();
}
unsigned __cudaPushCallConfiguration(dim3, dim3, std::size_t, CUstream_st*) { return no_such_launch(); }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) { return no_such_launch(); }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return no_such_launch(); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) { return no_such_launch(); }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, std::size_t, cudaStream_t) { return no_such_launch(); }
}
