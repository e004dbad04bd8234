// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>
#include <string>

namespace batchnorm::cuda {

/// A call of the CUDA runtime failed.
class CudaError : public std::runtime_error {
 public:
  CudaError(const std::string& call, int code, const std::string& name, const std::string& text)
      : std::runtime_error("batchnorm::cuda: " + call + " failed with " + name + " (" + std::to_string(code) + "): " + text),
        call_(call),
        name_(name),
        code_(code) {}

  const std::string& call() const noexcept { return call_; }  ///< the runtime's function
  const std::string& name() const noexcept { return name_; }  ///< "cudaErrorMemoryAllocation"
  int code() const noexcept { return code_; }                 ///< the cudaError_t

 private:
  std::string call_, name_;
  int code_;
};

}  // namespace batchnorm::cuda
