// SPDX-License-Identifier: MIT
#include "kinds.hpp"
#include "support/gradient_calls.hpp"
#include "values.hpp"

// The gradient, plain and through an activation.
namespace fuzz {
namespace {

enum class Through { nothing, mask, output };

template <class T, class P>
struct BackwardCase {
  const Plan* plan = nullptr;
  GradientCall<T, P> call{};
  Layout x{}, dy{}, y{}, dx{}, dresidual{};
  Through through = Through::nothing;
  bool is_relu = false;
  double slope = 0;
  std::vector<T> output{};  ///< the output of the forward pass
  std::vector<std::uint8_t> mask{};
  bool wants_dx = true, wants_dscale = true, wants_dbias = true, wants_dresidual = true;
  bool dx_is_dy = false, dresidual_is_dy = false;
};

template <class T, class P>
struct BackwardOutcome {
  GradientResult<T, P> of;
  std::vector<T> dresidual;
};

template <class T, class P>
BackwardCase<T, P> draw_backward(Random& random, const Plan& plan) {
  BackwardCase<T, P> c{&plan};
  const auto chance = [&](std::int64_t one_in) { return random.integer(1, one_in) == 1; };
  c.wants_dx = !chance(8), c.wants_dscale = !chance(6), c.wants_dbias = !chance(6), c.wants_dresidual = chance(2);
  c.dx_is_dy = c.wants_dx && chance(4);
  c.dresidual_is_dy = c.wants_dresidual && !c.dx_is_dy && chance(4);
  c.x = draw_layout(random, plan, true);
  c.dy = draw_layout(random, plan, !c.dx_is_dy && !c.dresidual_is_dy);
  c.y = draw_layout(random, plan, true);
  c.dx = c.dx_is_dy ? c.dy : draw_layout(random, plan, false);
  c.dresidual = c.dresidual_is_dy ? c.dy : draw_layout(random, plan, false);
  if constexpr (std::is_same_v<P, batchnorm::parameter_t<T>>) c.through = static_cast<Through>(random.integer(0, 2));
  if (c.through == Through::mask && !plan.natural_order) c.through = Through::output;
  c.is_relu = chance(2);
  constexpr double slopes[] = {0.01, 0.25, 0.0, 1.0};
  c.slope = c.is_relu ? 0 : slopes[random.integer(0, 3)];
  c.call = {plan.shape, plan.format, plan.options, settled(draw_values<T>(random, plan, plan.dy), plan.shape, c.dy),
            settled(draw_values<T, P>(random, plan, plan.x), plan.shape, c.x)};
  const std::int64_t channels = plan.extents().c;
  c.call.scale = draw_scale<P>(random, channels);
  save_statistics(c.call);
  if (!plan.options.is_training) c.call.mean = *draw_vector<P>(random, channels, -1, 1, 0);
  if (!plan.options.is_training) c.call.variance = *draw_vector<P>(random, channels, 0.1, 3, 0);
  c.output = settled(filled<T>(static_cast<std::int64_t>(c.call.x.size()),
                               [&] { return static_cast<double>(random.integer(-4, 4)) * random.uniform(0.5, 1); }),
                     plan.shape, c.y);
  const std::vector<std::size_t> order = mask_order(plan);
  c.mask.resize((order.size() + 7) / 8);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (real(c.output[i]) > 0) c.mask[order[i] / 8] = static_cast<std::uint8_t>(c.mask[order[i] / 8] | 1U << order[i] % 8);
  }
  return c;
}

template <class T, class P>
BackwardOutcome<T, P> run_backward(const BackwardCase<T, P>& c, const Way& way) {
  const auto& of = c.call;
  const std::size_t size = of.x.size(), channels = static_cast<std::size_t>(of.extents().c);
  Stage stage(way.flush);
  const auto* x = stage.input("x", of.shape, c.x, of.x);
  Placed<T>* dy = nullptr;
  if (c.dx_is_dy || c.dresidual_is_dy) {
    dy = stage.output("dy", of.shape, c.dy, of.dy);
  } else {
    dy = stage.input("dy", of.shape, c.dy, of.dy);
  }
  Placed<T>*dx = c.dx_is_dy ? dy : nullptr, *dresidual = c.dresidual_is_dy ? dy : nullptr;
  if (c.wants_dx && dx == nullptr) dx = stage.output("dx", of.shape, c.dx, blank<T>(size));
  if (c.wants_dresidual && dresidual == nullptr) dresidual = stage.output("dresidual", of.shape, c.dresidual, blank<T>(size));
  Placed<P>*dscale = nullptr, *dbias = nullptr;
  if (c.wants_dscale) dscale = stage.output("dscale", blank<P>(channels));
  if (c.wants_dbias) dbias = stage.output("dbias", blank<P>(channels));
  const auto *scale = stage.input("scale", of.scale), *mean = stage.input("mean", of.mean),
             *variance = stage.input("variance", of.variance);
  const auto* y = stage.input("y", of.shape, c.y, c.output);
  const auto* mask = stage.input("mask", c.mask);
  const batchnorm::GradientViews<T, P> out{view(dx), view(dscale), view(dbias), view(dresidual)};
  stage.run([&] {
    const auto call = [&](const auto& through) {
      batchnorm::batch_norm_backward<T, P>(of.format, of.options, dy->view(), x->view(), view(scale), mean->view(),
                                           variance->view(), out, through, options_of(way));
    };
    if constexpr (std::is_same_v<P, batchnorm::parameter_t<T>>) {
      if (c.through == Through::mask && c.is_relu) return call(ThroughReluMask{mask->view(), {}});
      if (c.through == Through::mask) return call(ThroughLeakyMask{mask->view(), {c.slope}});
      if (c.through == Through::output && c.is_relu) return call(ThroughReluOutput<T>{y->view(), {}});
      if (c.through == Through::output) return call(ThroughLeakyOutput<T>{y->view(), {c.slope}});
    }
    call(batchnorm::Identity{});
  });
  return {{values(dx), values(dscale), values(dbias)}, values(dresidual)};
}

/// dx, dscale and dbias of one channel, dz being dy after the activation.
template <class T, class P>
void note_channel(const BackwardCase<T, P>& c, const BackwardOutcome<T, P>& got, std::int64_t channel, GradientErrors& worst,
                  Worst& dresidual) {
  const Extents e = c.call.extents();
  const Real slope = std::is_same_v<T, double> ? static_cast<Real>(c.slope) : static_cast<Real>(static_cast<float>(c.slope));
  const bool rounds_dz = c.through != Through::nothing && slope != 0 && slope != 1 && sizeof(T) != 2;
  // The product with the slope is rounded on its way to dx: half an ulp, that may double where a * dz crosses a binade.
  const Real ulps = dx_ulps<T>(c.plan->isa, c.call.options.is_training) + (rounds_dz ? 1 : 0);
  Values dz;
  for (std::int64_t j = 0; j < e.n * e.s; ++j) {
    const std::size_t i = e.index(j / e.s, channel, j % e.s);
    const bool passes = c.through == Through::nothing || real(c.output[i]) > 0;
    dz.push_back((passes ? 1 : slope) * real(c.call.dy[i]));
    if (!c.wants_dresidual) continue;
    const Real ulp = ulp_at<T>(std::abs(dz.back()));
    dresidual.note(error(got.dresidual[i], dz.back()), ulp, ulp * rounded_once_ulps, i);
  }
  const ChannelGradients want = support::backward(c.call.channel(channel), dz, channel_values<T>(c.call.x, e, channel));
  const Channel of = c.call.channel(channel);
  const Real factor = rounds_dz ? std::abs(of.scale * of.r()) : 0;
  const Real mean_dz = want.dbias.value / static_cast<Real>(std::max<std::int64_t>(e.n * e.s, 1));
  for (std::int64_t j = 0; c.wants_dx && j < e.n * e.s; ++j) {
    const std::size_t i = e.index(j / e.s, channel, j % e.s);
    const Gradient& dx = want.dx[static_cast<std::size_t>(j)];
    // The factors of dz and of x are rounded to the computing type, of which a subnormal one keeps few digits; slope * dy too.
    const Real underflow = ulp_at<batchnorm::compute_t<T>>(0) *
                           (std::abs(dz[static_cast<std::size_t>(j)]) + std::abs(mean_dz) + factor +
                            std::abs(real(c.call.x[i]) - real(c.call.mean[static_cast<std::size_t>(channel)])));
    worst.dx.note(error(got.of.dx[i], dx.value), ulp_at<T>(gradient_magnitude<T>(dx)),
                  allowed_gradient_error<T>(dx, ulps) + underflow, i);
  }
  const auto at = static_cast<std::size_t>(channel);
  const auto note_sum = [&](Worst& to, const std::vector<P>& sums, const Sum& sum) {
    to.note(error(sums[at], sum.value), ulp_at<P>(sum_magnitude<P>(sum)), allowed_sum_error<P>(sum), at);
  };
  if (c.wants_dscale) note_sum(worst.dscale, got.of.dscale, want.dscale);
  if (c.wants_dbias) note_sum(worst.dbias, got.of.dbias, want.dbias);
}

}  // namespace

void backward(const Plan& plan, Random& random) {
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    const auto c = draw_backward<T, P>(random, plan);
    const auto got = run_backward(c, plan.way);
    GradientErrors worst;
    Worst dresidual;
    for (std::int64_t channel = 0; channel < plan.extents().c; ++channel) note_channel(c, got, channel, worst, dresidual);
    require_kept("dx", worst.dx);
    require_kept("dscale", worst.dscale);
    require_kept("dbias", worst.dbias);
    require_kept("dresidual", dresidual);
    const auto again = run_backward(c, plan.other_way);
    require_same("dx", got.of.dx, again.of.dx, two_ways);
    require_same("dscale", got.of.dscale, again.of.dscale, two_ways);
    require_same("dbias", got.of.dbias, again.of.dbias, two_ways);
    require_same("dresidual", got.dresidual, again.dresidual, two_ways);
  });
}

}  // namespace fuzz
