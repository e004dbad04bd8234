// SPDX-License-Identifier: MIT
#pragma once

// A call in the form that the translation unit takes: device pointers, a canonical shape, all arguments right.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <batchnorm/cuda/config.hpp>

struct CUstream_st;

namespace batchnorm::cuda {

/// A cudaStream_t.
using Stream = CUstream_st*;

/// The bits of an IEEE 754 binary16, and of its cousin with an exponent of 8 bits.
struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

/// What an element is computed in.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;
/// The type of scale, bias, mean and variance.
template <class T>
using Parameter = Compute<T>;

/// A dense tensor in canonical form: n images of c channels of s values each; channels last: n rows of c channels, s = 1.
struct Geometry {
  std::int64_t n = 0, c = 0, s = 1;
  bool channels_last = false;

  BATCHNORM_HOST_DEVICE std::int64_t elements() const { return n * c * s; }
  BATCHNORM_HOST_DEVICE std::int64_t values() const { return n * s; }  // of a channel
};

/// What comes after scale and bias. `slope` is that of leaky ReLU below 0.
template <class R>
struct ActivationOf {
  enum Kind { none, relu, leaky_relu };

  int kind = none;
  R slope = 0;
};

/// The caller's arrays over channels and the rules for them; null where absent.
template <class P>
struct ForwardChannels {
  const P* scale = nullptr;
  const P* bias = nullptr;
  P* mean[2] = {nullptr, nullptr};
  P* variance[2] = {nullptr, nullptr};
  P* running_mean = nullptr;
  P* running_variance = nullptr;
  double epsilon = 0, momentum = 0;
  double variance_factor = 1;  ///< of the biased variance that enters the running one
  bool keeps_if_not_finite = false;
};

/// How dy passes an activation.
template <class T>
struct PassageOf {
  enum Kind { nothing, mask, output };

  int kind = nothing;
  const std::uint8_t* bits = nullptr;  ///< 1 bit per element
  const T* y = nullptr;
  ActivationOf<Compute<T>> activation;
};

/// The caller's arrays over channels for a gradient; null where absent.
template <class P>
struct BackwardChannels {
  const P* scale = nullptr;
  const P* mean = nullptr;
  const P* variance = nullptr;
  P* dscale = nullptr;
  P* dbias = nullptr;
  double epsilon = 0;
  std::int64_t values = 0;
  bool is_training = true;
};

/// A forward pass.
template <class T>
struct ForwardCall {
  Geometry geometry;
  const T* x = nullptr;
  const T* residual = nullptr;  ///< or null
  T* y = nullptr;
  std::uint8_t* mask = nullptr;  ///< or null
  ActivationOf<Compute<T>> activation;
  bool is_training = true;
  const Parameter<T>* mean = nullptr;  ///< in inference
  const Parameter<T>* variance = nullptr;
  ForwardChannels<Parameter<T>> channels;
  bool is_unbiased = true;  ///< the variance that enters the running one; for a synchronised call, whose m the device learns
};

/// A backward pass.
template <class T>
struct BackwardCall {
  Geometry geometry;
  const T* dy = nullptr;
  const T* x = nullptr;
  PassageOf<T> passage;
  T* dx = nullptr;  ///< or null
  T* dz = nullptr;  ///< or null
  BackwardChannels<Parameter<T>> channels;
};

/// What the ranks of a synchronised call tell each other, in device memory, in rank order: of each rank the number of its
/// values (of a channel), then `fields` sums of each channel. All are doubles, so that the memory is gathered as it is.
struct RankSums {
  double* data = nullptr;
  std::int64_t ranks = 1, channels = 0;
  int fields = 0;

  /// Doubles of a rank.
  BATCHNORM_HOST_DEVICE std::int64_t stride() const { return 1 + fields * channels; }
  BATCHNORM_HOST_DEVICE double& count(std::int64_t rank) const { return data[rank * stride()]; }
  BATCHNORM_HOST_DEVICE double& at(int field, std::int64_t rank, std::int64_t channel) const {
    return data[rank * stride() + 1 + field * channels + channel];
  }
};

/// Of a forward pass: the mean as two doubles and the sum of squared deviations from it; of a backward pass the sums of dz and
/// of dz * (x - mean), each as two doubles.
template <class T>
constexpr int rank_fields(const ForwardCall<T>&) {
  return 3;
}
template <class T>
constexpr int rank_fields(const BackwardCall<T>&) {
  return 4;
}

}  // namespace batchnorm::cuda
