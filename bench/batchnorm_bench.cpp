// SPDX-License-Identifier: MIT

// The operator against a copy of x. Each row interleaves an operation with the copy, on the same buffers and the same threads,
// and reports the ratio of the medians: 1 means as fast as memory can be copied. --help names the options.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include <benchmark/benchmark.h>

#include "../examples/output/standard_output.hpp"
#include "suite/command_line.hpp"
#include "suite/report.hpp"

namespace {

/// Prints a row as soon as it is done.
class Table final : public benchmark::BenchmarkReporter {
 public:
  Table(const bench::Machine& machine, const std::vector<bench::Result>& results, bool explains)
      : machine_(machine), results_(results), explains_(explains) {}

  bool ReportContext(const Context&) override {
    print(bench::header(machine_));
    return true;
  }

  void ReportRuns(const std::vector<Run>&) override {
    const bench::Result& result = results_.back();
    print(bench::line_of(result));
    if (explains_) print("    " + bench::explanation_of(result.row) + "\n");
    for (const bench::RivalResult& rival : result.rivals) {
      if (rival.differs) std::cerr << "warning: the result of " << rival.name << " differs from the library's\n";
    }
  }

 private:
  /// Nobody would see the rows that follow a lost one. Google Benchmark passes no exceptions on.
  static void print(const std::string& text) {
    std::cout << text;
    if (const int status = standard_output::finish("batchnorm_bench", 0, 1); status != 0) std::exit(status);
  }

  const bench::Machine& machine_;
  const std::vector<bench::Result>& results_;
  const bool explains_;
};

void register_rows(const bench::Request& request, std::vector<bench::Result>& results) {
  for (const bench::Row& row : request.rows) {
    benchmark::RegisterBenchmark(bench::name_of(row).c_str(),
                                 [&results, row, with_rivals = request.with_rivals](benchmark::State& state) {
                                   for ([[maybe_unused]] auto _ : state) {
                                     const bench::Result& result = results.emplace_back(bench::measure(row, with_rivals));
                                     state.SetIterationTime(result.median_us * 1e-6);
                                   }
                                 })
        ->UseManualTime()
        ->Iterations(1);
  }
}

int run(const bench::Request& request) {
  std::ofstream file;
  if (!request.json.empty()) {
    file.open(request.json);  // before the minutes of work
    if (!file) throw std::runtime_error("'" + request.json + "' cannot be written");
  }
  const bench::Machine machine = bench::this_machine();
  std::vector<bench::Result> results;
  register_rows(request, results);
  Table table(machine, results, request.explains);
  benchmark::RunSpecifiedBenchmarks(&table);
  if (!request.json.empty() && !(file << bench::json_of(machine, results) << std::flush)) {
    throw std::runtime_error("'" + request.json + "' cannot be written");
  }
  return std::all_of(results.begin(), results.end(), [](const bench::Result& result) { return result.error.empty(); }) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  const bench::Request request = bench::read_command_line(argc, argv);
  if (request.lists_only) {
    for (const bench::Row& row : request.rows) {
      std::cout << bench::name_of(row) << "\n";
      if (request.explains) std::cout << "    " << bench::explanation_of(row) << "\n";
      // At once: of a buffer that is full and cannot be written, nobody says why.
      if (const int status = standard_output::finish("batchnorm_bench", 0, 1); status != 0) return status;
    }
    return 0;
  }
  try {
    return standard_output::finish("batchnorm_bench", run(request), 1);
  } catch (const std::exception& error) {
    std::cerr << "batchnorm_bench: " << error.what() << "\n";
    return 1;
  }
}
