// SPDX-License-Identifier: MIT
#pragma once

// What double gradients sum up over a channel, what follows from the sums, and the operation on each element.

#include <batchnorm/policy/gradients.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Sums of x - center, of dy - p and g - q about pivots, and of the products of each two, in the order xc, d, e, d xc, e xc, d
/// e. Inputs: x, dy, g.
template <Element T>
struct DoubleGradientSummation {
  static constexpr int inputs = 3, constants = 3, factors = 3, sums = 6;
  static constexpr bool reads_bits = false;

  template <class V>
  BATCHNORM_INLINE void form(const V (&in)[3], const V (&constant)[3], const MaskOf<V>&, V (&factor)[3]) const {
    BATCHNORM_UNROLL
    for (int k = 0; k < 3; ++k) factor[k] = in[k] - constant[k];
  }
  template <class V>
  BATCHNORM_INLINE void add(const V (&f)[3], V (&sum)[6]) const {
    BATCHNORM_UNROLL
    for (int k = 0; k < 3; ++k) sum[k] = sum[k] + f[k];
    sum[3] = fma(f[1], f[0], sum[3]);
    sum[4] = fma(f[2], f[0], sum[4]);
    sum[5] = fma(f[1], f[2], sum[5]);
  }
};

/// The sums that the double gradient needs. Products of dy and g are summed about one pivot for the channel, its first values
/// (`pivots`), or about 0.
template <Element T>
struct DoubleGradientStatistic {
  using Summation = DoubleGradientSummation<T>;
  static constexpr int state = 2 * Summation::sums;

  Summation summation;
  const double* center;
  bool pivots;

  void begin(const Inputs& in, const Block&, std::int64_t first, std::int64_t channels, const SumArrays& to) const noexcept {
    std::copy_n(center + first, channels, to.constant[0]);
    for (std::size_t k = 1; k < 3; ++k) {
      if (pivots) {
        copy_pivots<T>(in[k], 0, 0, first, channels, to.constant[k]);
      } else {
        std::fill_n(to.constant[k], channels, 0.0);
      }
    }
  }
  void merge(Isa isa, const ChannelArrays& to, const SumArrays& block, std::int64_t channels, std::int64_t before,
             std::int64_t) const noexcept {
    run(isa, MergeSums{to, block, Summation::sums, channels, before == 0});
  }
};

/// dx and ddy of one element, from x, dy and g = ddx. In training, with xc = x - center, d = dy - mean_dy, e = g - mean_g,
///
///   dx = D xc + (B d + (F e + G))        ddy = A e + (B xc + C)
///
/// and in inference dx = B dy, ddy = A g + (B xc + C). Coefficients: center, A, B, C, and in training mean_dy, mean_g, D, F, G.
template <Element T, bool is_training>
struct DoubleGradient {
  static constexpr int inputs = 3, outputs = 2, coefficients = is_training ? 9 : 4, prefetched = is_training ? 3 : 0;
  static constexpr Bits bits = Bits::none;

  bool wants_dx = true, wants_ddy = true;

  bool stores(int j) const { return j == 0 ? wants_dx : wants_ddy; }

  template <class V>
  BATCHNORM_INLINE void operator()(const V (&in)[3], const V (&k)[coefficients], const MaskOf<V>&, V (&out)[2]) const {
    const V xc = in[0] - k[0];
    if constexpr (is_training) {
      const V d = in[1] - k[4], e = in[2] - k[5];
      out[0] = fma(k[6], xc, fma(k[2], d, fma(k[7], e, k[8])));
      out[1] = fma(k[1], e, fma(k[2], xc, k[3]));
    } else {
      out[0] = k[2] * in[1];
      out[1] = fma(k[1], in[2], fma(k[2], xc, k[3]));
    }
  }
};

/// The caller's arrays over channels for a double gradient; null where absent (scale 1, the others 0).
template <Element P>
struct DoubleGradientArguments {
  const P* scale = nullptr;
  const P* ddscale = nullptr;
  const P* ddbias = nullptr;
  P* dscale = nullptr;
  double epsilon = 0;
  std::int64_t values = 0;  // m

  DoubleGradientArguments at(std::int64_t c) const noexcept {
    const auto shifted = [c](auto* p) { return p == nullptr ? p : p + c; };
    return {shifted(scale), shifted(ddscale), shifted(ddbias), shifted(dscale), epsilon, values};
  }
  static double value(const P* p, std::int64_t c, double absent) noexcept { return p == nullptr ? absent : widened(p[c]); }
};

/// What the sums of DoubleGradientSummation about the pivots p and q say of a channel, with r = 1 / sqrt(variance + epsilon):
/// the means of dy, g, dy xh and g xh, and the covariance of dy and g.
struct DoubleGradientMeans {
  double r, dy, g, dy_xh, g_xh, covariance;

  DoubleGradientMeans(const ChannelArrays& state, std::int64_t c, double p, double q, double inverse_deviation,
                      double m) noexcept
      : r(inverse_deviation) {
    const auto sum = [&](int k) { return state[2 * k][c] + state[2 * k + 1][c]; };
    const double xc = sum(0), d = sum(1), e = sum(2);
    dy = p + d / m;
    g = q + e / m;
    dy_xh = r * ((sum(3) + p * xc) / m);
    g_xh = r * ((sum(4) + q * xc) / m);
    covariance = (sum(5) - d * (e / m)) / m;
  }
};

/// The coefficients of DoubleGradient in training for channel c, and dscale. With s = scale, t = ddscale, u = ddbias, M[.] the
/// means above and cov the covariance:
///
///   A = s r      B = t r - s r^2 M[g xh]      C = u - A (M[g] - mean_g) - B (mean - center)
///   D = s r^3 (3 M[dy xh] M[g xh] - cov) - t r^2 M[dy xh]      F = -s r^2 M[dy xh]
///   G = -B (M[dy] - mean_dy) - F (M[g] - mean_g) - D (mean - center)      dscale = m r (cov - M[g xh] M[dy xh])
template <class Compute, Element P>
void finalize_double_gradient(const DoubleGradientMeans& means, const GivenStatistics& given, std::int64_t c,
                              const DoubleGradientArguments<P>& to, const Coefficients<Compute, 9>* coefficients) noexcept {
  const auto& [r, dy, g, dy_xh, g_xh, covariance] = means;
  const double s = to.value(to.scale, c, 1), t = to.value(to.ddscale, c, 0), u = to.value(to.ddbias, c, 0);
  if (to.dscale != nullptr) {
    const double dscale = static_cast<double>(to.values) * r * (covariance - g_xh * dy_xh);
    to.dscale[c] = static_cast<P>(static_cast<compute_t<P>>(dscale));
  }
  if (coefficients == nullptr) return;
  const auto rounded = [&](int k, double value) {
    return static_cast<double>(coefficients->array[k][c] = static_cast<Compute>(value));
  };
  const double mean = given.center()[c];
  const double center_lost = mean - rounded(0, mean), dy_lost = dy - rounded(4, dy), g_lost = g - rounded(5, g);
  const double a = rounded(1, s * r);
  const double b = rounded(2, r * (t - s * r * g_xh));
  rounded(3, u - a * g_lost - b * center_lost);
  const double d = rounded(6, r * r * (s * r * (3 * dy_xh * g_xh - covariance) - t * dy_xh));
  const double f = rounded(7, -s * r * r * dy_xh);
  rounded(8, -b * dy_lost - f * g_lost - d * center_lost);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
