// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <memory>
#include <type_traits>

#include <batchnorm/in_place.hpp>

// What an activation may be, and that its concepts say no to what would not compile.
namespace {

using batchnorm::Activation, batchnorm::AddResidual, batchnorm::DifferentiableActivation, batchnorm::Epilogue;
using batchnorm::GradientPath, batchnorm::InvertibleActivation, batchnorm::ThroughMask, batchnorm::ThroughOutput;
using batchnorm::cpu::MaskOf;

/// LeakyRelu without a default constructor and without assignment: a slope that it refers to.
class Leaky final {
 public:
  explicit Leaky(const double& slope) : slope_(slope) {}

  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return select(z < V::zero(), z * factor<V>(), z);
  }
  template <class V>
  BATCHNORM_INLINE MaskOf<V> passes(const V& y) const {
    return !(y <= V::zero());
  }
  template <class V>
  BATCHNORM_INLINE V gradient(const V& dy, const MaskOf<V>& passes) const {
    return select(passes, dy, dy * factor<V>());
  }
  template <class V>
  BATCHNORM_INLINE V inverse(const V& y) const {
    return select(y < V::zero(), y / factor<V>(), y);
  }
  double least_slope() const { return slope_; }

 private:
  template <class V>
  BATCHNORM_INLINE V factor() const {
    return V::broadcast(static_cast<typename V::scalar>(slope_));
  }

  const double& slope_;
};

// ---- what the concepts take

static_assert(!std::is_default_constructible_v<Leaky> && !std::is_copy_assignable_v<Leaky>);
static_assert(Epilogue<Leaky, float> && Epilogue<AddResidual<float, Leaky>, float>);
static_assert(GradientPath<ThroughMask<Leaky>, float> && GradientPath<ThroughOutput<float, Leaky>, float>);
static_assert(InvertibleActivation<Leaky>);
static_assert(InvertibleActivation<batchnorm::LeakyRelu> && DifferentiableActivation<batchnorm::Relu>);
static_assert(Epilogue<batchnorm::Identity, batchnorm::half> && !DifferentiableActivation<batchnorm::Identity>);

[[maybe_unused]] constexpr auto captures_nothing = [](const auto& z) { return z + z; };
static_assert(Epilogue<decltype(captures_nothing), float> && Epilogue<decltype(captures_nothing), double>);
[[maybe_unused]] const auto captures = [factor = 2.0](const auto& z) {
  using V = std::remove_cvref_t<decltype(z)>;
  return z * V::broadcast(static_cast<typename V::scalar>(factor));
};
static_assert(Epilogue<decltype(captures), float> && Epilogue<AddResidual<float, decltype(captures)>, float>);

// ---- and what not

[[maybe_unused]] const auto is_mutable = [count = 0](const auto& z) mutable { return ++count, z + z; };
static_assert(!Activation<decltype(is_mutable)>, "kernels call a constant object");

struct NotConst {
  template <class V>
  V operator()(const V& z) {
    return z;
  }
};
static_assert(!Activation<NotConst>);

struct Owner : batchnorm::LeakyRelu {
  std::unique_ptr<int> owned;
};
static_assert(!Activation<Owner> && !InvertibleActivation<Owner>, "kernels copy it");

struct OfOneVector {
  batchnorm::cpu::vec<float, 16> operator()(const batchnorm::cpu::vec<float, 16>& z) const { return z; }
};
static_assert(!Epilogue<OfOneVector, float>, "kernels of other instruction sets have other vectors");

struct OfFloat {
  template <int bytes>
  batchnorm::cpu::vec<float, bytes> operator()(const batchnorm::cpu::vec<float, bytes>& z) const {
    return z;
  }
};
static_assert(!Epilogue<OfFloat, float> && !Epilogue<OfFloat, double>, "double is computed in double");

struct GivesReference {
  template <class V>
  const V& operator()(const V& z) const {
    return z;
  }
};
struct GivesMask {
  template <class V>
  MaskOf<V> operator()(const V& z) const {
    return z < V::zero();
  }
};
static_assert(!Activation<GivesReference> && !Activation<GivesMask>);

struct TakesNotConst {
  template <class V>
  V operator()(V& z) const {
    return z;
  }
};
static_assert(!Activation<TakesNotConst>);

struct PassesBool : batchnorm::Relu {
  template <class V>
  bool passes(const V&) const {
    return true;
  }
};
struct GradientNotConst : batchnorm::Relu {
  template <class V>
  V gradient(const V& dy, const MaskOf<V>&) {
    return dy;
  }
};
static_assert(Activation<PassesBool> && !DifferentiableActivation<PassesBool>);
static_assert(Activation<GradientNotConst> && !DifferentiableActivation<GradientNotConst>);

struct WithoutLeastSlope : batchnorm::Relu {
  template <class V>
  V inverse(const V& y) const {
    return y;
  }
};
static_assert(DifferentiableActivation<WithoutLeastSlope> && !InvertibleActivation<WithoutLeastSlope>);

static_assert(!Epilogue<AddResidual<double>, float> && !Epilogue<AddResidual<float, OfOneVector>, float>);
static_assert(!Epilogue<AddResidual<float, AddResidual<float>>, float> && !Epilogue<int, float>);

// ---- what kernels keep of one without assignment

TEST(ActivationKinds, HeldAssignsWhatCannotBeAssigned) {
  const double one = 1, two = 2;
  batchnorm::cpu::Held<Leaky> held, other{Leaky(two)};
  held = Leaky(one);
  EXPECT_EQ(held.get().least_slope(), 1);
  held = other;
  EXPECT_EQ(held.get().least_slope(), 2);
  const auto& same = held;
  held = same;
  EXPECT_EQ(held.get().least_slope(), 2);
}

}  // namespace
