// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <batchnorm/element.hpp>
#include <batchnorm/format.hpp>
#include <batchnorm/options.hpp>

// The formula, in long double, one element after the other: what every test compares with.
namespace support {

using Real = long double;

template <class T>
Real real(T value) {
  if constexpr (std::is_same_v<T, double>) return value;
  return static_cast<float>(value);
}

/// The index in memory of the value of image n, channel c, position s of a dense tensor.
struct Extents {
  std::int64_t n = 0, c = 0, s = 0;
  batchnorm::Format format = batchnorm::Format::NCHW;

  std::size_t index(std::int64_t image, std::int64_t channel, std::int64_t position) const {
    return static_cast<std::size_t>(format == batchnorm::Format::NCHW ? (image * c + channel) * s + position
                                                                      : (image * s + position) * c + channel);
  }
};

inline Extents extents(const batchnorm::Shape& shape, batchnorm::Format format) {
  const int channel_axis = format == batchnorm::Format::NCHW ? 1 : shape.rank() - 1;
  Extents result{shape[0], shape[channel_axis], 1, format};
  for (int axis = 1; axis < shape.rank(); ++axis) {
    if (axis != channel_axis) result.s *= shape[axis];
  }
  return result;
}

/// The mean is mean + rest: beside a large offset one long double cannot hold what decides the last digits of a double.
struct Statistics {
  std::int64_t count = 0;
  Real mean = 0, rest = 0, variance = 0;

  Real unbiased() const {
    return variance * static_cast<Real>(count) / static_cast<Real>(std::max<std::int64_t>(count - 1, 1));
  }
};

/// Statistics of channel c: the mean, the mean of what is left, and the squares about both.
template <class T>
Statistics statistics(std::span<const T> x, const Extents& e, std::int64_t c) {
  const auto mean_of = [&](auto term) {
    Real sum = 0;
    for (std::int64_t n = 0; n < e.n; ++n) {
      for (std::int64_t s = 0; s < e.s; ++s) sum += term(real(x[e.index(n, c, s)]));
    }
    return e.n * e.s == 0 ? 0 : sum / static_cast<Real>(e.n * e.s);
  };
  Statistics result{e.n * e.s};
  result.mean = mean_of([](Real value) { return value; });
  result.rest = mean_of([&](Real value) { return value - result.mean; });
  result.variance = mean_of([&](Real value) {
    const Real deviation = (value - result.mean) - result.rest;
    return deviation * deviation;
  });
  return result;
}

/// (1 - momentum) * running + momentum * batch
inline Real updated(Real running, Real batch, double momentum) {
  if (momentum == 0) return running;
  if (momentum == 1) return batch;
  return (1 - static_cast<Real>(momentum)) * running + static_cast<Real>(momentum) * batch;
}

/// scale * (x - mean) / sqrt(variance + epsilon) + bias, and the largest of the numbers it is made of: errors are measured
/// there.
struct Normalized {
  Real z = 0, scaled = 0, magnitude = 0;
};

inline Normalized normalized(Real x, const Statistics& channel, double epsilon, Real scale, Real bias) {
  const Real deviation = (x - channel.mean) - channel.rest;
  const Real scaled = scale * deviation / std::sqrt(channel.variance + static_cast<Real>(epsilon));
  return {scaled + bias, std::abs(scaled), std::max({std::abs(scaled + bias), std::abs(scaled), std::abs(bias)})};
}

}  // namespace support
