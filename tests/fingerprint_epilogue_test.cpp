// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/fingerprint_forward.hpp"

// Fingerprints of what no program has compiled beforehand: an epilogue of the caller's own, and y in place of x in the form
// that gradients undo. For float alone: each type takes the compiler half a minute.
namespace {

using namespace support;
using namespace support::fingerprint;
using batchnorm::TensorView;

TEST(FingerprintEpilogue, OfTheCallersOwnIsAsRecorded) {
  check_groups<float, float>("forward", "lambda", [](Group& group, const Problem<float, float>& p) {
    const float factor = group.one_in(2) ? 0.5F : -1.25F;
    const auto square = [factor](const auto& z) {
      using V = std::remove_cvref_t<decltype(z)>;
      return z * z * V::broadcast(static_cast<typename V::scalar>(factor));
    };
    forward(group, p, random_choice(group, group.one_in(2), false), [&](const auto&) { return square; });
  });
}

template <Format F>
void train_in_place(Group& group, const Problem<float, float>& p) {
  const batchnorm::Options options = random_options(group.random(), true);
  const batchnorm::LeakyRelu activation{group.one_in(2) ? 0.01 : 1.0};
  const batchnorm::InPlaceBatchNorm<float, F> layer(options, activation);
  const bool has_running = !group.one_in(3);
  const std::string text = p.text + " " + text_of(layer.options()) + (has_running ? "" : " no running statistics");
  group.call(text, [&](const batchnorm::CallOptions& call, Hash& hash) {
    std::vector<float> y = p.x, mean = p.mean, variance = p.variance;
    std::vector<float> batch_mean = p.blank_channels(), batch_variance = p.blank_channels();
    layer.forward({.x = p.view(y, p.in),
                   .scale = p.scale,
                   .bias = p.bias,
                   .mean = has_running ? TensorView<float>(mean) : TensorView<float>(),
                   .variance = has_running ? TensorView<float>(variance) : TensorView<float>(),
                   .batch_mean = batch_mean,
                   .batch_variance = batch_variance},
                  call);
    hash.add(y), hash.add(mean), hash.add(variance), hash.add(batch_mean), hash.add(batch_variance);
  });
}

TEST(FingerprintInPlaceForward, IsAsRecorded) {
  check_groups<float, float>("forward_in_place", "leaky_relu", [](Group& group, const Problem<float, float>& p) {
    if (p.format == Format::NCHW) {
      train_in_place<Format::NCHW>(group, p);
    } else {
      train_in_place<Format::NHWC>(group, p);
    }
  });
}

}  // namespace
