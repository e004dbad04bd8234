// SPDX-License-Identifier: MIT
// clang-format off: the poison comes first
#include <headers_of_ours.hpp>
#include "poison.hpp"
// clang-format on
#include <cstdio>

#include "normalized.hpp"
#include "second.hpp"

namespace {

constexpr int skipped = 77;

int failures = 0;

void expect(bool condition, const char* what, batchnorm::Isa isa) {
  if (condition) return;
  std::printf("%s: not so: %s\n", std::string(to_string(isa)).c_str(), what);
  ++failures;
}

}  // namespace

int main() {
  using namespace batchnorm;
  const std::vector<Isa> isas = available_isas();
  const Isa floor = compiled_isa_of_second();
  if (std::find(isas.begin(), isas.end(), floor) == isas.end()) {
    std::printf("skipped: this processor does not run %s\n", std::string(to_string(floor)).c_str());
    return skipped;
  }

  // +1 and -1 in turn: mean 0 and variance 1 are exact on every instruction set, and so is y.
  std::vector<float> x(2 * 3 * 1000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? 1.0F : -1.0F;

  for (const Isa isa : isas) {
    force_isa(isa);
    expect(active_isa() == isa, "the first unit runs on the forced instruction set", isa);
    expect(active_isa_of_second() == (isa < floor ? floor : isa), "the second unit runs on it, or on its floor", isa);
    expect(normalized(x) == normalized_by_second(x), "both units find the same y", isa);
  }
  return failures == 0 ? 0 : 1;
}
