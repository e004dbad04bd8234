// SPDX-License-Identifier: MIT
#pragma once

#include "layouts.hpp"

// What tests of adapters share: a foreign tensor normalised through its view has the bits of its elements in a dense tensor.
namespace support {

/// Training on a view, y in place of x, against training on the same elements in a dense tensor.
template <class T>
void expect_normalised_in_place(const batchnorm::TensorView<T>& x, Format format) {
  using P = batchnorm::parameter_t<T>;
  const Shape& shape = x.shape();
  const auto places = [&](auto&& body) { for_each_place(shape, {x.strides(), 0, 0}, body); };
  std::vector<T> before(static_cast<std::size_t>(batchnorm::element_count(shape)));
  places([&](std::size_t i, std::size_t place) { before[i] = x.data()[static_cast<std::ptrdiff_t>(place)]; });
  const auto channels = static_cast<std::size_t>(shape[batchnorm::cpu::channel_axis(shape, format)]);
  const std::vector<P> scale(channels, P(1.5)), bias(channels, P(0.25));
  std::vector<T> want(before.size());
  const auto train = [&](const batchnorm::TensorView<const T>& from, const batchnorm::TensorView<T>& to) {
    std::vector<P> mean(channels, P(0)), variance(channels, P(1));
    batchnorm::batch_norm<T, P>(format, {.is_training = true}, from, scale, bias, mean, variance, {.output_x = to});
    return mean;
  };
  const auto want_mean = train({before.data(), shape}, {want.data(), shape});
  const auto mean = train(x, x);
  const Real tolerance = sizeof(T) == 2 ? 1e-2L : 1e-5L;  // roundings; an element in the wrong place is off by about 1
  for (std::size_t c = 0; c < channels; ++c) EXPECT_LE(std::abs(real(mean[c]) - real(want_mean[c])), 1e-6L);
  places([&](std::size_t i, std::size_t place) {
    ASSERT_LE(std::abs(real(x.data()[static_cast<std::ptrdiff_t>(place)]) - real(want[i])), tolerance) << i;
  });
}

}  // namespace support
