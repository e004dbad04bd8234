// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>

#include "support/fingerprint_forward.hpp"

// Fingerprints of the operator itself: support/fingerprint.hpp says what they are and what to do when one differs.
namespace {

using namespace support;
using namespace support::fingerprint;
using batchnorm::AddResidual;
using batchnorm::LeakyRelu;
using batchnorm::Relu;
using batchnorm::TensorView;

constexpr auto identity = [](const auto&) { return batchnorm::Identity{}; };
constexpr auto relu = [](const auto&) { return Relu{}; };

template <class T, class P>
void check_plain(bool is_training, const char* operation) {
  check_groups<T, P>(operation, "plain", [&](Group& group, const Problem<T, P>& p) {
    forward(group, p, random_choice(group, is_training, false), identity);
  });
}

template <class Both>
class FingerprintForward : public testing::Test {};
TYPED_TEST_SUITE(FingerprintForward, EveryTypes, TypesNames);

TYPED_TEST(FingerprintForward, TrainingIsAsRecorded) {
  check_plain<typename TypeParam::T, typename TypeParam::P>(true, "training");
}

TYPED_TEST(FingerprintForward, InferenceIsAsRecorded) {
  check_plain<typename TypeParam::T, typename TypeParam::P>(false, "inference");
}

template <class T>
class FingerprintActivation : public testing::Test {};
TYPED_TEST_SUITE(FingerprintActivation, Elements, ElementNames);

TYPED_TEST(FingerprintActivation, ReluIsAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_groups<T, P>("forward", "relu", [](Group& group, const Problem<T, P>& p) {
    forward(group, p, random_choice(group, group.one_in(2), true), relu);
  });
}

TYPED_TEST(FingerprintActivation, ResidualIsAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_groups<T, P>("forward", "residual", [](Group& group, const Problem<T, P>& p) {
    if (group.one_in(2)) {
      forward(group, p, random_choice(group, group.one_in(2), false, true),
              [](const TensorView<const T>& residual) { return AddResidual<T>{residual}; });
    } else {
      forward(group, p, random_choice(group, group.one_in(2), true, true),
              [](const TensorView<const T>& residual) { return AddResidual<T, Relu>{residual}; });
    }
  });
}

TYPED_TEST(FingerprintActivation, ResidualToLeakyReluIsAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_groups<T, P>("forward", "residual_leaky_relu", [](Group& group, const Problem<T, P>& p) {
    const LeakyRelu activation{group.one_in(3) ? 0.0 : 0.1};
    forward(group, p, random_choice(group, group.one_in(2), true, true), [&](const TensorView<const T>& residual) {
      return AddResidual<T, LeakyRelu>{residual, activation};
    });
  });
}

// NaN and infinity in a channel of their own. Whether a result is NaN is part of the hash, its sign and payload are not.
TYPED_TEST(FingerprintActivation, ValuesThatAreNotFiniteAreAsRecorded) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  check_mixed_group<T, P>("forward", "not_finite", [](Group& group, Problem<T, P> p) {
    const bool is_training = !group.one_in(3);
    set_one(p, group.random().integer(0, p.channels() - 1), element<T>(std::numeric_limits<double>::quiet_NaN()));
    set_one(p, group.random().integer(0, p.channels() - 1), element<T>(std::numeric_limits<double>::infinity()));
    if (group.one_in(2)) {
      forward(group, p, random_choice(group, is_training, true), relu);
    } else {
      forward(group, p, random_choice(group, is_training, false), identity);
    }
  });
}

}  // namespace
