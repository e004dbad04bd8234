// SPDX-License-Identifier: MIT
#pragma once

// Sums: in double where a device adds doubles fast, as compensated pairs where it does not, and where the elements are doubles.

#include <batchnorm/cuda/element.cuh>

namespace batchnorm::cuda {

/// high + low, more digits than either. Sources: Knuth (two_sum), Dekker; Ogita, Rump, Oishi, "Accurate sum and dot product",
/// 2005 (the sums).
template <class F>
struct Pair {
  F high = 0, low = 0;
};

template <class F>
BATCHNORM_DEVICE Pair<F> two_sum(F a, F b) {
  const F sum = a + b, of_b = sum - a;
  return {sum, (a - (sum - of_b)) + (b - of_b)};
}
template <class F>
BATCHNORM_DEVICE Pair<F> two_product(F a, F b) {
  const F product = a * b;
  return {product, fused(a, b, -product)};
}

/// The sum of doubles.
struct PlainSum {
  using Scalar = double;
  double value = 0;

  /// Adds (a + a_low).
  BATCHNORM_DEVICE void add(double a, double) { value += a; }
  /// Adds (a + a_low) * (b + b_low).
  BATCHNORM_DEVICE void add_product(double a, double, double b, double) { value = fused(a, b, value); }
  BATCHNORM_DEVICE void add(const PlainSum& other) { value += other.value; }
  BATCHNORM_DEVICE Pair<double> result() const { return {value, 0}; }
  template <class Accelerator>
  BATCHNORM_DEVICE PlainSum from_lane(Accelerator& a, int lane_mask) const {
    return {a.shuffle_xor(value, lane_mask)};
  }
  /// a - b and what its rounding loses.
  BATCHNORM_DEVICE static Pair<double> difference(double a, double b) { return {a - b, 0}; }
};

/// The sum of F in twice its precision.
template <class F>
struct PairSum {
  using Scalar = F;
  F high = 0, low = 0;

  BATCHNORM_DEVICE void add(F a, F a_low) {
    const Pair<F> sum = two_sum(high, a);
    high = sum.high;
    low += sum.low + a_low;
  }
  BATCHNORM_DEVICE void add_product(F a, F a_low, F b, F b_low) {
    const Pair<F> product = two_product(a, b);
    add(product.high, product.low + (a * b_low + a_low * b));
  }
  BATCHNORM_DEVICE void add(const PairSum& other) { add(other.high, other.low); }
  BATCHNORM_DEVICE Pair<double> result() const {
    // NaN and infinity come through: what two_sum makes of an infinite sum is NaN in `low` alone.
    const bool is_plain = is_finite(high);
    if constexpr (std::is_same_v<F, float>) {
      return {is_plain ? static_cast<double>(high) + static_cast<double>(low) : static_cast<double>(high), 0};
    } else {
      if (!is_plain) return {high, 0};
      return two_sum(high, low);
    }
  }
  template <class Accelerator>
  BATCHNORM_DEVICE PairSum from_lane(Accelerator& a, int lane_mask) const {
    return {a.shuffle_xor(high, lane_mask), a.shuffle_xor(low, lane_mask)};
  }
  BATCHNORM_DEVICE static Pair<F> difference(F a, F b) { return two_sum(a, -b); }
};

/// Lanes below `from` (a power of two) get the sum of all lanes that have the same rank modulo `from`, by halving.
template <class Accelerator, class Sum>
BATCHNORM_DEVICE void add_lanes(Accelerator& a, Sum& sum, int from = 1) {
  for (int mask = 16; mask >= from; mask /= 2) sum.add(sum.from_lane(a, mask));
}

/// Whether the accelerator adds doubles at half the rate of floats, not at 1/32 or 1/64 of it.
template <class Accelerator>
constexpr bool adds_doubles_fast() {
  if constexpr (requires { Accelerator::adds_doubles_fast; }) {
    return Accelerator::adds_doubles_fast;
  } else {
    return true;
  }
}

/// How elements of type T are summed.
template <class T, class Accelerator>
using SumOf = std::conditional_t<std::is_same_v<T, double>, PairSum<double>,
                                 std::conditional_t<adds_doubles_fast<Accelerator>(), PlainSum, PairSum<float>>>;

}  // namespace batchnorm::cuda
