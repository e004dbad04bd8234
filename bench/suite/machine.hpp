// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct CacheSize {
  std::string name;  // "L1d", "L2", "L3"
  std::int64_t bytes;
  int shared_by;  // processors
};

/// Where and from what the numbers come.
struct Machine {
  std::string cpu;
  int cores;
  std::vector<CacheSize> caches;
  std::int64_t memory_bytes;
  std::string compiler, flags, library;
  std::string revision;  // of the sources by git, "-dirty" where they were changed since; "unknown" outside a repository
  std::vector<std::string> isas, rivals;
  std::string date;  // UTC
};

Machine this_machine();

}  // namespace bench
