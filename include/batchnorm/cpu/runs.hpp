// SPDX-License-Identifier: MIT
#pragma once

// Kernels over contiguous runs: values of one channel that lie next to each other, and several such channels in a row.

#include <batchnorm/cpu/elements.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Sums of d and d * d over values of one channel, d = x - pivot, in vectors of double.
template <int Bytes>
struct PivotedSums {
  using D = vec<double, Bytes>;

  // 4 chains: an addition of 3 to 4 cycles on each of 2 ports would like 8, but the conversions take the same ports.
  D sums[4] = {D::zero(), D::zero(), D::zero(), D::zero()};
  D squares[4] = {D::zero(), D::zero(), D::zero(), D::zero()};

  template <int Chain>
  BATCHNORM_INLINE void add(const D& d) {
    sums[Chain] = sums[Chain] + d;
    squares[Chain] = fma(d, d, squares[Chain]);
  }

  BATCHNORM_INLINE double sum_of_all() const { return sum((sums[0] + sums[1]) + (sums[2] + sums[3])); }
  BATCHNORM_INLINE double square_of_all() const { return sum((squares[0] + squares[1]) + (squares[2] + squares[3])); }
};

/// Adds the sums over x[0, n) to sum and sum_sq.
template <int Bytes, Element T>
BATCHNORM_INLINE void add_run(const T* x, std::int64_t n, double pivot_value, double& sum, double& sum_sq) {
  using D = vec<double, Bytes>;
  constexpr std::int64_t pair = pair_of<Bytes>;
  const D pivot = D::broadcast(pivot_value);
  PivotedSums<Bytes> sums;
  D low, high;
  std::int64_t i = 0;
  for (; i + 2 * pair <= n; i += 2 * pair) {
    D low_2, high_2;
    load_pair(low, high, x + i);
    load_pair(low_2, high_2, x + i + pair);
    sums.template add<0>(low - pivot);
    sums.template add<1>(high - pivot);
    sums.template add<2>(low_2 - pivot);
    sums.template add<3>(high_2 - pivot);
  }
  if (i + pair <= n) {
    load_pair(low, high, x + i);
    sums.template add<0>(low - pivot);
    sums.template add<1>(high - pivot);
    i += pair;
  }
  if (i < n) {
    // The last pair overlaps values that are summed already: those lanes count 0. A run shorter than a pair is copied.
    const std::int64_t first = pair - (n - i);
    if (n >= pair) {
      load_pair(low, high, x + n - pair);
    } else {
      load_pair_last(low, high, x, n);
    }
    sums.template add<2>(select(lanes_from<D>(first), low - pivot, D::zero()));
    sums.template add<3>(select(lanes_from<D>(first - D::lanes), high - pivot, D::zero()));
  }
  sum += sums.sum_of_all();
  sum_sq += sums.square_of_all();
}

/// For each of `channels` channels, adds the pivoted sums over `images` runs of `length` values to sum[c] and sum_sq[c].
/// Memory order: image by image, channel by channel.
template <Element T>
struct PlaneSums {
  const T* x;
  std::int64_t batch_stride, channel_stride;
  std::int64_t images, channels, length;
  const double* pivot;
  double* sum;
  double* sum_sq;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    for (std::int64_t n = 0; n < images; ++n) {
      for (std::int64_t c = 0; c < channels; ++c) {
        add_run<Bytes>(x + n * batch_stride + c * channel_stride, length, pivot[c], sum[c], sum_sq[c]);
      }
    }
  }
};

/// Adds sums[c * length ...][length] up for each channel: closes the columns of several small planes.
struct SegmentSums {
  const double* values;
  std::int64_t channels, length;
  double* sum;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    using D = vec<double, Bytes>;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double* value = values + c * length;
      D chain[2] = {D::zero(), D::zero()};
      std::int64_t i = 0;
      for (; i + 2 * D::lanes <= length; i += 2 * D::lanes) {
        chain[0] = chain[0] + D::load(value + i);
        chain[1] = chain[1] + D::load(value + i + D::lanes);
      }
      double rest = 0;
      for (; i < length; ++i) rest += value[i];
      sum[c] += cpu::sum(chain[0] + chain[1]) + rest;
    }
  }
};

/// Constants of a channel, in the computing type: y = activation((x - center) * factor + offset [+ residual]).
template <class Compute>
struct Coefficients {
  Compute* center;
  Compute* factor;
  Compute* offset;

  Coefficients at(std::int64_t c) const noexcept { return {center + c, factor + c, offset + c}; }
};

/// The same for the lanes of a vector.
template <class V>
struct VectorCoefficients {
  V center, factor, offset;

  template <class Compute>
  static BATCHNORM_INLINE VectorCoefficients of_channel(const Coefficients<Compute>& c, std::int64_t i) {
    return {V::broadcast(c.center[i]), V::broadcast(c.factor[i]), V::broadcast(c.offset[i])};
  }
  template <class Compute>
  static BATCHNORM_INLINE VectorCoefficients of_positions(const Coefficients<Compute>& c, std::int64_t i) {
    return {V::load(c.center + i), V::load(c.factor + i), V::load(c.offset + i)};
  }
  template <class M>
  static BATCHNORM_INLINE VectorCoefficients blend(const M& mask, const VectorCoefficients& a, const VectorCoefficients& b) {
    return {select(mask, a.center, b.center), select(mask, a.factor, b.factor), select(mask, a.offset, b.offset)};
  }
};

/// What happens to each vector, wherever it stands.
template <Element T, class Activation, bool adds_residual>
struct Normalization {
  Activation activation;

  template <class V>
  BATCHNORM_INLINE V operator()(const V& x, const V& residual, const VectorCoefficients<V>& c) const {
    V z = fma(x - c.center, c.factor, c.offset);
    if constexpr (adds_residual) z = z + residual;
    return activation(z);
  }
};

/// Normalises `channels` adjacent channels of one image, `length` values each.
///
/// Streaming (`streams`): the channels lie without gaps and length >= line_of<T>. Whole cache lines go past the caches, a line
/// that two channels share is blended; only the first and last line of the run are stored in part. A part of a line stored
/// between streamed lines would wait for that line to be read first.
/// Otherwise channel by channel; the last vector of a channel overlaps the one before.
/// `ahead`, if given, is a run of the same extent that is brought to the second-level cache on the way.
template <Element T, class Activation, bool adds_residual>
struct PlaneNormalize {
  const T* x;
  const T* residual;
  T* y;
  std::int64_t x_stride, residual_stride, y_stride;  // from channel to channel
  std::int64_t channels, length;
  Coefficients<compute_t<T>> coefficients;
  Normalization<T, Activation, adds_residual> normalization;
  bool streams;
  const T* ahead;

  template <int Bytes>
  using V = vec<compute_t<T>, Bytes>;

  template <int Bytes>
  BATCHNORM_INLINE V<Bytes> residual_at(std::int64_t i) const {
    if constexpr (adds_residual) return load<Bytes>(residual + i);
    return V<Bytes>::zero();
  }

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    if (streams) {
      stream_run<Bytes>();
      intrinsics::stream_fence();
    } else {
      for (std::int64_t c = 0; c < channels; ++c) store_channel<Bytes>(c);
    }
  }

  /// [first, last) of the run, at most a line, stored in part.
  template <int Bytes>
  BATCHNORM_INLINE void store_part(std::int64_t first, std::int64_t last, const VectorCoefficients<V<Bytes>>& c) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    for (std::int64_t i = first; i < last; i += lanes) {
      const std::int64_t count = (std::min)(lanes, last - i);
      V<Bytes> r = V<Bytes>::zero();
      if constexpr (adds_residual) r = load_first<Bytes>(residual + i, count);
      store_first<Bytes>(y + i, normalization(load_first<Bytes>(x + i, count), r, c), count);
    }
  }

  /// A whole line whose first `own` elements belong to one channel and the others to the next.
  template <int Bytes>
  BATCHNORM_INLINE void stream_shared_line(std::int64_t i, std::int64_t own, const VectorCoefficients<V<Bytes>>& c,
                                           const VectorCoefficients<V<Bytes>>& next) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    for (std::int64_t k = 0; k < line_of<T>; k += lanes) {
      const auto from_next = lanes_from<V<Bytes>>(std::clamp<std::int64_t>(own - k, 0, lanes));
      const auto mixed = VectorCoefficients<V<Bytes>>::blend(from_next, next, c);
      stream<Bytes>(y + i + k, normalization(load<Bytes>(x + i + k), residual_at<Bytes>(i + k), mixed));
    }
  }

  template <int Bytes>
  BATCHNORM_INLINE void stream_run() const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    constexpr std::int64_t line = line_of<T>;
    const std::int64_t n = channels * length;
    const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(y) % 64 / sizeof(T));
    std::int64_t i = (std::min)(misaligned == 0 ? 0 : line - misaligned, n);
    auto c = VectorCoefficients<V<Bytes>>::of_channel(coefficients, 0);
    store_part<Bytes>(0, i, c);
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      const std::int64_t end = (channel + 1) * length;
      for (; i + line <= end; i += line) {
        if (ahead != nullptr) prefetch(ahead + i);
        BATCHNORM_UNROLL
        for (std::int64_t k = 0; k < line; k += lanes) {
          stream<Bytes>(y + i + k, normalization(load<Bytes>(x + i + k), residual_at<Bytes>(i + k), c));
        }
      }
      if (channel + 1 == channels) break;
      const auto next = VectorCoefficients<V<Bytes>>::of_channel(coefficients, channel + 1);
      if (i < end && i + line <= n) {
        if (ahead != nullptr) prefetch(ahead + i);
        stream_shared_line<Bytes>(i, end - i, c, next);
        i += line;
      } else if (i < end) {
        store_part<Bytes>(i, end, c);
        i = end;
      }
      c = next;
    }
    store_part<Bytes>(i, n, c);
  }

  template <int Bytes>
  BATCHNORM_INLINE void store_channel(std::int64_t channel) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    const T* from = x + channel * x_stride;
    const T* add = adds_residual ? residual + channel * residual_stride : nullptr;
    T* to = y + channel * y_stride;
    const auto c = VectorCoefficients<V<Bytes>>::of_channel(coefficients, channel);
    if (length < lanes) {
      V<Bytes> r = V<Bytes>::zero();
      if constexpr (adds_residual) r = load_first<Bytes>(add, length);
      store_first<Bytes>(to, normalization(load_first<Bytes>(from, length), r, c), length);
      return;
    }
    // y may be x: what the last, overlapping vector needs is read before anything is written.
    const V<Bytes> last_x = load<Bytes>(from + length - lanes);
    V<Bytes> last_r = V<Bytes>::zero();
    if constexpr (adds_residual) last_r = load<Bytes>(add + length - lanes);
    std::int64_t i = 0;
    for (; i + 4 * lanes <= length; i += 4 * lanes) {
      if (ahead != nullptr) prefetch_4<Bytes>(ahead + channel * length + i);
      BATCHNORM_UNROLL
      for (std::int64_t k = 0; k < 4 * lanes; k += lanes) store_vector<Bytes>(from, add, to, i + k, c);
    }
    for (; i + lanes <= length; i += lanes) store_vector<Bytes>(from, add, to, i, c);
    if (i < length) store<Bytes>(to + length - lanes, normalization(last_x, last_r, c));
  }

  template <int Bytes>
  BATCHNORM_INLINE void store_vector(const T* from, const T* add, T* to, std::int64_t i,
                                     const VectorCoefficients<V<Bytes>>& c) const {
    V<Bytes> r = V<Bytes>::zero();
    if constexpr (adds_residual) r = load<Bytes>(add + i);
    store<Bytes>(to + i, normalization(load<Bytes>(from + i), r, c));
  }

  template <int Bytes>
  BATCHNORM_INLINE void prefetch_4(const T* p) const {
    constexpr std::int64_t bytes = 4 * lanes_of<Bytes, T> * static_cast<std::int64_t>(sizeof(T));
    BATCHNORM_UNROLL
    for (std::int64_t b = 0; b < bytes; b += 64) prefetch(reinterpret_cast<const char*>(p) + b);
  }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
