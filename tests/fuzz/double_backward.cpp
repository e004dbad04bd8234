// SPDX-License-Identifier: MIT
#include "kinds.hpp"
#include "support/gradient_calls.hpp"
#include "values.hpp"

// The gradient of the gradient.
namespace fuzz {
namespace {

template <class T, class P>
struct DoubleCase {
  const Plan* plan = nullptr;
  DoubleGradientCall<T, P> call{};
  Layout x{}, dy{}, ddx{}, dx{}, ddy{};
  bool wants_dx = true, wants_ddy = true, wants_dscale = true;
};

template <class T, class P>
DoubleCase<T, P> draw_double(Random& random, const Plan& plan) {
  DoubleCase<T, P> c{&plan,
                     {},
                     draw_layout(random, plan, true),
                     draw_layout(random, plan, true),
                     draw_layout(random, plan, true),
                     draw_layout(random, plan, false),
                     draw_layout(random, plan, false)};
  c.wants_dx = random.integer(0, 7) != 0, c.wants_ddy = random.integer(0, 7) != 0, c.wants_dscale = random.integer(0, 5) != 0;
  const auto values = [&](Data data, const Layout& layout) {
    // Products of three tensors: the ends of the ranges are not what this is about.
    return settled(draw_values<T, P>(random, plan, data == Data::scaled || data == Data::subnormal ? Data::normal : data),
                   plan.shape, layout);
  };
  GradientCall<T, P>& of = c.call.of;
  of = {plan.shape, plan.format, plan.options, values(plan.dy, c.dy), values(plan.x, c.x)};
  const std::int64_t channels = plan.extents().c;
  of.scale = draw_vector<P>(random, channels, -2, 2);
  save_statistics(of);
  if (!plan.options.is_training) of.mean = *draw_vector<P>(random, channels, -1, 1, 0);
  if (!plan.options.is_training) of.variance = *draw_vector<P>(random, channels, 0.1, 3, 0);
  if (random.integer(0, 7) != 0) c.call.ddx = values(Data::normal, c.ddx);
  c.call.ddscale = draw_vector<P>(random, channels, -2, 2);
  c.call.ddbias = draw_vector<P>(random, channels, -1, 1);
  return c;
}

template <class T, class P>
DoubleGradientResult<T, P> run_double(const DoubleCase<T, P>& c, const Way& way) {
  const GradientCall<T, P>& of = c.call.of;
  Stage stage(way.flush);
  const auto *x = stage.input("x", of.shape, c.x, of.x), *dy = stage.input("dy", of.shape, c.dy, of.dy);
  const Placed<T>* ddx = c.call.ddx ? stage.input("ddx", of.shape, c.ddx, *c.call.ddx) : nullptr;
  const auto *scale = stage.input("scale", of.scale), *mean = stage.input("mean", of.mean),
             *variance = stage.input("variance", of.variance), *ddscale = stage.input("ddscale", c.call.ddscale),
             *ddbias = stage.input("ddbias", c.call.ddbias);
  const Placed<T>* dx = c.wants_dx ? stage.output("dx", of.shape, c.dx, blank<T>(of.x.size())) : nullptr;
  const Placed<T>* ddy = c.wants_ddy ? stage.output("ddy", of.shape, c.ddy, blank<T>(of.x.size())) : nullptr;
  const Placed<P>* dscale = c.wants_dscale ? stage.output("dscale", blank<P>(of.mean.size())) : nullptr;
  stage.run([&] {
    batchnorm::batch_norm_double_backward<T, P>(of.format, of.options,
                                                {.dy = dy->view(),
                                                 .x = x->view(),
                                                 .scale = view(scale),
                                                 .mean = mean->view(),
                                                 .variance = variance->view(),
                                                 .ddx = view(ddx),
                                                 .ddscale = view(ddscale),
                                                 .ddbias = view(ddbias)},
                                                {view(dx), view(ddy), view(dscale)}, options_of(way));
  });
  return {values(dx), values(ddy), values(dscale)};
}

}  // namespace

void double_backward(const Plan& plan, Random& random) {
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    const auto c = draw_double<T, P>(random, plan);
    const auto got = run_double(c, plan.way);
    const DoubleGradientErrors worst = errors(c.call, got, expected(c.call), plan.isa);
    require_kept("dx of the double gradient", worst.dx);
    require_kept("ddy of the double gradient", worst.ddy);
    require_kept("dscale of the double gradient", worst.dscale);
    const auto again = run_double(c, plan.other_way);
    require_same("dx", got.dx, again.dx, two_ways);
    require_same("ddy", got.ddy, again.ddy, two_ways);
    require_same("dscale", got.dscale, again.dscale, two_ways);
  });
}

}  // namespace fuzz
