// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "layer.hpp"
#include "matrix.hpp"

namespace network {

/// How well a batch was told apart.
struct Score {
  double loss = 0;           ///< mean over the batch
  std::int64_t correct = 0;  ///< examples whose largest logit is that of their class
};

/// The class of the largest logit of example n; the first of several.
template <class T>
std::int64_t predicted_class(const Tensor<T>& logits, std::int64_t n) {
  Eigen::Index best = 0;
  by_first_axis(logits).row(n).maxCoeff(&best);
  return best;
}

/// Softmax and cross entropy: loss = mean over n of log(sum over c of exp(z[n, c])) - z[n, label[n]], for logits z [N,
/// classes]. Its gradient, (softmax(z) - (c == label)) / N, goes to dlogits where that is not null.
template <class T>
Score softmax_cross_entropy(const Tensor<T>& logits, std::span<const std::uint8_t> labels, Tensor<T>* dlogits) {
  const auto z = by_first_axis(logits);
  if (dlogits != nullptr) reshape(*dlogits, logits.shape());
  Score score;
  for (Eigen::Index n = 0; n < z.rows(); ++n) {
    const Eigen::Index label = labels[static_cast<std::size_t>(n)];
    const T largest = z.row(n).maxCoeff();
    const T sum = (z.row(n).array() - largest).exp().sum();  // of numbers up to 1: no overflow
    score.loss += static_cast<double>(std::log(sum) - (z(n, label) - largest));
    if (predicted_class(logits, n) == label) ++score.correct;
    if (dlogits == nullptr) continue;
    auto gradient = by_first_axis(*dlogits).row(n);
    gradient = (z.row(n).array() - largest).exp() / (sum * static_cast<T>(z.rows()));
    gradient(label) -= T(1) / static_cast<T>(z.rows());
  }
  score.loss /= static_cast<double>(z.rows());
  return score;
}

}  // namespace network
