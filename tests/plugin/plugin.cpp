// SPDX-License-Identifier: MIT
#include <cstddef>
#include <vector>

#include <batchnorm/batchnorm.hpp>

// A shared library that makes calls on the default team (thread_plugin_test.cpp).

/// A training call on a constant x: 0 where y is the bias everywhere, as it must be, else 1; 2 for an exception.
extern "C" int plugin_train() noexcept try {
  const batchnorm::Shape shape{16, 32, 64};
  const std::vector<float> x(16 * 32 * 64, 3), scale(32, 2), bias(32, 0.5F);
  std::vector<float> mean(32), variance(32), y(x.size());
  batchnorm::batch_norm<float>(batchnorm::Format::NCHW, {.is_training = true}, {x.data(), shape}, scale, bias, mean, variance,
                               {.output_x = {y.data(), shape}});
  return y == std::vector<float>(y.size(), 0.5F) ? 0 : 1;
} catch (...) {
  return 2;
}

/// The threads of the library's default team.
extern "C" int plugin_concurrency() noexcept { return batchnorm::default_executor().concurrency(); }
