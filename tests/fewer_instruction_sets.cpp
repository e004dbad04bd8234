// SPDX-License-Identifier: MIT

// A program without the kernels of the larger instruction sets neither lists nor takes these, and computes without them.

#include <algorithm>
#include <cstdio>
#include <vector>

#include <batchnorm/batchnorm.hpp>

#if defined(BATCHNORM_BASELINE_ONLY)
constexpr auto left_out = batchnorm::Isa::x86_64_v3;
#elif defined(BATCHNORM_WITHOUT_AVX512)
constexpr auto left_out = batchnorm::Isa::x86_64_v4;
#else
#error "to be compiled with BATCHNORM_BASELINE_ONLY or BATCHNORM_WITHOUT_AVX512"
#endif

int main() {
  using namespace batchnorm;
  const auto available = available_isas();
  const bool lists = std::find(available.begin(), available.end(), left_out) != available.end();
  bool takes = true;
  try {
    force_isa(left_out);
  } catch (const ValueError&) {
    takes = false;
  }
  const std::vector<float> x{1, 3}, scale{2}, bias{5};
  const auto y = BatchNorm<float>(true).output_x({x.data(), Shape{2, 1}}, scale, bias, {}, {});
  const bool right = y[0] > 3 && y[0] < 3.001F && y[1] > 6.999F && y[1] < 7;
  std::printf("lists %d, takes %d, active %s, right %d\n", lists, takes, std::string(to_string(active_isa())).c_str(), right);
  return !lists && !takes && active_isa() < left_out && right ? 0 : 1;
}
