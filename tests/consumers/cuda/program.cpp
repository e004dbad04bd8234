// SPDX-License-Identifier: MIT

// Asks for a workspace, which needs a device; where there is none, the error must say so.

#include <cstdio>
#include <string_view>

#include <batchnorm/cuda.hpp>

int main() {
  const batchnorm::cuda::BatchNorm<float> norm(true);
  try {
    std::printf("a workspace of %zu bytes\n", norm.workspace_bytes({8, 64, 28, 28}));
  } catch (const batchnorm::cuda::CudaError& error) {
    std::printf("%s\n", error.what());
    return error.call() == "cudaGetDevice" && error.code() != 0 ? 0 : 1;
  }
  return 0;
}
