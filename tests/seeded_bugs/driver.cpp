// SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>

#include "fuzz/kinds.hpp"
#include BATCHNORM_SEEDED_FILE

// The fuzzer's cases of one kind, BATCHNORM_SEEDED_KIND, and one pair of types, BATCHNORM_FUZZED_TYPES, up to the first that fails.
// driver CASES: exits with status 1 where one does.

int main(int, char** arguments) {
  const long long cases = std::atoll(arguments[1]);
  const fuzz::Restriction restriction{{}, fuzz::Kind::BATCHNORM_SEEDED_KIND, BATCHNORM_FUZZED_TYPES};
  for (long long seed = 1; seed <= cases; ++seed) {
    const fuzz::Plan plan = fuzz::draw_plan(static_cast<std::uint64_t>(seed), restriction);
    batchnorm::force_isa(plan.isa);
    fuzz::Random random(plan.seed + 0x5EED);
    try {
      static_cast<void>(fuzz::BATCHNORM_SEEDED_KIND(plan, random));
    } catch (const std::exception& error) {
      std::printf("%s (%s)\n", error.what(), fuzz::text_of(plan).c_str());
      return 1;
    }
  }
  return 0;
}
