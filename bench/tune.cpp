// SPDX-License-Identifier: MIT

// What this machine would prefer for the numbers in batchnorm/plan/tuning.hpp: each is varied alone, on shapes where it decides
// something. Candidates take turns on the same buffers; a value is judged by the geometric mean of its times over the shapes.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <batchnorm/call/machine_tuning.hpp>
#include <batchnorm/thread_team.hpp>

#include "../examples/output/standard_output.hpp"
#include "suite/choice.hpp"
#include "suite/names.hpp"
#include "suite/timing.hpp"
#include "suite/workload.hpp"

namespace {

using batchnorm::Tuning;
using bench::Layout;
using bench::Operation;
using bench::Problem;

/// A number, the values to try as multiples of today's, and the problems in which it decides something.
struct Knob {
  std::string name;
  std::function<double(const Tuning&)> get;
  std::function<void(Tuning&, double)> set;
  std::vector<double> factors;
  std::vector<Problem> problems;
};

template <class Number>
Knob knob(const char* name, Number Tuning::*member, std::vector<double> factors, std::vector<Problem> problems) {
  return {name, [member](const Tuning& tuning) { return static_cast<double>(tuning.*member); },
          [member](Tuning& tuning, double value) { tuning.*member = static_cast<Number>(value); }, std::move(factors),
          std::move(problems)};
}

Problem problem(Operation operation, Layout layout, bench::Extents extents, int threads) {
  return {operation, layout, bench::ElementType::float32, std::move(extents), threads};
}

/// Problems whose x takes these shares of a cache.
std::vector<Problem> of_sizes(Operation operation, Layout layout, std::int64_t cache_bytes, const std::vector<double>& shares,
                              int threads, std::int64_t side = 28) {
  constexpr std::int64_t channels = 64;
  std::vector<Problem> problems;
  for (const double share : shares) {
    const double images = share * static_cast<double>(cache_bytes) / static_cast<double>(4 * channels * side * side);
    problems.push_back(
        problem(operation, layout, {std::max<std::int64_t>(1, std::llround(images)), channels, side, side}, threads));
  }
  return problems;
}

std::vector<Problem> operator+(std::vector<Problem> a, const std::vector<Problem>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<Knob> knobs(const Tuning& now, int threads) {
  constexpr Layout nchw = Layout::nchw, nhwc = Layout::nhwc;
  const std::vector<double> around = {0.25, 0.5, 1, 2, 4}, beside_l3 = {0.125, 0.25, 0.5, 1, 2};
  const std::vector<Problem> planes = {
      problem(Operation::training, nchw, {32, 64, 56, 56}, 1),   problem(Operation::training, nchw, {32, 256, 28, 28}, threads),
      problem(Operation::training, nchw, {32, 1024, 14, 14}, 1), problem(Operation::training, nchw, {32, 2048, 7, 7}, threads),
      problem(Operation::backward, nchw, {16, 64, 56, 56}, 1),   problem(Operation::backward, nchw, {32, 512, 7, 7}, 1)};
  const std::vector<Problem> smallest_planes = {problem(Operation::training, nchw, {32, 4096, 5, 5}, 1),
                                                problem(Operation::training, nchw, {64, 8192, 3, 3}, threads),
                                                problem(Operation::backward, nchw, {32, 2048, 5, 5}, 1)};
  std::vector<Problem> forked, swept;
  for (const std::int64_t rows : {16, 32, 64, 128, 256}) {
    forked.push_back(problem(Operation::training, nhwc, {rows, 512}, threads));
    forked.push_back(problem(Operation::training, nchw, {1, 64, rows, 8}, threads));
    forked.push_back(problem(Operation::inference, nchw, {1, 64, rows, 8}, threads));
  }
  for (const Layout layout : {nchw, nhwc}) swept.push_back(problem(Operation::inference, layout, {16, 128, 28, 28}, threads));
  swept.push_back(problem(Operation::inference, nchw, {32, 64, 56, 56}, threads));
  return {knob("l2_bytes", &Tuning::l2_bytes, around, of_sizes(Operation::training, nchw, now.l2_bytes, {0.5, 1, 2, 4}, 1, 5)),
          knob("l3_bytes", &Tuning::l3_bytes, around,
               of_sizes(Operation::training, nhwc, now.l3_bytes, beside_l3, 1) +
                   of_sizes(Operation::inference, nchw, now.l3_bytes, beside_l3, threads)),
          knob("inference_stream_share", &Tuning::inference_stream_share, around,
               of_sizes(Operation::inference, nchw, now.l3_bytes, beside_l3, 1) +
                   of_sizes(Operation::inference, nhwc, now.l3_bytes, beside_l3, threads)),
          knob("training_stream_share", &Tuning::training_stream_share, around,
               of_sizes(Operation::training, nchw, now.l3_bytes, beside_l3, 1) +
                   of_sizes(Operation::training, nhwc, now.l3_bytes, beside_l3, threads)),
          knob("plane_group_bytes", &Tuning::plane_group_bytes, around, planes),
          knob("column_group_bytes", &Tuning::column_group_bytes, around, smallest_planes),
          knob("reverse_block_bytes", &Tuning::reverse_block_bytes, around,
               of_sizes(Operation::training, nhwc, now.l3_bytes, {0.75, 1, 1.5}, 1) +
                   of_sizes(Operation::training, nhwc, now.l3_bytes, {1}, threads)),
          knob("serial_bytes", &Tuning::serial_bytes, around, forked),
          knob("sweep_task_bytes", &Tuning::sweep_task_bytes, around, swept)};
}

/// The time of each value in this problem.
std::vector<double> times_of(const std::vector<Tuning>& tunings, const Problem& problem) {
  batchnorm::ThreadTeam team(problem.threads);
  const std::unique_ptr<bench::Workload> workload = bench::make_workload_of<float>(problem, team);
  std::vector<bench::Call> candidates;
  for (const Tuning& tuning : tunings) {
    candidates.emplace_back([&workload = *workload, &tuning] {
      workload.use(tuning);
      workload.run();
    });
  }
  std::vector<double> medians;
  for (const bench::Times& times : bench::take_turns(candidates)) medians.push_back(times.median());
  return medians;
}

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value == std::floor(value) ? "%.0f" : "%.4g", value);
  return text;
}

void try_values(const Knob& knob, const Tuning& now, std::string& recommendation) {
  std::vector<Tuning> tunings(knob.factors.size(), now);
  std::size_t today = 0;
  for (std::size_t i = 0; i < tunings.size(); ++i) {
    knob.set(tunings[i], knob.get(now) * knob.factors[i]);
    if (knob.factors[i] == 1) today = i;
  }
  std::vector<std::vector<double>> times;
  for (const Problem& problem : knob.problems) times.push_back(times_of(tunings, problem));
  const bench::Choice choice = bench::choose(times, tunings.size(), today);
  std::string each;
  for (std::size_t i = 0; i < tunings.size(); ++i) {
    char text[64];
    std::snprintf(text, sizeof text, "  %s: %.3f", text_of(knob.get(tunings[i])).c_str(), choice.relative[i]);
    each += text;
  }
  std::printf("%-24s %12s %12s %6.1f %%  %s\n", knob.name.c_str(), text_of(knob.get(now)).c_str(),
              text_of(knob.get(tunings[choice.best])).c_str(), 100 * (1 - choice.relative[choice.best]), each.c_str());
  bench::recommend(recommendation, knob.name, text_of(knob.get(tunings[choice.best])), choice);
  standard_output::flush();
}

void run(const std::vector<std::string>& names, int threads) {
  const Tuning& now = batchnorm::machine_tuning();
  const std::vector<Knob> all = knobs(now, threads);
  std::vector<Knob> chosen;
  std::string known;
  for (const Knob& knob : all) known.append(known.empty() ? "" : ", ").append(knob.name);
  for (const std::string& name : names) {
    const auto found = std::find_if(all.begin(), all.end(), [&](const Knob& knob) { return knob.name == name; });
    if (found == all.end()) throw std::invalid_argument("unknown number '" + name + "', known are " + known);
    chosen.push_back(*found);
  }
  std::printf("%-24s %12s %12s %8s  time by value, relative to today's\n", "number", "today", "best", "gain");
  std::string recommendation;
  for (const Knob& knob : names.empty() ? all : chosen) try_values(knob, now, recommendation);
  std::printf("A gain below %.0f %% is noise.\n", 100 * bench::least_gain);
  std::printf("%s\n", recommendation.empty() ? "Nothing else is recommended here." : recommendation.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  CLI::App app("Prints what this machine would prefer for the numbers in batchnorm/plan/tuning.hpp, each varied alone.");
  std::vector<std::string> names;
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  app.add_option("name", names, "the numbers to vary; by default all");
  app.add_option("--threads", threads, "how many where several matter; by default all processors")
      ->check(CLI::Range(1, batchnorm::ThreadTeam::max_concurrency));
  try {
    app.parse(argc, argv);
    run(names, threads);
  } catch (const CLI::Success& help) {
    return standard_output::finish("bench_tune", app.exit(help));
  } catch (const std::exception& error) {
    std::cerr << "bench_tune: " << error.what() << "\n";
    return 2;
  }
  return standard_output::finish("bench_tune", 0);
}
