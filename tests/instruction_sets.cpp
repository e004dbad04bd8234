// SPDX-License-Identifier: MIT
// Says which instruction sets the tests run on and which this processor lacks.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <batchnorm/isa.hpp>

#include "../examples/output/standard_output.hpp"

int main() {
  standard_output::prepare();
  using batchnorm::Isa;
  const std::vector<Isa> available = batchnorm::available_isas();
  std::string run;
  std::string skipped;
  for (const Isa isa : {Isa::baseline, Isa::x86_64_v3, Isa::x86_64_v4}) {
    std::string& list = std::find(available.begin(), available.end(), isa) == available.end() ? skipped : run;
    list += (list.empty() ? "" : ", ") + std::string(to_string(isa));
  }
  std::printf("instruction sets run: %s\n", run.c_str());
  std::printf("instruction sets skipped, this processor lacks them: %s\n", skipped.empty() ? "none" : skipped.c_str());
  return standard_output::finish("instruction_sets", 0);
}
