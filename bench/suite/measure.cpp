// SPDX-License-Identifier: MIT
#include "measure.hpp"

#include <algorithm>
#include <memory>

#include <batchnorm/thread_team.hpp>

#include "compare.hpp"
#include "copy.hpp"
#include "names.hpp"
#include "timing.hpp"
#include "workload.hpp"

namespace bench {
namespace {

// A thread of the library's team spins for 30 us before it sleeps.
constexpr double team_seconds_to_sleep = 200e-6;

std::int64_t bytes_of_x(const Problem& problem) { return problem.elements() * bytes_of(problem.type); }

Range range_of(const Times& times, const Times& copy) {
  return {times.quantile(0.1) / copy.median(), times.quantile(0.9) / copy.median()};
}

std::vector<RivalResult> measure_rivals(const Problem& problem, Workload& workload, const Call& copying) {
  const Buffers buffers = workload.buffers();
  const double own_seconds_to_sleep = problem.threads > 1 ? team_seconds_to_sleep : 0;
  workload.run();
  const ResultCopy own(problem, buffers);
  sleep_for(own_seconds_to_sleep);
  std::vector<RivalResult> results;
  double seconds_to_sleep = 0;
  for (const std::unique_ptr<Rival>& rival : rivals_of(problem, buffers)) {
    sleep_for(seconds_to_sleep);
    seconds_to_sleep = rival->seconds_to_sleep();
    RivalResult& result = results.emplace_back(RivalResult{rival->name(), rival->implementation()});
    rival->run();
    result.differs = rival->has_plain_result() && !own.is_close_to(buffers);
    sleep_for(seconds_to_sleep);
    const Pair times = take_turns_apart(
        copying, own_seconds_to_sleep, [&] { rival->run(); }, seconds_to_sleep);
    result.ratio_to_copy = times.second.median() / times.first.median();
    result.range = range_of(times.second, times.first);
  }
  sleep_for(seconds_to_sleep);
  return results;
}

}  // namespace

double Result::ratio_per_byte() const { return ratio_to_copy() * 2 / tensors_moved(row.problem.operation, row.problem.type); }

double Result::GB_per_s() const {
  const Problem& problem = row.problem;
  return tensors_moved(problem.operation, problem.type) * static_cast<double>(bytes_of_x(problem)) * 1e-3 / median_us;
}

std::string name_of(const Row& row) {
  const Problem& problem = row.problem;
  std::string name(name_of(problem.operation));
  name.append("/").append(name_of(problem.layout)).append("/").append(name_of(problem.type)).append("/");
  name.append(name_of(problem.extents)).append("/").append(to_string(row.isa));
  return name.append("/threads:").append(std::to_string(problem.threads));
}

Result measure(const Row& row, bool with_rivals) {
  Result result{.row = row};
  const Problem& problem = row.problem;
  batchnorm::force_isa(row.isa);
  batchnorm::ThreadTeam team(problem.threads);
  const std::unique_ptr<Workload> workload = make_workload(problem, team);
  result.error = workload->check();
  if (!result.error.empty()) return result;
  const Buffers buffers = workload->buffers();
  const Call copying = [&] { copy(team, buffers.y, buffers.x, bytes_of_x(problem)); };
  const std::vector<Times> times = take_turns({copying, [&] { workload->run(); }});
  result.copy_us = times[0].median() * 1e6;
  result.median_us = times[1].median() * 1e6;
  result.spread = times[1].spread();
  result.range = range_of(times[1], times[0]);
  if (with_rivals) result.rivals = measure_rivals(problem, *workload, copying);
  return result;
}

}  // namespace bench
