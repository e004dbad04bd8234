// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include <batchnorm/fold.hpp>

#include "../network/batch_normalization.hpp"
#include "../network/cross_entropy.hpp"
#include "../network/network.hpp"
#include "../network/weighted.hpp"
#include "batches.hpp"

namespace train_mnist {

/// A copy for inference in which every weighted layer does the work of the batch normalization that follows it.
template <class T>
network::Network<T> folded(const network::Network<T>& from) {
  network::Network<T> to;
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::unique_ptr<network::Layer<T>> layer = from.layer(i).clone();
    auto* const weighted = dynamic_cast<network::Weighted<T>*>(layer.get());
    const auto* const next = i + 1 < from.size() ? dynamic_cast<const network::Normalization<T>*>(&from.layer(i + 1)) : nullptr;
    if (weighted == nullptr || next == nullptr) {
      to.add(std::move(layer));
      continue;
    }
    const auto& [scale, bias, mean, variance, batches] = next->learnt();
    weighted->fold(
        batchnorm::affine_map<T>({.scale = scale, .bias = bias, .mean = mean, .variance = variance}, next->epsilon()));
    to.add(std::move(layer));
    if (std::unique_ptr<network::Layer<T>> activation = next->activation()) to.add(std::move(activation));
    ++i;
  }
  return to;
}

/// How two networks agree on a set of examples.
struct Agreement {
  std::int64_t examples = 0;
  std::int64_t same = 0;          ///< predictions that are the same
  std::int64_t ties = 0;          ///< others, where both networks give both classes nearly the same logit
  double largest_difference = 0;  ///< of a logit of one network and the same of the other

  /// Logits that differ by no more, relative to the largest of the example, are nearly the same: a hundred roundings of float.
  static constexpr double tie = 1e-5;

  bool complete() const { return same + ties == examples; }
};

/// Whether logits a and b of an example are nearly the same.
template <class Logits>
bool is_tie(const Logits& logits, std::int64_t a, std::int64_t b) {
  return static_cast<double>(std::abs(logits(a) - logits(b))) <=
         Agreement::tie * static_cast<double>(logits.cwiseAbs().maxCoeff());
}

template <class T>
Agreement compare(network::Network<T>& one, network::Network<T>& other, const Examples& examples) {
  Agreement agreement;
  for_each_batch<T>(examples, 100, [&](const Batch<T>& batch) {
    const network::Tensor<T>& z_one = one.forward(batch.x, network::Mode::inference);
    const network::Tensor<T>& z_other = other.forward(batch.x, network::Mode::inference);
    const auto rows_one = network::by_first_axis(z_one);
    const auto rows_other = network::by_first_axis(z_other);
    const auto difference = (rows_one - rows_other).cwiseAbs().maxCoeff();
    agreement.largest_difference = std::max(agreement.largest_difference, static_cast<double>(difference));
    agreement.examples += rows_one.rows();
    for (std::int64_t n = 0; n < rows_one.rows(); ++n) {
      const std::int64_t a = network::predicted_class(z_one, n);
      const std::int64_t b = network::predicted_class(z_other, n);
      if (a == b) {
        ++agreement.same;
      } else if (is_tie(rows_one.row(n), a, b) && is_tie(rows_other.row(n), a, b)) {
        ++agreement.ties;
      }
    }
  });
  return agreement;
}

}  // namespace train_mnist
