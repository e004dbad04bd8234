// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/fingerprint.hpp"

// Fingerprints of the forward pass in pieces: moments, their merge, what follows from them, and normalize().
namespace {

using namespace support;
using namespace support::fingerprint;
using batchnorm::Moments;
using batchnorm::TensorView;

/// The moments of the whole batch, or those of two parts of it merged.
template <class T, class P>
Moments moments_of(const Problem<T, P>& p, std::int64_t cut, const batchnorm::CallOptions& call) {
  const TensorView<const T> x = p.view(p.x);
  if (cut == 0) return batchnorm::moments<T>(x, p.format, call);
  Moments moments = batchnorm::moments<T>(x.slice(0, 0, cut), p.format, call);
  batchnorm::merge(moments, batchnorm::moments<T>(x.slice(0, cut, p.shape[0] - cut), p.format, call));
  return moments;
}

/// Where to cut the batch; 0 means not at all.
template <class T, class P>
std::int64_t random_cut(Group& group, const Problem<T, P>& p) {
  return group.one_in(2) ? 0 : group.random().integer(0, p.shape[0] - 1);
}

template <class Both>
class FingerprintMoments : public testing::Test {};
TYPED_TEST_SUITE(FingerprintMoments, EveryElement, TypesNames);

TYPED_TEST(FingerprintMoments, AndWhatFollowsFromThemAreAsRecorded) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  check_groups<T, P>("moments", "finalize", [](Group& group, const Problem<T, P>& p) {
    const batchnorm::Options options = random_options(group.random(), true);
    const std::int64_t cut = random_cut(group, p);
    group.call(p.text + " " + text_of(options) + " cut at " + std::to_string(cut),
               [&](const batchnorm::CallOptions& call, Hash& hash) {
                 const Moments moments = moments_of(p, cut, call);
                 std::vector<P> mean = p.mean, variance = p.variance;
                 std::vector<P> batch_mean = p.blank_channels(), batch_variance = p.blank_channels();
                 batchnorm::finalize<P>(moments, options, {batch_mean, batch_variance, mean, variance}, call);
                 hash.add(moments);
                 hash.add(mean), hash.add(variance), hash.add(batch_mean), hash.add(batch_variance);
               });
  });
}

template <class T, class P, class E>
void check_normalize(const char* variant, const E& epilogue) {
  check_mixed_group<T, P>("normalize", variant, [&](Group& group, const Problem<T, P>& p) {
    const double epsilon = random_options(group.random(), false).epsilon;
    const std::int64_t cut = random_cut(group, p);
    const bool by_moments = group.one_in(2), in_place = group.one_in(3);
    const std::string text = p.text + " epsilon " + std::to_string(epsilon) + (in_place ? " in place" : "") +
                             (by_moments ? " by moments, cut at " + std::to_string(cut) : "");
    group.call(text, [&](const batchnorm::CallOptions& call, Hash& hash) {
      std::vector<T> y = in_place ? p.x : p.blank();
      const TensorView<T> to = p.view(y, in_place ? p.in : p.out);
      const TensorView<const T> x = in_place ? TensorView<const T>(to) : p.view(p.x);
      const TensorView<const P> scale(p.scale);
      if (by_moments) {
        batchnorm::normalize<T, P>(p.format, {.x = x, .scale = scale, .bias = p.bias}, moments_of(p, cut, call), epsilon, to,
                                   epilogue, call);
      } else {
        batchnorm::normalize<T, P>(
            p.format, {.x = x, .scale = scale, .bias = p.bias, .mean = p.mean, .variance = TensorView<const P>(p.variance)},
            epsilon, to, epilogue, call);
      }
      hash.add(y);
    });
  });
}

template <class Both>
class FingerprintNormalize : public testing::Test {};
TYPED_TEST_SUITE(FingerprintNormalize, EveryTypes, TypesNames);

TYPED_TEST(FingerprintNormalize, IsAsRecorded) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  check_normalize<T, P>("plain", batchnorm::Identity{});
  if constexpr (std::is_same_v<P, batchnorm::parameter_t<T>>) check_normalize<T, P>("leaky_relu", batchnorm::LeakyRelu{0.3});
}

}  // namespace
