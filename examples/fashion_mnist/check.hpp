// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fashion_mnist {

/// Compares what was found for each feature with what it should have been, and keeps the worst case of each.
class Check {
 public:
  struct Case {
    double deviation = 0;
    double allowed = 1;

    double ratio() const { return deviation / allowed; }
  };

  Check(std::string_view name, std::size_t features) : name_(name), worst_(features) {}

  /// `expected` is finite, `allowed` positive; what is not finite is infinitely wrong.
  void compare(std::size_t feature, double found, double expected, double allowed) {
    const double deviation = std::isfinite(found) ? std::abs(found - expected) : std::numeric_limits<double>::infinity();
    const Case now{deviation, allowed};
    if (now.ratio() >= worst_[feature].ratio()) worst_[feature] = now;
  }

  const std::string& name() const noexcept { return name_; }
  std::size_t features() const noexcept { return worst_.size(); }
  std::size_t features_within() const {
    return static_cast<std::size_t>(std::ranges::count_if(worst_, [](const Case& c) { return c.deviation <= c.allowed; }));
  }
  bool passed() const { return features_within() == features(); }
  std::size_t worst_feature() const {
    return static_cast<std::size_t>(std::ranges::max_element(worst_, {}, &Case::ratio) - worst_.begin());
  }
  const Case& worst() const { return worst_[worst_feature()]; }

 private:
  std::string name_;
  std::vector<Case> worst_;
};

}  // namespace fashion_mnist
