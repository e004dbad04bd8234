// SPDX-License-Identifier: MIT
#pragma once

// What is summed over a channel. A statistic has
//
//   Inputs load(a, first, begin, end, aligned)   the elements of a chunk, of every tensor that it reads
//   constant(a, channel, i)                      what is subtracted in a slice of that channel, whose first element is i
//   add(sum, inputs, k, constant)                adds element k of the chunk to both sums
//   store(partial, count, sum, constant)         the sums of `count` values of a slice
//
// Every slice of every channel has its `fields` doubles, in Partials.

#include <batchnorm/cuda/accumulator.cuh>
#include <batchnorm/cuda/geometry.cuh>

namespace batchnorm::cuda {

/// The sums of slices of channels: field f of slice b of channel c at [(f * slices + b) * channels + c].
struct Partials {
  double* data = nullptr;
  std::int64_t slices = 0, channels = 0;

  BATCHNORM_HOST_DEVICE double& at(int field, std::int64_t slice, std::int64_t channel) const {
    return data[(field * slices + slice) * channels + channel];
  }
};

/// Where a slice of a channel puts its fields: `stride` doubles apart.
struct PartialView {
  double* first;
  std::int64_t stride;

  BATCHNORM_DEVICE double& operator[](int field) const { return first[field * stride]; }
};

/// Count, pivot, mean - pivot (two doubles) and sum of squared deviations of the values x: about the first value of the slice,
/// which costs at most log2(count) bits of the sums' precision where it is far from all others.
template <class T>
struct MomentStatistic {
  static constexpr int fields = 5;
  enum Field { count_field, pivot_field, delta_field, delta_low_field, m2_field };

  using Constant = Compute<T>;
  using Inputs = Elements<T>;

  const T* x;

  template <class Accelerator>
  BATCHNORM_DEVICE Inputs load(Accelerator& a, std::int64_t first, std::int64_t begin, std::int64_t end, bool aligned) const {
    return load_elements(a, x, first, begin, end, aligned);
  }
  BATCHNORM_DEVICE Constant constant(std::int64_t, std::int64_t i) const { return pivot(x[i]); }
  BATCHNORM_DEVICE static Constant pivot(T value) {
    const Constant first = widen(value);
    return is_finite(first) ? first : 0;
  }

  template <class Sum>
  BATCHNORM_DEVICE void add(Sum (&sum)[2], const Inputs& in, int k, Constant pivot) const {
    using F = typename Sum::Scalar;
    const auto d = Sum::difference(static_cast<F>(widen(in.at[k])), static_cast<F>(pivot));
    sum[0].add(d.high, d.low);
    sum[1].add_product(d.high, d.low, d.high, d.low);
  }

  /// m2 = q - s * s / n in twice the precision of a double.
  template <class Sum>
  BATCHNORM_DEVICE static void store(const PartialView& to, std::int64_t count, const Sum (&sum)[2], Constant pivot) {
    const auto n = static_cast<double>(count);
    const Pair<double> s = sum[0].result(), q = sum[1].result();
    to[count_field] = n;
    to[pivot_field] = static_cast<double>(pivot);
    const double delta = count == 0 ? 0 : s.high / n;
    const double rest = fused(-delta, n, s.high) + s.low;  // s - delta * n, exact but for the last bit
    to[delta_field] = delta;
    const double delta_low = count == 0 || !is_finite(delta) ? 0 : rest / n;
    to[delta_low_field] = delta_low;
    const Pair<double> square = two_product(delta, s.high);
    const double m2 = (q.high - square.high) + ((q.low - square.low) - (delta * s.low + delta_low * s.high));
    to[m2_field] = m2 < 0 ? 0 : m2;
  }
};

/// How dy passes the activation.
template <class T>
struct Passage : PassageOf<T> {
  using PassageOf<T>::kind, PassageOf<T>::bits, PassageOf<T>::y;

  BATCHNORM_DEVICE Compute<T> dz(Compute<T> dy, bool passes) const {
    if (kind == PassageOf<T>::nothing || passes) return dy;
    return this->activation.kind == ActivationOf<Compute<T>>::relu ? 0 : dy * this->activation.slope;
  }

  /// Whether dy passes at the elements of a chunk, element k in bit k.
  template <class Accelerator>
  BATCHNORM_DEVICE unsigned passes(Accelerator& a, std::int64_t first, std::int64_t begin, std::int64_t end,
                                   bool aligned) const {
    constexpr int size = chunk_size<T>;
    unsigned result = 0;
    if (kind == PassageOf<T>::mask) {
      if (first >= begin && first + size <= end && first % 8 + size <= 8) return bits[first / 8] >> (first % 8);
      for (int k = 0; k < size; ++k) {
        const std::int64_t i = first + k;
        if (i >= begin && i < end) result |= (bits[i / 8] >> (i % 8) & 1U) << k;
      }
    } else if (kind == PassageOf<T>::output) {
      const Elements<T> values = load_elements(a, y, first, begin, end, aligned);
      BATCHNORM_UNROLLED
      for (int k = 0; k < size; ++k) result |= (widen(values.at[k]) <= 0 ? 0U : 1U) << k;
    }
    return result;
  }
};

/// The sums of dz and of dz * (x - mean), each as two doubles.
template <class T>
struct GradientStatistic {
  static constexpr int fields = 4;
  enum Field { sum_field, sum_low_field, product_field, product_low_field };

  using Constant = Compute<T>;
  struct Inputs {
    Elements<T> dy, x;
    unsigned passes;
  };

  const T* dy;
  const T* x;
  Passage<T> passage;
  const Parameter<T>* mean;

  template <class Accelerator>
  BATCHNORM_DEVICE Inputs load(Accelerator& a, std::int64_t first, std::int64_t begin, std::int64_t end, bool aligned) const {
    return {load_elements(a, dy, first, begin, end, aligned), load_elements(a, x, first, begin, end, aligned),
            passage.passes(a, first, begin, end, aligned)};
  }
  BATCHNORM_DEVICE Constant constant(std::int64_t channel, std::int64_t) const { return mean[channel]; }

  template <class Sum>
  BATCHNORM_DEVICE void add(Sum (&sum)[2], const Inputs& in, int k, Constant center) const {
    using F = typename Sum::Scalar;
    const auto dz = static_cast<F>(passage.dz(widen(in.dy.at[k]), (in.passes >> k & 1U) != 0));
    const auto d = Sum::difference(static_cast<F>(widen(in.x.at[k])), static_cast<F>(center));
    sum[0].add(dz, 0);
    sum[1].add_product(dz, 0, d.high, d.low);
  }

  template <class Sum>
  BATCHNORM_DEVICE static void store(const PartialView& to, std::int64_t, const Sum (&sum)[2], Constant) {
    for (int j = 0; j < 2; ++j) {
      const Pair<double> s = sum[j].result();
      to[2 * j] = s.high;
      to[2 * j + 1] = s.low;
    }
  }
};

}  // namespace batchnorm::cuda
