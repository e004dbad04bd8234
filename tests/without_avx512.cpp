// SPDX-License-Identifier: MIT

// A program whose kernels of x86-64-v4 are left out neither lists nor takes that instruction set, and computes without it.

#include <algorithm>
#include <cstdio>
#include <vector>

#include <batchnorm/batchnorm.hpp>

#if !defined(BATCHNORM_WITHOUT_AVX512)
#error "to be compiled with BATCHNORM_WITHOUT_AVX512"
#endif

int main() {
  using namespace batchnorm;
  const auto available = available_isas();
  const bool lists = std::find(available.begin(), available.end(), Isa::x86_64_v4) != available.end();
  bool takes = true;
  try {
    force_isa(Isa::x86_64_v4);
  } catch (const ValueError&) {
    takes = false;
  }
  const std::vector<float> x{1, 3}, scale{2}, bias{5};
  const auto y = BatchNorm<float>(true).output_x({x.data(), Shape{2, 1}}, scale, bias, {}, {});
  const bool right = y[0] > 3 && y[0] < 3.001F && y[1] > 6.999F && y[1] < 7;
  std::printf("lists %d, takes %d, active %s, right %d\n", lists, takes, std::string(to_string(active_isa())).c_str(), right);
  return !lists && !takes && active_isa() < Isa::x86_64_v4 && right ? 0 : 1;
}
