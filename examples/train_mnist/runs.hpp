// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "architectures.hpp"
#include "distribution.hpp"
#include "folding.hpp"

namespace train_mnist {

/// One measurement of a network on the test set, after some steps of training.
struct TestPoint {
  std::int64_t step;
  double accuracy;
};

/// What came of training one network.
struct Run {
  std::string network;
  Normalize normalize = Normalize::no;
  std::vector<TestPoint> test{};  ///< before the first step, regularly, and after the last
  double seconds_per_epoch = 0;
  DistributionHistory<float> last_sigmoid_inputs{};  ///< over the test set; only of the sigmoid network
  Agreement folded{};                                ///< only with batch normalization
};

inline std::string full_name(const Run& run) {
  return run.network + (run.normalize == Normalize::yes ? " with batch normalization" : " without batch normalization");
}

}  // namespace train_mnist
