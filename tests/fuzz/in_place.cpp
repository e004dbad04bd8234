// SPDX-License-Identifier: MIT
#include <batchnorm/in_place.hpp>

#include "kinds.hpp"
#include "support/gradient_calls.hpp"
#include "values.hpp"

// Training that keeps one buffer, of float.
namespace fuzz {
namespace {

struct InPlaceCase {
  const Plan* plan = nullptr;
  Call<float, float> call{};
  std::vector<float> dy{};
  Layout x{}, dy_layout{}, dx{};
  double slope = 0.01;
};

struct InPlaceOutcome {
  std::vector<float> y, batch_mean, batch_variance, dx, dscale, dbias;
};

template <Format F>
InPlaceOutcome run_in_place(const InPlaceCase& c, const Way& way) {
  const batchnorm::InPlaceBatchNorm<float, F> layer(c.call.options, {c.slope});
  const std::size_t channels = c.call.scale->size();
  Stage forward(way.flush);
  const auto* x = forward.output("x", c.call.shape, c.x, c.call.x);
  const auto *scale = forward.input("scale", c.call.scale), *bias = forward.input("bias", c.call.bias);
  const auto *batch_mean = forward.output("batch_mean", blank<float>(channels)),
             *batch_variance = forward.output("batch_variance", blank<float>(channels));
  forward.run([&] {
    layer.forward({.x = x->view(),
                   .scale = view(scale),
                   .bias = view(bias),
                   .batch_mean = batch_mean->view(),
                   .batch_variance = batch_variance->view()},
                  options_of(way));
  });
  InPlaceOutcome outcome{x->values(), batch_mean->values(), batch_variance->values(), {}, {}, {}};
  Stage backward(way.flush);
  const auto *y = backward.input("y", c.call.shape, c.x, outcome.y),
             *dy = backward.input("dy", c.call.shape, c.dy_layout, c.dy);
  const auto* variance = backward.input("variance", outcome.batch_variance);
  const auto* dx = backward.output("dx", c.call.shape, c.dx, blank<float>(c.dy.size()));
  const auto *dscale = backward.output("dscale", blank<float>(channels)),
             *dbias = backward.output("dbias", blank<float>(channels));
  backward.run([&] {
    layer.backward({.dy = dy->view(), .y = y->view(), .scale = view(scale), .bias = view(bias), .variance = variance->view()},
                   {dx->view(), dscale->view(), dbias->view(), {}}, options_of(way));
  });
  outcome.dx = dx->values(), outcome.dscale = dscale->values(), outcome.dbias = dbias->values();
  return outcome;
}

InPlaceOutcome run_in_place(const InPlaceCase& c, const Way& way) {
  return c.call.format == Format::NCHW ? run_in_place<Format::NCHW>(c, way) : run_in_place<Format::NHWC>(c, way);
}

/// The gradients of one channel, from the exact xh that y as it is stored stands for: the library is allowed to be off in it
/// by 2 u (|xh| + |bias / scale|).
void note_channel(const InPlaceCase& c, const InPlaceOutcome& got, std::int64_t channel, Worst& dx, Worst& dscale,
                  Worst& dbias) {
  const Extents e = c.call.extents();
  const auto at = static_cast<std::size_t>(channel);
  const Real scale = real((*c.call.scale)[at]), bias = c.call.bias ? real((*c.call.bias)[at]) : 0;
  const Real slope = static_cast<float>(c.slope), variance = real(got.batch_variance[at]);
  Values xh, dz;
  Real off = 0, sum_off = 0;
  for (std::int64_t j = 0; j < e.n * e.s; ++j) {
    const std::size_t i = e.index(j / e.s, channel, j % e.s);
    const Real y = real(got.y[i]);
    xh.push_back(((y < 0 ? y / slope : y) - bias) / scale);
    dz.push_back((y > 0 || std::isnan(y) ? 1 : slope) * real(c.dy[i]));
    const Real here = 2 * 0x1p-24L * (std::abs(xh.back()) + std::abs(bias / scale));
    off = std::max(off, here), sum_off += std::abs(dz.back()) * here;
  }
  const Channel of{true, {e.n * e.s, 0, 0, variance}, c.call.options.epsilon, scale};
  Values x;  // what xh is with a mean of 0
  for (const Real value : xh) x.push_back(value / of.r());
  const ChannelGradients want = support::backward(of, dz, x);
  dbias.note(error(got.dbias[at], want.dbias.value), 1, allowed_sum_error<float>(want.dbias), at);
  dscale.note(error(got.dscale[at], want.dscale.value), 1, allowed_sum_error<float>(want.dscale) + sum_off, at);
  const Real m = static_cast<Real>(e.n * e.s), a = std::abs(of.scale * of.r());
  for (std::int64_t j = 0; j < e.n * e.s; ++j) {
    const std::size_t i = e.index(j / e.s, channel, j % e.s);
    const Gradient& gradient = want.dx[static_cast<std::size_t>(j)];
    const Real of_xh =
        a * (off * std::abs(want.dscale.value) + (std::abs(xh[static_cast<std::size_t>(j)]) + off) * sum_off) / m;
    dx.note(error(got.dx[i], gradient.value), 1,
            allowed_gradient_error<float>(gradient, dx_ulps<float>(c.plan->isa, true) + 1) + of_xh, i);
  }
}

}  // namespace

void in_place(const Plan& plan, Random& random) {
  InPlaceCase c{
      &plan, {}, {}, draw_layout(random, plan, false), draw_layout(random, plan, true), draw_layout(random, plan, false)};
  constexpr double slopes[] = {0.01, 0.25, 1.0};
  c.slope = slopes[random.integer(0, 2)];
  c.call = {plan.shape, plan.format, plan.options, draw_values<float>(random, plan, plan.x)};
  c.call.options.is_training = true;
  c.dy = settled(draw_values<float>(random, plan, Data::normal), plan.shape, c.dy_layout);
  const Extents e = plan.extents();
  c.call.scale = filled<float>(e.c, [&] { return random.uniform(0.1, 2) * (random.integer(0, 1) == 0 ? 1 : -1); });
  c.call.bias = draw_vector<float>(random, e.c, -1, 1);

  const InPlaceOutcome got = run_in_place(c, plan.way);
  const Expected want = expected(c.call);
  Worst y, dx, dscale, dbias;
  for (std::size_t i = 0; i < c.call.x.size(); ++i) {
    const Normalized& z = want.y[i];
    const Real slope = z.z < 0 ? static_cast<Real>(static_cast<float>(c.slope)) : 1;
    const Real ulp = ulp_at<float>(z.magnitude);
    y.note(error(got.y[i], slope * z.z), ulp, allowed_y_error<float>(plan.isa, z, 0, true) + ulp, i);
  }
  require_kept("y in place", y);
  for (std::int64_t channel = 0; channel < e.c && !c.call.x.empty(); ++channel)
    note_channel(c, got, channel, dx, dscale, dbias);
  require_kept("dbias in place", dbias);
  require_kept("dscale in place", dscale);
  require_kept("dx in place", dx);
  const InPlaceOutcome again = run_in_place(c, plan.other_way);
  require_same("y in place", got.y, again.y, two_ways);
  require_same("dx in place", got.dx, again.dx, two_ways);
  require_same("dscale in place", got.dscale, again.dscale, two_ways);
  require_same("dbias in place", got.dbias, again.dbias, two_ways);
}

}  // namespace fuzz
