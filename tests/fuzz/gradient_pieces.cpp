// SPDX-License-Identifier: MIT
#include "kinds.hpp"
#include "support/gradient_calls.hpp"
#include "values.hpp"

// gradient_sums -> merge -> input_gradient, about a mean that was saved and about moments.
namespace fuzz {
namespace {

using batchnorm::GradientSums;
using batchnorm::Moments;

template <class T, class P>
struct PiecesCase {
  const Plan* plan = nullptr;
  GradientCall<T, P> call{};
  Layout x{}, dy{}, dx{};
};

/// About the moments, or, where there are none, about the mean of the call.
template <class T, class P>
GradientSums run_sums(const GradientCall<T, P>& of, const Layout& x_layout, const Layout& dy_layout, const Way& way,
                      const Moments* moments) {
  Stage stage(way.flush);
  const TensorView<const T> x = stage.input("x", of.shape, x_layout, of.x)->view();
  const TensorView<const T> dy = stage.input("dy", of.shape, dy_layout, of.dy)->view();
  const TensorView<const P> mean = stage.input("mean", of.mean)->view();
  GradientSums sums;
  stage.run([&] {
    if (moments != nullptr) {
      sums = batchnorm::gradient_sums<T>(of.format, {.dy = dy, .x = x}, *moments, batchnorm::Identity{}, options_of(way));
    } else {
      sums =
          batchnorm::gradient_sums<T, P>(of.format, {.dy = dy, .x = x, .mean = mean}, batchnorm::Identity{}, options_of(way));
    }
  });
  return sums;
}

template <class T, class P>
GradientResult<T, P> run_input_gradient(const PiecesCase<T, P>& c, const GradientSums& sums, const Way& way,
                                        const Moments* moments) {
  const GradientCall<T, P>& of = c.call;
  Stage stage(way.flush);
  const TensorView<const T> x = stage.input("x", of.shape, c.x, of.x)->view();
  const TensorView<const T> dy = stage.input("dy", of.shape, c.dy, of.dy)->view();
  const TensorView<const P> mean = stage.input("mean", of.mean)->view(),
                            variance = stage.input("variance", of.variance)->view();
  const TensorView<const P> scale = view(stage.input("scale", of.scale));
  const auto* dx = stage.output("dx", of.shape, c.dx, blank<T>(of.x.size()));
  const auto *dscale = stage.output("dscale", blank<P>(of.mean.size())),
             *dbias = stage.output("dbias", blank<P>(of.mean.size()));
  const batchnorm::GradientViews<T, P> out{dx->view(), dscale->view(), dbias->view(), {}};
  stage.run([&] {
    if (moments != nullptr) {
      batchnorm::input_gradient<T, P>(of.format, {.dy = dy, .x = x, .scale = scale}, sums, *moments, of.options.epsilon, out,
                                      batchnorm::Identity{}, options_of(way));
    } else {
      batchnorm::input_gradient<T, P>(of.format, {.dy = dy, .x = x, .scale = scale, .mean = mean, .variance = variance}, sums,
                                      of.options.epsilon, out, batchnorm::Identity{}, options_of(way));
    }
  });
  return {dx->values(), dscale->values(), dbias->values()};
}

void require_same(const GradientSums& a, const GradientSums& b) {
  fuzz::require_same("dy of the sums", a.dy, b.dy, two_ways);
  fuzz::require_same("dy_x of the sums", a.dy_x, b.dy_x, two_ways);
}

template <class T, class P>
void require_kept(const PiecesCase<T, P>& c, const GradientResult<T, P>& got, const std::vector<ChannelGradients>& want) {
  const GradientErrors worst = errors(c.call, got, want, c.plan->isa);
  fuzz::require_kept("dx of input_gradient", worst.dx);
  fuzz::require_kept("dscale of input_gradient", worst.dscale);
  fuzz::require_kept("dbias of input_gradient", worst.dbias);
}

/// The sums of the two parts of a batch that is cut between images, merged.
template <class T, class P>
GradientSums merged(Random& random, const PiecesCase<T, P>& c) {
  const GradientCall<T, P>& of = c.call;
  const std::int64_t cut = random.integer(0, of.shape[0]);
  const auto image = of.shape[0] == 0 ? 0 : static_cast<std::int64_t>(of.x.size()) / of.shape[0];
  const auto part = [&](std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> extents(of.shape.extents().begin(), of.shape.extents().end());
    extents[0] = last - first;
    GradientCall<T, P> some = of;
    some.shape = Shape(extents);
    some.x.assign(of.x.begin() + first * image, of.x.begin() + last * image);
    some.dy.assign(of.dy.begin() + first * image, of.dy.begin() + last * image);
    return run_sums(some, dense(some.shape), dense(some.shape), c.plan->way, nullptr);
  };
  GradientSums sums = part(0, cut);
  batchnorm::merge(sums, part(cut, of.shape[0]));
  return sums;
}

}  // namespace

void gradient_pieces(const Plan& plan, Random& random) {
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    PiecesCase<T, P> c{
        &plan, {}, draw_layout(random, plan, true), draw_layout(random, plan, true), draw_layout(random, plan, false)};
    const Data dy = plan.dy == Data::subnormal ? Data::normal : plan.dy;  // see backward.cpp
    c.call = {plan.shape, plan.format, plan.options, settled(draw_values<T>(random, plan, dy), plan.shape, c.dy),
              settled(draw_values<T, P>(random, plan, plan.x), plan.shape, c.x)};
    c.call.options.is_training = true;
    c.call.scale = draw_scale<P>(random, plan.extents().c);
    save_statistics(c.call);

    const auto want = expected(c.call);
    const GradientSums sums = run_sums(c.call, c.x, c.dy, plan.way, nullptr);
    require_same(sums, run_sums(c.call, c.x, c.dy, plan.other_way, nullptr));
    const auto got = run_input_gradient(c, sums, plan.way, nullptr);
    require_kept(c, got, want);
    fuzz::require_same("dx of input_gradient", got.dx, run_input_gradient(c, sums, plan.other_way, nullptr).dx, two_ways);
    require_kept(c, run_input_gradient(c, merged(random, c), plan.way, nullptr), want);

    const Moments moments =
        batchnorm::moments<T>(TensorView<const T>(c.call.x.data(), plan.shape), plan.format, options_of(plan.way));
    const GradientSums by_moments = run_sums(c.call, c.x, c.dy, plan.way, &moments);
    require_kept(c, run_input_gradient(c, by_moments, plan.way, &moments), expected_with(c.call, moments));
  });
}

}  // namespace fuzz
