// SPDX-License-Identifier: MIT

// A batch on a communicator of one rank, forward and backward: x = +1 and -1 in turns has mean 0 and variance 1, so y is x to a
// rounding of epsilon, and dy = x gives dscale = m. Where there is no device the communicator cannot be made, and that must be
// what is said.

#include <cmath>
#include <cstdio>
#include <vector>

#include <batchnorm/nccl.hpp>

namespace {

using namespace batchnorm;
using cuda::detail::check;

struct DeviceMemory {
  explicit DeviceMemory(std::size_t bytes) { check(cudaMalloc(&data, bytes), "cudaMalloc"); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data); }
  float* floats() const { return static_cast<float*>(data); }

  void* data = nullptr;
};

int train(ncclComm_t communicator) {
  const Shape shape{8, 3, 6, 6};
  const std::size_t size = 8 * 3 * 6 * 6, values = size / 3;
  const cuda::SyncBatchNorm<float> batch_norm(communicator);
  batch_norm.check_agreement(shape);
  std::vector<float> x(size), y(size), dscale(3);
  for (std::size_t i = 0; i < size; ++i) x[i] = i % 2 == 0 ? 1 : -1;
  const std::size_t bytes = batch_norm.workspace_bytes(shape);
  const DeviceMemory device_x(size * 4), device_y(size * 4), vectors(9 * 4), memory(bytes);
  check(cudaMemcpy(device_x.data, x.data(), size * 4, cudaMemcpyDefault), "cudaMemcpy");
  float* const mean = vectors.floats();
  float* const variance = mean + 3;
  const cuda::Workspace workspace{memory.data, bytes};
  batch_norm({device_x.floats(), shape}, {}, {}, {}, {}, {{device_y.floats(), shape}, {}, {}, {mean, {3}}, {variance, {3}}},
             Identity{}, workspace, nullptr);
  batch_norm.backward({device_x.floats(), shape}, {device_x.floats(), shape}, {}, {mean, {3}}, {variance, {3}},
                      {{}, {mean + 6, {3}}, {}}, Identity{}, workspace, nullptr);
  check(cudaMemcpy(y.data(), device_y.data, size * 4, cudaMemcpyDefault), "cudaMemcpy");
  check(cudaMemcpy(dscale.data(), mean + 6, 3 * 4, cudaMemcpyDefault), "cudaMemcpy");
  for (std::size_t i = 0; i < size; ++i) {
    if (!(std::abs(y[i] - x[i]) < 1e-4F)) return 1;
  }
  for (const float d : dscale) {
    if (!(std::abs(d - static_cast<float>(values)) < 1e-2F)) return 1;
  }
  std::printf("one rank has trained\n");
  return 0;
}

}  // namespace

int main() {
  ncclComm_t communicator = nullptr;
  try {
    const int device = 0;
    check(ncclCommInitAll(&communicator, 1, &device), "ncclCommInitAll");
  } catch (const cuda::NcclError& error) {
    int devices = 0;
    std::printf("%s\n", error.what());
    return error.call() == "ncclCommInitAll" && cudaGetDeviceCount(&devices) != cudaSuccess ? 0 : 1;
  }
  const int result = train(communicator);
  ncclCommDestroy(communicator);
  return result;
}
