// SPDX-License-Identifier: MIT
#include "timing.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

namespace bench {
namespace {

double seconds_of(const Call& call, int calls) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / calls;
}

/// Warms up, and returns how long a call takes: short ones are called until the processor has found its frequency.
double warm_seconds_of(const Call& call) {
  double shortest = seconds_of(call, 1), total = shortest;
  for (int i = 0; i < 1000 && total < 5e-3; ++i) {
    const double seconds = seconds_of(call, 1);
    shortest = std::min(shortest, seconds), total += seconds;
  }
  return shortest;
}

int calls_of_a_turn(double seconds) {
  constexpr double turn = 20e-6;
  return static_cast<int>(std::clamp(std::ceil(turn / std::max(seconds, 1e-9)), 1.0, 1000.0));
}

}  // namespace

double Times::quantile(double share) const {
  std::vector<double> values = seconds_;
  std::sort(values.begin(), values.end());
  const double position = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (position - static_cast<double>(below)) * (values[above] - values[below]);
}

void sleep_for(double seconds) {
  if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

std::vector<Times> take_turns(const std::vector<Call>& candidates) {
  constexpr std::size_t least_turns = 10, most_turns = 2000;
  constexpr double least_seconds_each = 0.15, long_call = 10e-3;
  const double least_seconds = least_seconds_each * static_cast<double>(candidates.size());
  const double long_turn = long_call * static_cast<double>(candidates.size());
  std::vector<Times> times(candidates.size());
  double total = 0;
  bool are_short = false;
  const auto turn = [&](int calls) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      // The first call of a turn finds the caches as the other candidate left them: the copy leaves no y.
      if (are_short) candidates[i]();
      const double seconds = seconds_of(candidates[i], calls);
      times[i].add(seconds);
      total += seconds * calls;
    }
  };
  turn(1);
  int calls = 1;
  if (total < long_turn) {  // what takes longer needs no warming up
    are_short = true;
    times.assign(candidates.size(), {});
    double shortest = total;
    for (const Call& candidate : candidates) shortest = std::min(shortest, warm_seconds_of(candidate));
    calls = calls_of_a_turn(shortest);
    total = 0;
  }
  while (times[0].count() < least_turns || (total < least_seconds && times[0].count() < most_turns)) turn(calls);
  return times;
}

Pair take_turns_apart(const Call& first, double first_seconds_to_sleep, const Call& second, double second_seconds_to_sleep) {
  constexpr std::size_t least = 10, least_of_slow_ones = 3, most = 500, in_a_row = 5;
  constexpr double least_seconds = 0.4, patience = 4, longest_turn = 0.1;
  const auto turn = [](const Call& call, Times& to, double seconds_to_sleep) {
    call();
    const double alone = seconds_of(call, 1);
    const int calls = calls_of_a_turn(alone);
    double total = 0;
    for (std::size_t i = 0; i == 0 || (i < in_a_row && total < longest_turn); ++i) {
      const double seconds = seconds_of(call, calls);
      to.add(seconds);
      total += seconds * calls;
    }
    sleep_for(seconds_to_sleep);
    return total + alone;
  };
  Pair times;
  double total = 0;
  const auto turns_enough = [&] {
    const std::size_t count = std::min(times.first.count(), times.second.count());
    if (total > patience) return count >= least_of_slow_ones;
    return count >= least && (total >= least_seconds || count >= most);
  };
  while (!turns_enough()) {
    total += turn(first, times.first, first_seconds_to_sleep);
    total += turn(second, times.second, second_seconds_to_sleep);
  }
  return times;
}

}  // namespace bench
