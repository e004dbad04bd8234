// SPDX-License-Identifier: MIT

// An activation that is a plain lambda, compiled without optimisation: a call of it returns its vectors otherwise than a kernel
// of a larger instruction set expects (GCC), so kernels must not call it with those. The lambda captures, so that it has no
// default constructor either.

#include <cstdio>
#include <vector>

#include <batchnorm/normalize.hpp>

int main() {
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
  for (const batchnorm::Isa isa : batchnorm::available_isas()) {
    batchnorm::force_isa(isa);
    const batchnorm::Shape shape{1, channels, length};
    batchnorm::normalize<float, float>({x.data(), shape}, batchnorm::Format::NCHW, mean,
                                       batchnorm::TensorView<const float>(variance), nullptr, nullptr, 0.25, {y.data(), shape},
                                       halved_square);
    for (std::size_t i = 0; i < x.size(); ++i) failures += y[i] == 0.5F * (x[i] - 1) * (x[i] - 1) ? 0 : 1;
  }
  std::printf("%d values are wrong\n", failures);
  return failures == 0 ? 0 : 1;
}
