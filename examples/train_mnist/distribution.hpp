// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <vector>

#include "../network/layer.hpp"

namespace train_mnist {

/// The 15th, 50th and 85th percentile: the middle of a distribution, and about a deviation to either side of it.
using Percentiles = std::array<double, 3>;
inline constexpr Percentiles percents = {15, 50, 85};

/// Of at least one value: those of rank percent / 100 * (count - 1), rounded down.
template <class T>
Percentiles percentiles_of(std::vector<T> values) {
  Percentiles found{};
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto rank = static_cast<std::ptrdiff_t>(percents[i] / 100 * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), values.begin() + rank, values.end());
    found[i] = static_cast<double>(values[static_cast<std::size_t>(rank)]);
  }
  return found;
}

/// How the values of each unit of a layer are distributed over a set of examples, again and again while the network learns.
template <class T>
class DistributionHistory {
 public:
  struct Point {
    std::int64_t step;
    std::vector<Percentiles> units;
  };

  /// The values of a batch, [N, units].
  void take_in(const network::Tensor<T>& batch) {
    const auto units = static_cast<std::size_t>(batch.shape()[1]);
    values_.resize(units);
    for (std::int64_t i = 0; i < batch.size(); ++i) values_[static_cast<std::size_t>(i) % units].push_back(batch[i]);
  }

  /// Ends the set of examples.
  void finish(std::int64_t step) {
    Point point{step, {}};
    for (std::vector<T>& values : values_) {
      point.units.push_back(percentiles_of(values));
      values.clear();
    }
    points_.push_back(std::move(point));
  }

  const std::vector<Point>& points() const { return points_; }

  /// The unit whose distribution is, in the end, as wide as that of half of the units at most.
  std::size_t typical_unit() const {
    const std::vector<Percentiles>& last = points_.back().units;
    std::vector<std::size_t> order(last.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t unit) { return last[unit].back() - last[unit].front(); });
    return order[order.size() / 2];
  }

 private:
  std::vector<std::vector<T>> values_;  ///< of each unit
  std::vector<Point> points_;
};

}  // namespace train_mnist
