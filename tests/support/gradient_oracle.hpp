// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "oracle.hpp"

// The gradients' formulas in long double, one channel after the other, with the saved statistics as they are given; and with
// each result the magnitude at which its error is measured, and what the error of a sum can do to it.
//
//   xh = (x - mean) * r     r = 1 / sqrt(variance + epsilon)     a = scale * r     M[.] the mean over the channel
namespace support {

/// The values of one channel.
using Values = std::vector<Real>;

template <class T>
Values channel_values(std::span<const T> tensor, const Extents& e, std::int64_t c) {
  Values values;
  values.reserve(static_cast<std::size_t>(e.n * e.s));
  for (std::int64_t n = 0; n < e.n; ++n) {
    for (std::int64_t s = 0; s < e.s; ++s) values.push_back(real(tensor[e.index(n, c, s)]));
  }
  return values;
}

/// What a channel is normalised with.
struct Channel {
  bool is_training = true;
  Statistics saved{};
  double epsilon = 1e-5;
  Real scale = 1;

  Real r() const { return 1 / std::sqrt(saved.variance + static_cast<Real>(epsilon)); }
  Values normalized(const Values& x) const {
    Values xh;
    for (const Real value : x) xh.push_back(((value - saved.mean) - saved.rest) * r());
    return xh;
  }
};

/// A sum over a channel, and the sum of the magnitudes of its terms.
struct Sum {
  Real value = 0, terms = 0;

  void add(Real term) { value += term, terms += std::abs(term); }
  Sum operator/(Real count) const { return {value / count, terms / count}; }
};

template <class Term>
Sum sum_over(std::size_t count, Term&& term) {
  Sum sum;
  for (std::size_t i = 0; i < count; ++i) sum.add(term(i));
  return sum;
}

/// The mean of term(i) over a channel; 0 of no values.
template <class Term>
Sum mean_over(std::size_t count, Term&& term) {
  return count == 0 ? Sum{} : sum_over(count, term) / static_cast<Real>(count);
}

/// The largest magnitude, NaN where one of them is.
inline Real largest(std::initializer_list<Real> terms) {
  Real result = 0;
  for (const Real term : terms) {
    if (!(std::abs(term) <= result)) result = std::abs(term);
  }
  return result;
}

/// One element of a gradient: the value, the largest of the numbers it is made of, and by how much it is off, per unit, when
/// every sum in it is off by that share of the magnitudes of its terms.
struct Gradient {
  Real value = 0, at = 0, of_sums = 0;
};

struct ChannelGradients {
  std::vector<Gradient> dx;
  Sum dscale, dbias;
};

inline ChannelGradients backward(const Channel& channel, const Values& dy, const Values& x) {
  const std::size_t m = x.size();
  const Values xh = channel.normalized(x);
  const Real a = channel.scale * channel.r();
  ChannelGradients result;
  result.dbias = sum_over(m, [&](std::size_t i) { return dy[i]; });
  result.dscale = sum_over(m, [&](std::size_t i) { return dy[i] * xh[i]; });
  for (std::size_t i = 0; i < m; ++i) {
    if (!channel.is_training) {
      result.dx.push_back({a * dy[i], std::abs(a * dy[i]), 0});
      continue;
    }
    const Sum mean = result.dbias / static_cast<Real>(m), projection = result.dscale / static_cast<Real>(m);
    result.dx.push_back({a * (dy[i] - mean.value - xh[i] * projection.value),
                         largest({a * dy[i], a * mean.value, a * xh[i] * projection.value}),
                         std::abs(a) * (mean.terms + std::abs(xh[i]) * projection.terms)});
  }
  return result;
}

struct ChannelDoubleGradients {
  std::vector<Gradient> dx, ddy;
  Sum dscale;
};

/// g = ddx, gs = ddscale, gb = ddbias
inline ChannelDoubleGradients double_backward(const Channel& channel, const Values& dy, const Values& x, const Values& g,
                                              Real gs, Real gb) {
  const std::size_t m = x.size();
  const Values xh = channel.normalized(x);
  const Real r = channel.r(), a = channel.scale * r, b = a * r, training = channel.is_training ? 1 : 0;
  const auto mean = [&](auto term) { return channel.is_training ? mean_over(m, term) : Sum{}; };
  const Sum M_g = mean([&](std::size_t i) { return g[i]; }), M_dy = mean([&](std::size_t i) { return dy[i]; });
  const Sum M_g_xh = mean([&](std::size_t i) { return g[i] * xh[i]; });
  const Sum M_dy_xh = mean([&](std::size_t i) { return dy[i] * xh[i]; });
  const Sum M_dy_g = mean([&](std::size_t i) { return dy[i] * g[i]; });
  // The term of xh, without the cancellation of M[g] M[dy] with M[dy g].
  const Real covariance = mean([&](std::size_t i) { return (dy[i] - M_dy.value) * (g[i] - M_g.value); }).value;
  const Real curvature = 3 * M_dy_xh.value * M_g_xh.value - covariance;

  ChannelDoubleGradients result;
  for (std::size_t i = 0; i < m; ++i) {
    const Real centred = dy[i] - M_dy.value - xh[i] * M_dy_xh.value;
    result.ddy.push_back({a * (g[i] - M_g.value - xh[i] * M_g_xh.value) + gs * xh[i] + gb,
                          largest({a * g[i], a * M_g.value, a * (g[i] - M_g.value), a * xh[i] * M_g_xh.value, gs * xh[i],
                                   (gs - a * M_g_xh.value) * xh[i], gb}),
                          std::abs(a) * (M_g.terms + std::abs(xh[i]) * M_g_xh.terms)});
    result.dx.push_back(
        {training * b * (xh[i] * curvature + M_g_xh.value * (M_dy.value - dy[i]) + M_dy_xh.value * (M_g.value - g[i])) +
             gs * r * centred,
         largest({b * xh[i] * M_g.value * M_dy.value, b * xh[i] * M_dy_g.value, 3 * b * xh[i] * M_dy_xh.value * M_g_xh.value,
                  b * M_g_xh.value * M_dy.value, b * M_g_xh.value * dy[i], b * M_dy_xh.value * M_g.value,
                  b * M_dy_xh.value * g[i], gs * r * dy[i], gs * r * M_dy.value, gs * r * xh[i] * M_dy_xh.value,
                  (training * b * curvature - gs * r * M_dy_xh.value) * xh[i],
                  (gs * r - b * M_g_xh.value) * (dy[i] - M_dy.value), b * M_dy_xh.value * (g[i] - M_g.value)}),
         std::abs(b) * (std::abs(xh[i]) * (2 * M_g.terms * M_dy.terms + M_dy_g.terms + 6 * M_dy_xh.terms * M_g_xh.terms) +
                        M_g_xh.terms * (2 * M_dy.terms + std::abs(dy[i])) + M_dy_xh.terms * (2 * M_g.terms + std::abs(g[i]))) +
             std::abs(gs * r) * (M_dy.terms + std::abs(xh[i]) * M_dy_xh.terms)});
    result.dscale.value += g[i] * r * centred;
    result.dscale.terms += std::abs(g[i] * r) * (std::abs(dy[i]) + M_dy.terms + std::abs(xh[i]) * M_dy_xh.terms);
  }
  return result;
}

}  // namespace support
