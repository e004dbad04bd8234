// SPDX-License-Identifier: MIT
// Kernels copy an activation, and ask no more of it than its concept: no default constructor, no assignment.
#include <memory>

#include <batchnorm/in_place.hpp>

class Leaky final {
 public:
  explicit Leaky(const batchnorm::LeakyRelu& relu) : relu_(relu) {}

  BATCHNORM_INLINE auto operator()(const auto& z) const { return relu_(z); }
  BATCHNORM_INLINE auto passes(const auto& y) const { return relu_.passes(y); }
  BATCHNORM_INLINE auto gradient(const auto& dy, const auto& passes) const { return relu_.gradient(dy, passes); }
  BATCHNORM_INLINE auto inverse(const auto& y) const { return relu_.inverse(y); }
  double least_slope() const { return relu_.least_slope(); }

 private:
  const batchnorm::LeakyRelu& relu_;
#if FORBIDDEN
  std::unique_ptr<int> owned_;
#endif
};

using V = batchnorm::TensorView<float>;
using C = batchnorm::TensorView<const float>;

void forward(C x, V y, V mean, V variance, const Leaky& leaky) {
  const batchnorm::BatchNorm<float> batch_norm(true);
  batch_norm(x, nullptr, nullptr, mean, variance, {.output_x = y}, leaky);
  batch_norm(x, nullptr, nullptr, mean, variance, {.output_x = y}, batchnorm::AddResidual<float, Leaky>{x, leaky});
  batchnorm::normalize<float, float>(batchnorm::Format::NCHW, {.x = x, .mean = mean, .variance = C(variance)}, 1e-5, y, leaky);
}

void backward(C dy, C x, C y, batchnorm::TensorView<const std::uint8_t> mask, C mean, C variance,
              const batchnorm::GradientViews<float, float>& out, const Leaky& leaky) {
  const batchnorm::BatchNorm<float> batch_norm(true);
  batch_norm.backward(dy, x, nullptr, mean, variance, out, batchnorm::ThroughMask<Leaky>{mask, leaky});
  batch_norm.backward(dy, x, nullptr, mean, variance, out, batchnorm::ThroughOutput<float, Leaky>{y, leaky});
  batchnorm::gradient_sums<float, float>(batchnorm::Format::NCHW, {.dy = dy, .x = x, .mean = mean},
                                         batchnorm::ThroughMask<Leaky>{mask, leaky});
}

void in_place(V x, V mean, V variance, C dy, const batchnorm::GradientViews<float, float>& out, const Leaky& leaky) {
  const batchnorm::InPlaceBatchNorm<float, batchnorm::Format::NCHW, float, Leaky> batch_norm({}, leaky);
  batch_norm.forward({.x = x, .mean = mean, .variance = variance, .batch_mean = mean, .batch_variance = variance});
  batch_norm.backward({.dy = dy, .y = x, .variance = variance}, out);
}
