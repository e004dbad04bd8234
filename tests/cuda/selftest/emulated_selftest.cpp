// SPDX-License-Identifier: MIT

// The self-test on an emulated H100. Without an argument: every case keeps its bounds, and expected.inc holds its checksum.
// With the name of a file: writes it, as expected.inc.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>

#include "cuda/emulated_library.hpp"
#include "suite.hpp"

namespace {

/// As the table's: one with 132 multiprocessors, blocks of up to 227 KB, clusters of 8.
class EmulatedMachine final : public selftest::Machine {
 public:
  EmulatedMachine()
      : scope_({.device = {.multiprocessors = 132,
                           .shared_bytes = 227 << 10,
                           .shared_bytes_of_multiprocessor = 228 << 10,
                           .largest_cluster = 8},
                .policy = batchnorm::cuda::policy_of(90)}) {}

  void* allocate(std::size_t bytes) override { return ::operator new(bytes, alignment); }
  void release(void* p) noexcept override { ::operator delete(p, alignment); }
  void to_device(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void from_device(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

  std::vector<std::string> ways() const override { return {"from the first thread", "from the last thread"}; }
  void run(std::size_t way, const std::function<void(batchnorm::cuda::Stream)>& enqueue) override {
    support::emulated_device().options.schedule = way == 0 ? support::Schedule::in_order : support::Schedule::reverse;
    try {
      enqueue(nullptr);
    } catch (const std::runtime_error& error) {
      // The thread sanitizer cannot follow as many threads as a cooperative grid has.
      if (std::strstr(error.what(), "more threads at once than the emulator has") == nullptr) throw;
      throw selftest::NotHere(error.what());
    }
  }

 private:
  static constexpr std::align_val_t alignment{256};
  support::DeviceScope scope_;
};

}  // namespace

int main(int argc, char** argv) {
  EmulatedMachine machine;
  const bool writes = argc > 1;
  const selftest::Report report = selftest::run_cases(machine, "", !writes);
  bool is_right = report.failed == 0;
  if (writes) {
    std::ofstream file(argv[1]);
    file << "// Made by batchnorm_cuda_emulated_selftest tests/cuda/selftest/expected.inc\n" << report.table << std::flush;
    is_right = is_right && file.good();
    is_right = is_right && report.left_out == 0;
  } else if (selftest::expected_count() != static_cast<std::size_t>(report.cases)) {
    std::printf("expected.inc has %zu lines\n", selftest::expected_count());
    is_right = false;
  }
  std::printf("%d cases, %d left out, %d failed\n", report.cases, report.left_out, report.failed);
  return is_right ? 0 : 1;
}
