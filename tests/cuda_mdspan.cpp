// SPDX-License-Identifier: MIT
// cuda::std::mdspan, as the CUDA toolkit has it, through mdspan.hpp; no device and no nvcc is needed.
#include <cuda/std/mdspan>

#include <cmath>
#include <cstdio>
#include <vector>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/mdspan.hpp>

int main() {
  using namespace batchnorm;
  std::vector<float> data(2 * 3 * 4 * 5), y(data.size()), want(data.size());
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i % 7);
  const BatchNorm<float> training(true);

  const cuda::std::mdspan<const float, cuda::std::extents<int, 2, 3, 4, 5>> x(data.data());
  const cuda::std::mdspan<float, cuda::std::dextents<long, 4>> out(y.data(), 2, 3, 4, 5);
  static_assert(std::is_same_v<decltype(view_of(x)), TensorView<const float>>);
  training(view_of(x), nullptr, nullptr, nullptr, nullptr, {.output_x = view_of(out)});
  training(TensorView<const float>(data.data(), Shape{2, 3, 4, 5}), nullptr, nullptr, nullptr, nullptr,
           {.output_x = TensorView<float>(want.data(), Shape{2, 3, 4, 5})});
  if (y != want) return std::puts("layout_right is not the dense tensor"), 1;

  // A column-major matrix, 40 rows of 3 columns: each column has mean 0 after it is normalised in place.
  const cuda::std::mdspan<float, cuda::std::dextents<int, 2>, cuda::std::layout_left> matrix(data.data(), 40, 3);
  training(view_of(matrix), nullptr, nullptr, nullptr, nullptr, {.output_x = view_of(matrix)});
  for (int column = 0; column < 3; ++column) {
    float sum = 0;
    for (int row = 0; row < 40; ++row) sum += matrix(row, column);
    if (std::abs(sum) > 1e-4F) return std::puts("layout_left was transposed"), 1;
  }

  // Every second column of a row: strides that no layout of ours has are refused.
  const cuda::std::layout_stride::mapping<cuda::std::extents<int, 2, 2, 5>> mapping({}, cuda::std::array<int, 3>{40, 20, 2});
  const cuda::std::mdspan<float, cuda::std::extents<int, 2, 2, 5>, cuda::std::layout_stride> odd(y.data(), mapping);
  try {
    moments<float>(view_of(odd), Format::NCHW);
    return std::puts("a stride of 2 was not refused"), 1;
  } catch (const ValueError& error) {
    std::puts(error.what());
  }
}
