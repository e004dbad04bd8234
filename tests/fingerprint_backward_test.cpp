// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/activations.hpp"
#include "support/fingerprint.hpp"

// Fingerprints of gradients: support/fingerprint.hpp says what they are and what to do when one differs.
namespace {

using namespace support;
using namespace support::fingerprint;
using batchnorm::LeakyRelu;
using batchnorm::Relu;
using batchnorm::TensorView;

/// What a gradient is asked for.
struct Choice {
  batchnorm::Options options{};
  bool dx, dscale, dbias, dresidual;
  bool has_scale;
  bool in_place;  ///< dx, or dresidual where there is no dx, in place of dy

  std::string text() const {
    return text_of(options) + (dx ? " dx" : "") + (dscale ? " dscale" : "") + (dbias ? " dbias" : "") +
           (dresidual ? " dresidual" : "") + (has_scale ? "" : " no scale") + (in_place ? " in place" : "");
  }
};

Choice random_choice(Group& group, bool is_training) {
  Choice choice{random_options(group.random(), is_training),
                !group.one_in(6),
                !group.one_in(4),
                !group.one_in(4),
                group.one_in(3),
                !group.one_in(5),
                group.one_in(3)};
  if (!choice.dx && !choice.dresidual) choice.dscale = true, choice.in_place = false;
  return choice;
}

/// Adds to the group a gradient: differentiate(dy, given scale, out, call) computes it.
template <class T, class P, class Differentiate>
void gradient(Group& group, const Problem<T, P>& p, const Choice& choice, const std::string& text,
              const Differentiate& differentiate) {
  group.call(p.text + " " + choice.text() + text, [&](const batchnorm::CallOptions& call, Hash& hash) {
    const bool replaces_by_dx = choice.in_place && choice.dx;
    const bool replaces_by_dresidual = choice.in_place && !choice.dx && choice.dresidual;
    std::vector<T> dx = replaces_by_dx ? p.dy : p.blank(), dresidual = replaces_by_dresidual ? p.dy : p.blank();
    std::vector<P> dscale = p.blank_channels(), dbias = p.blank_channels();
    batchnorm::GradientViews<T, P> out;
    if (choice.dx) out.dx = p.view(dx, replaces_by_dx ? p.in : p.out);
    if (choice.dresidual) out.dresidual = p.view(dresidual, replaces_by_dresidual ? p.in : p.out);
    if (choice.dscale) out.dscale = dscale;
    if (choice.dbias) out.dbias = dbias;
    const TensorView<const T> dy = replaces_by_dx          ? TensorView<const T>(out.dx)
                                   : replaces_by_dresidual ? TensorView<const T>(out.dresidual)
                                                           : p.view(p.dy);
    differentiate(dy, choice.has_scale ? TensorView<const P>(p.scale) : TensorView<const P>(), out, call);
    hash.add(dx), hash.add(dresidual), hash.add(dscale), hash.add(dbias);
  });
}

template <class T, class P, class G>
void backward(Group& group, const Problem<T, P>& p, bool is_training, const std::string& text, const G& through) {
  const Choice choice = random_choice(group, is_training);
  gradient(group, p, choice, text, [&](const auto& dy, const auto& scale, const auto& out, const auto& call) {
    batchnorm::batch_norm_backward<T, P>(p.format, choice.options, dy, p.view(p.x), scale, p.mean, p.variance, out, through,
                                         call);
  });
}

template <class T, class P>
void check_plain(bool is_training, const char* operation) {
  check_groups<T, P>(operation, "plain",
                     [&](Group& group, const Problem<T, P>& p) { backward(group, p, is_training, "", batchnorm::Identity{}); });
}

template <class Both>
class FingerprintBackward : public testing::Test {};
TYPED_TEST_SUITE(FingerprintBackward, EveryTypes, TypesNames);

TYPED_TEST(FingerprintBackward, InTrainingIsAsRecorded) {
  check_plain<typename TypeParam::T, typename TypeParam::P>(true, "backward_training");
}

TYPED_TEST(FingerprintBackward, InInferenceIsAsRecorded) {
  check_plain<typename TypeParam::T, typename TypeParam::P>(false, "backward_inference");
}

template <class T>
class FingerprintBackwardThrough : public testing::Test {};
TYPED_TEST_SUITE(FingerprintBackwardThrough, Elements, ElementNames);

TYPED_TEST(FingerprintBackwardThrough, AMaskIsAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_groups<T, P>("backward", "mask", [](Group& group, const Problem<T, P>& p) {
    const bool is_training = !group.one_in(3);
    if (group.one_in(2)) {
      backward(group, p, is_training, " relu", ThroughReluMask{p.mask});
    } else {
      backward(group, p, is_training, " leaky relu", ThroughLeakyMask{p.mask, {0.1}});
    }
  });
}

TYPED_TEST(FingerprintBackwardThrough, TheOutputIsAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_groups<T, P>("backward", "output", [](Group& group, const Problem<T, P>& p) {
    const bool is_training = !group.one_in(3);
    if (group.one_in(2)) {
      backward(group, p, is_training, " relu", ThroughReluOutput<T>{p.view(p.z)});
    } else {
      backward(group, p, is_training, " leaky relu", ThroughLeakyOutput<T>{p.view(p.z), {0.1}});
    }
  });
}

template <Format F, class T, class P>
void backward_in_place(Group& group, const Problem<T, P>& p) {
  constexpr double slopes[] = {0.01, 0.25, 1};
  const Choice choice = random_choice(group, true);
  const double slope = slopes[group.random().integer(0, 2)];
  const batchnorm::InPlaceBatchNorm<T, F, P> layer(choice.options, {slope});
  // |bias| is at most 1, which an absent scale, 1, can undo.
  gradient(group, p, choice, " slope " + std::to_string(slope),
           [&](const auto& dy, const auto& scale, const auto& out, const auto& call) {
             layer.backward({.dy = dy, .y = p.view(p.z), .scale = scale, .bias = p.bias, .variance = p.variance}, out, call);
           });
}

TYPED_TEST(FingerprintBackwardThrough, AnOutputThatIsUndoneIsAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_groups<T, P>("backward", "inverse", [](Group& group, const Problem<T, P>& p) {
    if (p.format == Format::NCHW) {
      backward_in_place<Format::NCHW>(group, p);
    } else {
      backward_in_place<Format::NHWC>(group, p);
    }
  });
}

// NaN and infinity in a channel of their own. Whether a result is NaN is part of the hash, its sign and payload are not.
TYPED_TEST(FingerprintBackwardThrough, ValuesThatAreNotFiniteAreAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_mixed_group<T, P>("backward", "not_finite", [](Group& group, Problem<T, P> p) {
    const bool is_training = !group.one_in(3);
    set_one(p, group.random().integer(0, p.channels() - 1), element<T>(std::numeric_limits<double>::quiet_NaN()));
    std::swap(p.x, p.dy);
    set_one(p, group.random().integer(0, p.channels() - 1), element<T>(std::numeric_limits<double>::infinity()));
    std::swap(p.x, p.dy);
    if (group.one_in(2)) {
      backward(group, p, is_training, " relu", ThroughReluMask{p.mask});
    } else {
      backward(group, p, is_training, "", batchnorm::Identity{});
    }
  });
}

}  // namespace
