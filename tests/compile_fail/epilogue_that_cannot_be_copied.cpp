// SPDX-License-Identifier: MIT
// Kernels copy an activation, and ask no more of it than its concept: no default constructor, no assignment.
#include <memory>

#include <batchnorm/in_place.hpp>

class Leaky final {
 public:
  explicit Leaky(const double& slope) : slope_(slope) {}

  template <class V>
  BATCHNORM_INLINE V operator()(const V& z) const {
    return select(z < V::zero(), z * factor<V>(), z);
  }
  template <class V>
  BATCHNORM_INLINE batchnorm::cpu::MaskOf<V> passes(const V& y) const {
    return !(y <= V::zero());
  }
  template <class V>
  BATCHNORM_INLINE V gradient(const V& dy, const batchnorm::cpu::MaskOf<V>& passes) const {
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
  batchnorm::normalize<float, float>(x, batchnorm::Format::NCHW, mean, C(variance), nullptr, nullptr, 1e-5, y, leaky);
}

void backward(C dy, C x, C y, batchnorm::TensorView<const std::uint8_t> mask, C mean, C variance,
              const batchnorm::GradientViews<float, float>& out, const Leaky& leaky) {
  const batchnorm::BatchNorm<float> batch_norm(true);
  batch_norm.backward(dy, x, nullptr, mean, variance, out, batchnorm::ThroughMask<Leaky>{mask, leaky});
  batch_norm.backward(dy, x, nullptr, mean, variance, out, batchnorm::ThroughOutput<float, Leaky>{y, leaky});
  batchnorm::gradient_sums<float, float>(dy, x, batchnorm::Format::NCHW, mean, batchnorm::ThroughMask<Leaky>{mask, leaky});
}

void in_place(V x, V mean, V variance, C dy, const batchnorm::GradientViews<float, float>& out, const Leaky& leaky) {
  const batchnorm::InPlaceBatchNorm<float, batchnorm::Format::NCHW, float, Leaky> batch_norm({}, leaky);
  batch_norm.forward(x, nullptr, nullptr, mean, variance, mean, variance);
  batch_norm.backward(dy, x, nullptr, nullptr, variance, out);
}
