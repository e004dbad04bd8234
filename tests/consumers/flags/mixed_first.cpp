// SPDX-License-Identifier: MIT
// Half of a program whose units are compiled for different processors; mixed_second.cpp is the other.
#include <cstdio>

#include "normalized.hpp"

batchnorm::Isa floor_of_second();
std::vector<float> normalized_by_second(const std::vector<float>& x);

int main() {
  using namespace batchnorm;
  if (active_isa() < floor_of_second()) {
    std::printf("skipped: this processor does not run %s\n", std::string(to_string(floor_of_second())).c_str());
    return 0;
  }
  // mean 0 and variance 1 are exact everywhere, and so is y.
  std::vector<float> exact(2 * 3 * 1000), other(exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) {
    exact[i] = i % 2 == 0 ? 1.0F : -1.0F;
    other[i] = static_cast<float>(i % 97) * 0.37F;
  }
  for (const Isa isa : available_isas()) {
    force_isa(isa);
    if (normalized(exact) != normalized_by_second(exact)) {
      std::printf("%s: the two units find different values\n", std::string(to_string(isa)).c_str());
      return 1;
    }
  }
  // Without fused multiply-add y is rounded differently: each unit runs its own code, whichever was linked first.
  force_isa(Isa::baseline);
  if (normalized(other) == normalized_by_second(other)) {
    std::puts("both units run the same kernels");
    return 1;
  }
  std::printf("floors %s and %s\n", std::string(to_string(compiled_isa())).c_str(),
              std::string(to_string(floor_of_second())).c_str());
}
