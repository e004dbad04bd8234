// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <batchnorm/mpi.hpp>

#include "../network/cross_entropy.hpp"
#include "../network/network.hpp"
#include "../train_mnist/batches.hpp"

namespace mpi_training {

/// The ranks that share the work.
struct Ranks {
  MPI_Comm communicator;
  int rank = 0, count = 1;

  explicit Ranks(MPI_Comm group) : communicator(group) {
    MPI_Comm_rank(group, &rank);
    MPI_Comm_size(group, &count);
  }

  /// This rank's share of a batch; shares differ by one at most.
  std::span<const std::int64_t> share(std::span<const std::int64_t> batch) const {
    const auto border = [&](int r) { return batch.size() * static_cast<std::size_t>(r) / static_cast<std::size_t>(count); };
    return batch.subspan(border(rank), border(rank + 1) - border(rank));
  }

  void sum(std::span<double> values) const {
    MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM, communicator);
  }
};

/// Training by several ranks: each carries its share of the batch through its own copy of the network, the gradients are
/// summed, and all copies take the same step.
class DataParallel {
 public:
  DataParallel(network::Network<double>& network, const Ranks& ranks) : network_(network), ranks_(ranks) {
    std::size_t size = 0;
    for (const auto& parameter : network.parameters()) size += parameter.gradient.size();
    gradient_.resize(size);
  }

  /// One step; returns the loss, a mean over the whole batch.
  double step(const train_mnist::Examples& examples, std::span<const std::int64_t> batch, double rate) {
    const auto own = ranks_.share(batch);
    load(examples, own, batch_);
    const network::Tensor<double>& logits = network_.forward(batch_.x, network::Mode::training);
    const network::Score score = network::softmax_cross_entropy<double>(logits, batch_.labels, &dlogits_);
    // Of the mean over this share, turned into the share of the mean over all.
    const double share = static_cast<double>(own.size()) / static_cast<double>(batch.size());
    for (double& gradient : dlogits_) gradient *= share;
    network_.backward(batch_.x, dlogits_);
    descend(rate);
    double loss = score.loss * share;
    ranks_.sum({&loss, 1});
    return loss;
  }

 private:
  /// parameter -= rate * the sum of its gradients, by one message.
  void descend(double rate) {
    const auto parameters = network_.parameters();
    auto next = gradient_.begin();
    for (const auto& parameter : parameters) next = std::copy(parameter.gradient.begin(), parameter.gradient.end(), next);
    ranks_.sum(gradient_);
    auto gradient = gradient_.cbegin();
    for (const auto& parameter : parameters) {
      for (double& value : parameter.values) value -= rate * *gradient++;
    }
  }

  network::Network<double>& network_;
  Ranks ranks_;
  train_mnist::Batch<double> batch_;
  network::Tensor<double> dlogits_;
  std::vector<double> gradient_;
};

/// The largest difference between the parameters of two networks, as a share of the largest parameter of its kind.
inline double difference(network::Network<double>& a, network::Network<double>& b) {
  const auto of_a = a.parameters(), of_b = b.parameters();
  double worst = 0;
  for (std::size_t p = 0; p < of_a.size(); ++p) {
    double largest = 0, apart = 0;
    for (std::size_t i = 0; i < of_a[p].values.size(); ++i) {
      largest = std::max(largest, std::abs(of_b[p].values[i]));
      apart = std::max(apart, std::abs(of_a[p].values[i] - of_b[p].values[i]));
    }
    if (largest > 0) worst = std::max(worst, apart / largest);
  }
  return worst;
}

}  // namespace mpi_training
