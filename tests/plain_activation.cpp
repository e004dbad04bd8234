// SPDX-License-Identifier: MIT

// Activations that are not BATCHNORM_INLINE, compiled without optimisation: a call of one returns its vectors otherwise than a
// kernel of a larger instruction set expects (GCC), so kernels must not call it with those. They have neither a default
// constructor nor an assignment.

#include <cstdint>
#include <cstdio>
#include <type_traits>
#include <vector>

#include <batchnorm/batch_norm.hpp>

namespace {

using batchnorm::cpu::MaskOf;

/// LeakyRelu without a default constructor and without assignment: a slope that it refers to.
class Leaky final {
 public:
  explicit Leaky(const double& slope) : slope_(slope) {}

  template <class V>
  V operator()(const V& z) const {
    return select(z < V::zero(), z * factor<V>(), z);
  }
  template <class V>
  MaskOf<V> passes(const V& y) const {
    return !(y <= V::zero());
  }
  template <class V>
  V gradient(const V& dy, const MaskOf<V>& passes) const {
    return select(passes, dy, dy * factor<V>());
  }
  template <class V>
  V inverse(const V& y) const {
    return select(y < V::zero(), y / factor<V>(), y);
  }
  double least_slope() const { return slope_; }

 private:
  template <class V>
  V factor() const {
    return V::broadcast(static_cast<typename V::scalar>(slope_));
  }

  const double& slope_;
};

struct Step {
  std::vector<float> y = std::vector<float>(2 * 3 * 37), dy = y, dresidual = y;
};

/// A training step with a residual, and its gradient by mask.
Step step_with(double slope) {
  const Leaky activation(slope);
  const batchnorm::Shape shape{2, 3, 37};
  Step step;
  std::vector<float> residual(step.y.size()), mean(3), variance(3);
  for (std::size_t i = 0; i < step.y.size(); ++i) {
    step.dy[i] = static_cast<float>(i * 7 % 13), residual[i] = static_cast<float>(i % 5) - 2;
  }
  std::vector<std::uint8_t> mask(28);
  const batchnorm::TensorView<const float> x(step.dy.data(), shape), residual_view(residual.data(), shape);
  const batchnorm::BatchNorm<float> batch_norm(true);
  batch_norm(x, nullptr, nullptr, nullptr, nullptr,
             {.output_x = {step.y.data(), shape}, .batch_mean = mean, .batch_variance = variance, .mask = mask},
             batchnorm::AddResidual<float, Leaky>{residual_view, activation});
  batch_norm.backward(x, x, nullptr, mean, variance, {.dresidual = {step.dresidual.data(), shape}},
                      batchnorm::ThroughMask<Leaky>{mask, activation});
  return step;
}

/// y and dresidual of two slopes, compared: how many values are wrong.
int failures_of_class() {
  const Step straight = step_with(1), bent = step_with(0.25);
  int failures = 0;
  for (std::size_t i = 0; i < straight.y.size(); ++i) {
    const float factor = straight.y[i] > 0 ? 1.0F : 0.25F;
    failures += bent.y[i] == factor * straight.y[i] && bent.dresidual[i] == factor * bent.dy[i] ? 0 : 1;
  }
  return failures;
}

/// y of a lambda that captures: how many values are wrong.
int failures_of_lambda() {
  constexpr std::int64_t channels = 3, length = 37;
  const double factor = 0.5;
  const auto halved_square = [factor](const auto& z) {
    using V = std::remove_cvref_t<decltype(z)>;
    return z * z * V::broadcast(static_cast<typename V::scalar>(factor));
  };
  const std::vector<float> mean(channels, 1.0F), variance(channels, 0.75F);  // with epsilon 0.25 the deviation is 1
  std::vector<float> x(channels * length), y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 9);
  int failures = 0;
  const batchnorm::Shape shape{1, channels, length};
  batchnorm::normalize<float, float>(
      batchnorm::Format::NCHW, {.x = {x.data(), shape}, .mean = mean, .variance = batchnorm::TensorView<const float>(variance)},
      0.25, {y.data(), shape}, halved_square);
  for (std::size_t i = 0; i < x.size(); ++i) failures += y[i] == 0.5F * (x[i] - 1) * (x[i] - 1) ? 0 : 1;
  return failures;
}

}  // namespace

int main() {
  int failures = 0;
  for (const batchnorm::Isa isa : batchnorm::available_isas()) {
    batchnorm::force_isa(isa);
    failures += failures_of_lambda() + failures_of_class();
  }
  std::printf("%d values are wrong\n", failures);
  return failures == 0 ? 0 : 1;
}
