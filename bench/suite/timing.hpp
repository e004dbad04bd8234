// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace bench {

using Call = std::function<void()>;

/// Seconds of one call, of many.
class Times {
 public:
  void add(double seconds) { seconds_.push_back(seconds); }
  std::size_t count() const { return seconds_.size(); }
  double median() const { return quantile(0.5); }
  /// From the 10th to the 90th percentile, relative to the median.
  double spread() const { return (quantile(0.9) - quantile(0.1)) / median(); }
  /// The time below which that share of all lies, between 0 and 1.
  double quantile(double share) const;

 private:
  std::vector<double> seconds_;
};

/// Candidates that share a pool of threads, or have none, take turns: at least 10 times, and 0.15 s each or 2000 times. A turn
/// is one call, of short ones as many as take 20 us, so that reading the clock does not count.
std::vector<Times> take_turns(const std::vector<Call>& candidates);

struct Pair {
  Times first, second;
};

/// Two candidates with pools of their own take turns. After each, its threads fall asleep before the other begins: two pools
/// that wait by spinning cost each other whole slices of the scheduler. A turn begins with calls that do not count, which wake
/// the threads. At least 10 times, of very slow candidates 3.
Pair take_turns_apart(const Call& first, double first_seconds_to_sleep, const Call& second, double second_seconds_to_sleep);

void sleep_for(double seconds);

}  // namespace bench
