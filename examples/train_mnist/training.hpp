// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "../network/cross_entropy.hpp"
#include "../network/network.hpp"
#include "batches.hpp"

namespace train_mnist {

struct Schedule {
  std::int64_t steps = 0;
  std::int64_t batch_size = 60;
  double rate = 0.1;
  std::uint64_t seed = 1;
  /// Share of the steps, the last ones, in which the rate falls linearly to 0: without that, which network is ahead after the
  /// last step is partly luck.
  double decay = 0;
};

/// The learning rate of the next step.
inline double rate_after(const Schedule& schedule, std::int64_t steps_done) {
  const double decaying = schedule.decay * static_cast<double>(schedule.steps);
  const auto left = static_cast<double>(schedule.steps - steps_done);
  return left < decaying ? schedule.rate * left / decaying : schedule.rate;
}

/// Where training has come to.
struct Progress {
  std::int64_t step = 0;  ///< steps done
  double loss = 0;        ///< of the batches, a mean over about the last hundred
  double accuracy = 0;    ///< the same
};

/// Runs one step after the other and measures what they take.
template <class T>
class Training {
 public:
  Training(network::Network<T>& network, const Examples& examples, const Schedule& schedule)
      : network_(network), examples_(examples), schedule_(schedule), order_(examples.images.count, schedule.seed) {}

  /// Cuts the next batch, and moves the parameters against the gradient of its loss.
  void step() {
    const auto start = std::chrono::steady_clock::now();
    load(examples_, order_.next(schedule_.batch_size), batch_);
    const network::Tensor<T>& logits = network_.forward(batch_.x, network::Mode::training);
    const network::Score score = network::softmax_cross_entropy<T>(logits, batch_.labels, &dlogits_);
    network_.backward(batch_.x, dlogits_);
    network::descend(network_, rate_after(schedule_, progress_.step));
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    take_in(score);
  }

  const Progress& progress() const { return progress_; }

  /// Of training alone, in passing over as many examples as there are.
  double seconds_per_epoch() const {
    const auto seen = static_cast<double>(progress_.step) * static_cast<double>(batch_.labels.size());
    return seconds_ / seen * static_cast<double>(examples_.images.count);
  }

 private:
  void take_in(const network::Score& score) {
    ++progress_.step;
    const double weight = 1.0 / static_cast<double>(std::min<std::int64_t>(progress_.step, 100));
    const double accuracy = static_cast<double>(score.correct) / static_cast<double>(batch_.labels.size());
    progress_.loss += weight * (score.loss - progress_.loss);
    progress_.accuracy += weight * (accuracy - progress_.accuracy);
  }

  network::Network<T>& network_;
  const Examples& examples_;
  Schedule schedule_;
  Shuffled order_;
  Batch<T> batch_;
  network::Tensor<T> dlogits_;
  Progress progress_;
  double seconds_ = 0;
};

/// Share of the examples that are told right in inference. visit() is called after each batch, so that it can look into the
/// network.
template <class T, class Visit>
double accuracy(network::Network<T>& network, const Examples& examples, Visit visit) {
  std::int64_t correct = 0;
  for_each_batch<T>(examples, 100, [&](const Batch<T>& batch) {
    const network::Tensor<T>& logits = network.forward(batch.x, network::Mode::inference);
    correct += network::softmax_cross_entropy<T>(logits, batch.labels, nullptr).correct;
    visit();
  });
  return static_cast<double>(correct) / static_cast<double>(examples.images.count);
}

}  // namespace train_mnist
