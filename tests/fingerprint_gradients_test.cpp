// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "support/activations.hpp"
#include "support/fingerprint.hpp"

// Fingerprints of gradients in pieces (gradient_sums, merge, input_gradient) and of double gradients.
namespace {

using namespace support;
using namespace support::fingerprint;
using batchnorm::GradientSums;
using batchnorm::Moments;
using batchnorm::TensorView;

/// Calls f(x, dy, z) with the images [begin, begin + count) of the batch.
template <class T, class P, class F>
auto with_images(const Problem<T, P>& p, std::int64_t begin, std::int64_t count, const F& f) {
  return f(p.view(p.x).slice(0, begin, count), p.view(p.dy).slice(0, begin, count), p.view(p.z).slice(0, begin, count));
}

/// The sums over two parts of the batch, the first of which may be empty, merged. sums_of(x, dy, z) gives those of one.
template <class T, class P, class SumsOf>
GradientSums merged_sums(const Problem<T, P>& p, std::int64_t cut, const SumsOf& sums_of) {
  GradientSums sums = with_images(p, 0, cut, sums_of);
  batchnorm::merge(sums, with_images(p, cut, p.shape[0] - cut, sums_of));
  return sums;
}

/// Adds to the group sums and the gradients that follow. through(y) makes what dy passes.
template <class T, class P, class Through>
void gradients_in_pieces(Group& group, const Problem<T, P>& p, const Through& through) {
  const double epsilon = random_options(group.random(), true).epsilon;
  const std::int64_t cut = group.random().integer(0, p.shape[0] - 1);
  const bool by_moments = group.one_in(2), has_scale = !group.one_in(4), wants_dresidual = group.one_in(3);
  const std::string text = p.text + " epsilon " + std::to_string(epsilon) + " cut at " + std::to_string(cut) +
                           (by_moments ? " by moments" : "") + (has_scale ? "" : " no scale") +
                           (wants_dresidual ? " dresidual" : "");
  group.call(text, [&](const batchnorm::CallOptions& call, Hash& hash) {
    std::vector<T> dx = p.blank(), dresidual = p.blank();
    std::vector<P> dscale = p.blank_channels(), dbias = p.blank_channels();
    batchnorm::GradientViews<T, P> out{p.view(dx, p.out), dscale, dbias};
    if (wants_dresidual) out.dresidual = p.view(dresidual, p.out);
    const TensorView<const P> mean(p.mean), scale = has_scale ? TensorView<const P>(p.scale) : TensorView<const P>();
    const TensorView<const T> x = p.view(p.x), dy = p.view(p.dy);
    if (by_moments) {
      const Moments moments = batchnorm::moments<T>(x, p.format, call);
      const GradientSums sums = merged_sums(p, cut, [&](const auto& some_x, const auto& some_dy, const auto& y) {
        return batchnorm::gradient_sums<T>(p.format, {.dy = some_dy, .x = some_x}, moments, through(y), call);
      });
      batchnorm::input_gradient<T, P>(p.format, {.dy = dy, .x = x, .scale = scale}, sums, moments, epsilon, out,
                                      through(p.view(p.z)), call);
      hash.add(sums);
    } else {
      const GradientSums sums = merged_sums(p, cut, [&](const auto& some_x, const auto& some_dy, const auto& y) {
        return batchnorm::gradient_sums<T, P>(p.format, {.dy = some_dy, .x = some_x, .mean = mean}, through(y), call);
      });
      batchnorm::input_gradient<T, P>(p.format, {.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = p.variance}, sums,
                                      epsilon, out, through(p.view(p.z)), call);
      hash.add(sums);
    }
    hash.add(dx), hash.add(dresidual), hash.add(dscale), hash.add(dbias);
  });
}

template <class Both>
class FingerprintGradients : public testing::Test {};
TYPED_TEST_SUITE(FingerprintGradients, EveryTypes, TypesNames);

TYPED_TEST(FingerprintGradients, InPiecesAreAsRecorded) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  check_mixed_group<T, P>("gradients_in_pieces", "plain", [](Group& group, const Problem<T, P>& p) {
    gradients_in_pieces(group, p, [](const auto&) { return batchnorm::Identity{}; });
  });
  if constexpr (std::is_same_v<P, batchnorm::parameter_t<T>>) {
    check_mixed_group<T, P>("gradients_in_pieces", "output", [](Group& group, const Problem<T, P>& p) {
      gradients_in_pieces(group, p, [](const TensorView<const T>& y) { return ThroughReluOutput<T>{y}; });
    });
  }
}

/// Adds to the group a double gradient, of which any argument but x and dy and any result but one may be absent.
template <class T, class P>
void double_gradient(Group& group, const Problem<T, P>& p, bool is_training) {
  const batchnorm::Options options = random_options(group.random(), is_training);
  const bool has_ddx = !group.one_in(4), has_scale = !group.one_in(4), has_ddscale = !group.one_in(4);
  const bool has_ddbias = !group.one_in(4), wants_dx = !group.one_in(4), wants_ddy = !group.one_in(4);
  const bool wants_dscale = (!wants_dx && !wants_ddy) || !group.one_in(4);
  const std::string text = p.text + " " + text_of(options) + (has_ddx ? " ddx" : "") + (has_scale ? " scale" : "") +
                           (has_ddscale ? " ddscale" : "") + (has_ddbias ? " ddbias" : "") + " to" + (wants_dx ? " dx" : "") +
                           (wants_ddy ? " ddy" : "") + (wants_dscale ? " dscale" : "");
  group.call(text, [&](const batchnorm::CallOptions& call, Hash& hash) {
    std::vector<T> dx = p.blank(), ddy = p.blank();
    std::vector<P> dscale = p.blank_channels();
    batchnorm::DoubleGradientViews<T, P> out;
    if (wants_dx) out.dx = p.view(dx, p.out);
    if (wants_ddy) out.ddy = p.view(ddy, p.out);
    if (wants_dscale) out.dscale = dscale;
    const std::vector<P> ddscale = p.bias, ddbias(p.mean.rbegin(), p.mean.rend());
    const auto if_given = [](bool is_given, const std::vector<P>& values) {
      return is_given ? TensorView<const P>(values) : TensorView<const P>();
    };
    batchnorm::batch_norm_double_backward<T, P>(p.format, options,
                                                {.dy = p.view(p.dy),
                                                 .x = p.view(p.x),
                                                 .scale = if_given(has_scale, p.scale),
                                                 .mean = p.mean,
                                                 .variance = p.variance,
                                                 .ddx = has_ddx ? p.view(p.z) : TensorView<const T>(),
                                                 .ddscale = if_given(has_ddscale, ddscale),
                                                 .ddbias = if_given(has_ddbias, ddbias)},
                                                out, call);
    hash.add(dx), hash.add(ddy), hash.add(dscale);
  });
}

template <class Both>
class FingerprintDoubleBackward : public testing::Test {};
TYPED_TEST_SUITE(FingerprintDoubleBackward, EveryTypes, TypesNames);

TYPED_TEST(FingerprintDoubleBackward, IsAsRecorded) {
  using T = typename TypeParam::T;
  using P = typename TypeParam::P;
  check_groups<T, P>("double_backward", "training",
                     [](Group& group, const Problem<T, P>& p) { double_gradient(group, p, true); });
  check_mixed_group<T, P>("double_backward", "inference",
                          [](Group& group, const Problem<T, P>& p) { double_gradient(group, p, false); });
}

}  // namespace
