// SPDX-License-Identifier: MIT
#include "machine.hpp"

#include <unistd.h>

#include <ctime>
#include <fstream>
#include <thread>

#include <benchmark/benchmark.h>

#include <batchnorm/isa.hpp>
#include <batchnorm/version.hpp>

#include "../rivals/rival.hpp"
#include "revision.hpp"

namespace bench {
namespace {

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

std::string library() {
  std::string text = "batchnorm ";
  text.append(std::to_string(BATCHNORM_VERSION_MAJOR)).append(".").append(std::to_string(BATCHNORM_VERSION_MINOR));
  return text.append(".").append(std::to_string(BATCHNORM_VERSION_PATCH));
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&time));
  return text;
}

std::vector<CacheSize> caches() {
  std::vector<CacheSize> result;
  for (const benchmark::CPUInfo::CacheInfo& cache : benchmark::CPUInfo::Get().caches) {
    if (cache.type == "Instruction") continue;
    const std::string name = std::string("L").append(std::to_string(cache.level)).append(cache.type == "Data" ? "d" : "");
    result.push_back({name, cache.size, cache.num_sharing});
  }
  return result;
}

}  // namespace

Machine this_machine() {
  Machine machine{.cpu = processor(),
                  .cores = static_cast<int>(std::thread::hardware_concurrency()),
                  .caches = caches(),
                  .memory_bytes = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE),
                  .compiler = compiler(),
                  .flags = BATCHNORM_BENCH_FLAGS,
                  .library = library(),
                  .revision = BATCHNORM_BENCH_REVISION,
                  .isas = {},
                  .rivals = rival_versions(),
                  .date = now()};
  for (const batchnorm::Isa isa : batchnorm::available_isas()) machine.isas.emplace_back(to_string(isa));
  return machine;
}

}  // namespace bench
