// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace bench {

/// How several values of a number compare.
struct Choice {
  std::vector<double> relative;  ///< time of each value by that of today's: the geometric mean over the problems
  std::size_t best;              ///< the least of them; today's where none is less
};

/// times[p][i] is the time of value i in problem p, above 0. Without problems all values are alike.
inline Choice choose(const std::vector<std::vector<double>>& times, std::size_t values, std::size_t today) {
  Choice choice{std::vector<double>(values, 1.0), today};
  for (std::size_t i = 0; i < values; ++i) {
    double sum = 0;
    for (const std::vector<double>& problem : times) sum += std::log(problem[i] / problem[today]);
    if (!times.empty()) choice.relative[i] = std::exp(sum / static_cast<double>(times.size()));
  }
  for (std::size_t i = 0; i < values; ++i) {
    if (choice.relative[i] < choice.relative[choice.best]) choice.best = i;
  }
  return choice;
}

/// A value is recommended where it gains at least that much: less is noise.
inline constexpr double least_gain = 0.03;

/// Appends "name=value" to a recommendation as BATCHNORM_TUNING takes it, where the best value gains enough.
inline void recommend(std::string& line, const std::string& name, const std::string& value, const Choice& choice) {
  if (choice.relative[choice.best] > 1 - least_gain) return;
  line.append(line.empty() ? "BATCHNORM_TUNING=" : ",").append(name).append("=").append(value);
}

}  // namespace bench
