// SPDX-License-Identifier: MIT
#include <vector>

#include <batchnorm/batchnorm.hpp>

batchnorm::Isa floor_of_second() { return batchnorm::compiled_isa(); }

std::vector<float> normalized_by_second(const std::vector<float>& x) {
  using namespace batchnorm;
  std::vector<float> y(x.size());
  const Shape shape{2, 3, 1000};
  const std::vector<float> bias(3, 0.7F);
  BatchNorm<float>(true)(TensorView<const float>(x.data(), shape), nullptr, bias, nullptr, nullptr,
                         {.output_x = TensorView<float>(y.data(), shape)});
  return y;
}
