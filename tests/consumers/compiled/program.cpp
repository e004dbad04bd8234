// SPDX-License-Identifier: MIT
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <batchnorm/batchnorm.hpp>

// A program that takes its kernels from batchnorm::compiled: they run on the instruction set that it forces, and it catches
// what they throw.

using namespace batchnorm;

int main() {
  Tensor<float> x(Shape{8, 16, 5, 7});
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 1013) * 0.001F;
  const std::vector<float> scale(16, 1.1F), bias(16, 0.3F);
  std::vector<float> mean(16, 0.1F), variance(16, 1.3F);

  std::vector<Tensor<float>> results;
  for (const Isa isa : available_isas()) {
    force_isa(isa);
    results.push_back(BatchNorm<float>().output_x(x, scale, bias, mean, variance));
  }
  // x86-64-v3 has fused multiply-add, so that some element is rounded differently.
  if (results.size() > 1 && std::memcmp(results[0].data(), results[1].data(), sizeof(float) * 8 * 16 * 5 * 7) == 0) {
    std::puts("force_isa does not reach the compiled kernels");
    return 1;
  }

  const auto forward = BatchNorm<float>(true)(x, scale, bias, mean, variance);
  const auto gradients = BatchNorm<float>(true).backward(x, x, scale, forward.reserve_space_1, forward.reserve_space_2);
  std::printf("batch mean %.4f, dbias %.4f\n", forward.batch_mean[0], gradients.dbias[0]);

  try {
    BatchNorm<float>().output_x(x, scale, bias, mean, std::vector<float>(3));
  } catch (const ShapeError& error) {
    std::puts(error.what());
    return 0;
  }
  std::puts("a wrong shape passes");
  return 1;
}
