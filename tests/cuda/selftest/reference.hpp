// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <batchnorm/cuda.hpp>

// Results against the CPU library, whose arguments are the same values as doubles. For float, half and bfloat16 its errors do
// not count beside the bounds of docs/numerics.md; for double both may have that error.
namespace selftest {

using Doubles = std::vector<double>;

template <class T>
Doubles widened(const std::vector<T>& values) {
  return Doubles(values.begin(), values.end());
}

/// Digits of an element and exponent of its smallest normal number.
struct Precision {
  int digits, lowest;
};

template <class T>
constexpr Precision precision() {
  if constexpr (sizeof(T) == 8) return {53, -1022};
  if constexpr (std::is_same_v<T, batchnorm::half>) return {11, -14};
  return {std::numeric_limits<T>::digits, -126};
}

struct Problem {
  batchnorm::Format format;
  batchnorm::Shape shape;
  std::int64_t c, s;
  Precision precision;
  batchnorm::Options options;

  std::size_t channel_of(std::size_t i) const {
    const auto at = static_cast<std::int64_t>(i);
    return static_cast<std::size_t>((format == batchnorm::Format::NCHW ? at / s : at) % c);
  }
};

struct ForwardInputs {
  Doubles x, scale, bias, mean, variance;
  Doubles residual;  ///< empty: neither residual nor ReLU
};
struct ForwardOutputs {
  Doubles y, batch_mean, batch_variance, mean, variance;
  std::vector<std::uint8_t> mask;
};

struct BackwardInputs {
  Doubles dy, x, scale, mean, variance;
  std::vector<std::uint8_t> mask;  ///< empty: none
};
struct BackwardOutputs {
  Doubles dx, dscale, dbias, dresidual;
};

/// The first bound that is broken, and the largest error of y or dx in ulp.
class Errors {
 public:
  explicit Errors(const Precision& of_elements) : precision_(of_elements) {}

  /// |got - expected| <= allowed
  void within(const char* what, std::size_t i, double got, double expected, double allowed);
  /// The same for y and dx, `allowed` in ulp of the element at `magnitude`, and `more`.
  void element(const char* what, std::size_t i, double got, double expected, double magnitude, double allowed, double more = 0);
  void exactly(const char* what, std::size_t i, double got, double expected) { within(what, i, got, expected, 0); }

  double ulps() const { return ulps_; }
  const std::string& wrong() const { return wrong_; }

 private:
  Precision precision_;
  double ulps_ = 0;
  std::string wrong_;
};

Errors compare(const Problem& problem, const ForwardInputs& in, const ForwardOutputs& got);
Errors compare(const Problem& problem, const BackwardInputs& in, const BackwardOutputs& got);

}  // namespace selftest
