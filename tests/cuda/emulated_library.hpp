// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include <batchnorm/cuda/library.hpp>
#include <batchnorm/cuda/plan.hpp>

#include "emulator.hpp"

// What batch_norm.cu defines, defined by launches of the emulator: cuda.hpp runs on the processor, "device memory" is any
// memory.
namespace support {

/// The device that the library finds, and how its launches are executed.
struct EmulatedDevice {
  EmulatorOptions options{};
  batchnorm::cuda::Device device{.multiprocessors = 2};
  batchnorm::cuda::Policy policy{};
  bool adds_doubles_fast = true;
  std::vector<std::string> launches{};  ///< the names of the bodies launched so far
};

EmulatedDevice& emulated_device();

/// Another device until the end of the scope.
class DeviceScope {
 public:
  explicit DeviceScope(const EmulatedDevice& device) : before_(emulated_device()) { emulated_device() = device; }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  ~DeviceScope() { emulated_device() = before_; }

 private:
  EmulatedDevice before_;
};

}  // namespace support
