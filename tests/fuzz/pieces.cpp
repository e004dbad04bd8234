// SPDX-License-Identifier: MIT
#include "kinds.hpp"
#include "values.hpp"

// moments -> merge -> finalize -> normalize.
namespace fuzz {
namespace {

using batchnorm::Moments;

template <class T>
Moments run_moments(const Plan& plan, const Shape& shape, const Layout& layout, const std::vector<T>& values, const Way& way) {
  Stage stage(way.flush);
  const auto* x = stage.input("x", shape, layout, values);
  Moments result;
  stage.run([&] { result = batchnorm::moments<T>(TensorView<const T>(x->view()), plan.format, options_of(way)); });
  return result;
}

template <class P>
void require_moments(const Moments& got, const std::vector<Statistics>& want) {
  Worst mean, variance;
  for (std::size_t c = 0; c < want.size(); ++c) {
    const Real at = std::max(std::abs(want[c].mean), std::sqrt(want[c].variance));
    const Real value = static_cast<Real>(got.mean[c]) + static_cast<Real>(got.mean_low[c]);
    require(got.count == want[c].count, "moments: count is wrong");
    mean.note(std::abs(value - (want[c].mean + want[c].rest)), ulp_at<P>(at), allowed_mean_error<P>(at), c);
    variance.note(error(got.variance(static_cast<std::int64_t>(c)), want[c].variance), ulp_at<P>(want[c].variance),
                  allowed_variance_error<P>(want[c].variance), c);
    require(std::abs(got.mean_low[c]) <= ulp_at<double>(std::abs(static_cast<Real>(got.mean[c]))) / 2,
            "moments: mean_low is larger than half an ulp of mean");
  }
  require_kept("the mean of moments", mean);
  require_kept("the variance of moments", variance);
}

void require_same(const Moments& a, const Moments& b) {
  fuzz::require_same("mean of moments", a.mean, b.mean, two_ways);
  fuzz::require_same("mean_low of moments", a.mean_low, b.mean_low, two_ways);
  fuzz::require_same("m2 of moments", a.m2, b.m2, two_ways);
}

/// The moments of the two parts of a batch that is cut between images, merged.
template <class T>
Moments merged(Random& random, const Plan& plan, const std::vector<T>& values) {
  const std::int64_t cut = random.integer(0, plan.shape[0]);
  const auto image = plan.shape[0] == 0 ? 0 : static_cast<std::int64_t>(values.size()) / plan.shape[0];
  const auto part = [&](std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> extents(plan.shape.extents().begin(), plan.shape.extents().end());
    extents[0] = last - first;
    const Shape shape(extents);
    const std::vector<T> some(values.begin() + first * image, values.begin() + last * image);
    return run_moments(plan, shape, dense(shape), some, plan.way);
  };
  Moments result = part(0, cut);
  batchnorm::merge(result, part(cut, plan.shape[0]));
  return result;
}

/// finalize and normalize of moments, and what they make of a call.
template <class T, class P>
Result<T, P> finish(const Plan& plan, const Call<T, P>& call, const Layout& x_layout, const Layout& y_layout,
                    const Moments& moments, const Way& way) {
  const auto channels = static_cast<std::size_t>(call.extents().c);
  Stage stage(way.flush);
  auto *mean = stage.output("mean", *call.mean), *variance = stage.output("variance", *call.variance);
  auto *batch_mean = stage.output("batch_mean", blank<P>(channels)),
       *batch_variance = stage.output("batch_variance", blank<P>(channels));
  stage.run([&] {
    batchnorm::finalize<P>(moments, call.options, {batch_mean->view(), batch_variance->view(), mean->view(), variance->view()},
                           options_of(way, plan.batch_number));
  });
  Stage second(way.flush);
  const auto* x = second.input("x", call.shape, x_layout, call.x);
  auto* y = second.output("y", call.shape, y_layout, blank<T>(call.x.size()));
  const auto *scale = second.input("scale", call.scale), *bias = second.input("bias", call.bias);
  second.run([&] {
    batchnorm::normalize<T, P>(
        call.format, {.x = TensorView<const T>(x->view()), .scale = TensorView<const P>(view(scale)), .bias = view(bias)},
        moments, call.options.epsilon, y->view(), {}, options_of(way));
  });
  return {y->values(), batch_mean->values(), batch_variance->values(), {}, {}, mean->values(), variance->values()};
}

/// normalize by vectors is inference.
template <class T, class P>
std::vector<T> normalized_by_vectors(const Call<T, P>& call, const Layout& x_layout, const Layout& y_layout, const Way& way) {
  Stage stage(way.flush);
  const auto* x = stage.input("x", call.shape, x_layout, call.x);
  auto* y = stage.output("y", call.shape, y_layout, blank<T>(call.x.size()));
  const auto *scale = stage.input("scale", call.scale), *bias = stage.input("bias", call.bias);
  const auto *mean = stage.input("mean", call.mean), *variance = stage.input("variance", call.variance);
  stage.run([&] {
    batchnorm::normalize<T, P>(call.format,
                               {.x = TensorView<const T>(x->view()),
                                .scale = view(scale),
                                .bias = view(bias),
                                .mean = mean->view(),
                                .variance = TensorView<const P>(variance->view())},
                               call.options.epsilon, y->view(), {}, options_of(way));
  });
  return y->values();
}

}  // namespace

void pieces(const Plan& plan, Random& random) {
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    const Layout x = draw_layout(random, plan, true), y = draw_layout(random, plan, false);
    Call<T, P> call{plan.shape, plan.format, plan.options, settled(draw_values<T>(random, plan, plan.x), plan.shape, x)};
    const std::int64_t channels = call.extents().c;
    call.scale = draw_scale<P>(random, channels);
    call.bias = draw_vector<P>(random, channels, -1, 1);
    call.mean = draw_vector<P>(random, channels, -1, 1, 0);
    call.variance = draw_vector<P>(random, channels, 0.1, 3, 0);

    call.options.is_training = false;
    const Expected inference = expected(call);
    const auto by_vectors = normalized_by_vectors(call, x, y, plan.way);
    require_kept("y of normalize", y_errors<T>(by_vectors, inference, call.extents(), plan.isa, false));
    fuzz::require_same("y of normalize", by_vectors, normalized_by_vectors(call, x, y, plan.other_way), two_ways);

    call.options.is_training = true;
    call.options.not_finite = batchnorm::NotFinite::update;  // forward.cpp has the other
    const Expected want = expected(call);
    const Moments moments = run_moments(plan, call.shape, x, call.x, plan.way);
    require_same(moments, run_moments(plan, call.shape, x, call.x, plan.other_way));
    if (call.x.empty()) return;
    using Carried = batchnorm::parameter_t<T>;
    require_moments<Carried>(moments, want.channel);
    require_moments<Carried>(merged(random, plan, call.x), want.channel);
    call.options.momentum = plan.momentum();
    const auto got = finish(plan, call, x, y, moments, plan.way);
    const Errors worst = errors(call, got, want, plan.isa);
    require_kept("y of normalize by moments", worst.y);
    require_kept("batch_mean of finalize", worst.mean);
    require_kept("batch_variance of finalize", worst.variance);
    require_kept("the running mean of finalize", worst.running_mean);
    require_kept("the running variance of finalize", worst.running_variance);
    const auto again = finish(plan, call, x, y, moments, plan.other_way);
    fuzz::require_same("y of normalize by moments", got.y, again.y, two_ways);
  });
}

}  // namespace fuzz
