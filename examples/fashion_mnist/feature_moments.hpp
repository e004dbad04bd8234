// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace fashion_mnist {

/// Mean and variance of each feature of a table, in double, by nothing but the definition: what the examples compare the
/// library's results with, so it shares no code with the library.
class FeatureMoments {
 public:
  explicit FeatureMoments(std::size_t features) : mean_(features), squares_(features) {}

  /// The moments of values[row][feature].
  FeatureMoments(std::size_t features, std::span<const float> values) : FeatureMoments(features) {
    count_ = static_cast<double>(values.size() / features);
    for_each_row(values, [this](std::size_t f, double value) { mean_[f] += value; });
    for (double& mean : mean_) mean /= count_;
    for_each_row(values, [this](std::size_t f, double value) { squares_[f] += (value - mean_[f]) * (value - mean_[f]); });
  }

  /// Takes in further rows:
  ///   d = other.mean - mean, mean += d * (other.count / total), squares += other.squares + d^2 * (count * other.count / total)
  void merge(const FeatureMoments& other) {
    const double total = count_ + other.count_;
    for (std::size_t f = 0; f < features(); ++f) {
      const double d = other.mean_[f] - mean_[f];
      mean_[f] += d * (other.count_ / total);
      squares_[f] += other.squares_[f] + d * d * (count_ * other.count_ / total);
    }
    count_ = total;
  }

  std::size_t features() const noexcept { return mean_.size(); }
  double count() const noexcept { return count_; }
  double mean(std::size_t f) const { return mean_[f]; }

  /// Divided by the number of rows.
  double variance(std::size_t f) const { return squares_[f] / count_; }

  /// Divided by one less (by 1 where there is one row), as the running variance of the library has it.
  double unbiased_variance(std::size_t f) const { return squares_[f] / std::max(count_ - 1, 1.0); }

 private:
  template <class Function>
  void for_each_row(std::span<const float> values, Function take) const {
    for (std::size_t first = 0; first < values.size(); first += features()) {
      for (std::size_t f = 0; f < features(); ++f) take(f, static_cast<double>(values[first + f]));
    }
  }

  double count_ = 0;
  std::vector<double> mean_;
  std::vector<double> squares_;
};

}  // namespace fashion_mnist
