// SPDX-License-Identifier: MIT
#include "kinds.hpp"
#include "values.hpp"

// The operator: y, statistics, running statistics and mask.
namespace fuzz {
namespace {

enum class Epilogue { identity, relu, leaky_sum };

template <class T, class P>
struct ForwardCase {
  const Plan* plan = nullptr;
  Call<T, P> call{};
  Layout x{}, y{}, residual_layout{};
  Epilogue epilogue = Epilogue::identity;
  double slope = 0.01;
  std::vector<T> residual{};
  bool wants_mask = false, y_is_x = false, y_is_residual = false;
  std::int64_t poisoned = -1;  ///< the channel that has a NaN or Inf
};

template <class T, class P>
struct ForwardOutcome {
  Result<T, P> result;
  std::vector<std::uint8_t> mask;
};

template <class T, class P>
ForwardCase<T, P> draw_forward(Random& random, const Plan& plan) {
  ForwardCase<T, P> c{&plan};
  const Extents e = plan.extents();
  if (std::is_same_v<P, batchnorm::parameter_t<T>>) {
    const std::int64_t epilogue = random.integer(0, 3);
    c.epilogue = epilogue < 2 ? Epilogue::identity : epilogue == 2 ? Epilogue::relu : Epilogue::leaky_sum;
  }
  constexpr double slopes[] = {0.01, 0.25, 0.0, 1.0};
  c.slope = slopes[random.integer(0, 3)];
  c.y_is_x = random.integer(0, 3) == 0;
  c.y_is_residual = !c.y_is_x && c.epilogue == Epilogue::leaky_sum && random.integer(0, 3) == 0;
  c.wants_mask = c.epilogue != Epilogue::identity && random.integer(0, 1) == 0;
  c.x = draw_layout(random, plan, !c.y_is_x);
  c.y = c.y_is_x ? c.x : draw_layout(random, plan, false);
  c.residual_layout = c.y_is_residual ? c.y : draw_layout(random, plan, true);
  c.call = {plan.shape, plan.format, plan.options, draw_values<T>(random, plan, plan.x)};
  if (!c.call.x.empty() && random.integer(0, 15) == 0) {
    const std::size_t at = static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(c.call.x.size()) - 1));
    c.call.x[at] = element<T>(random.integer(0, 1) == 0 ? std::numeric_limits<double>::quiet_NaN() : -INFINITY);
  }
  c.call.x = settled(std::move(c.call.x), plan.shape, c.x);
  for (std::size_t i = 0; i < c.call.x.size(); ++i) {
    if (std::isfinite(real(c.call.x[i]))) continue;
    for (std::int64_t channel = 0; channel < e.c; ++channel) {
      for (std::int64_t j = 0; j < e.n * e.s; ++j) {
        if (e.index(j / e.s, channel, j % e.s) == i) c.poisoned = channel;
      }
    }
  }
  if (c.epilogue == Epilogue::leaky_sum) {
    c.residual = settled(draw_values<T>(random, plan, Data::normal), plan.shape, c.residual_layout);
  }
  c.call.scale = draw_scale<P>(random, e.c);
  c.call.bias = draw_vector<P>(random, e.c, -1, 1);
  c.call.mean = draw_vector<P>(random, e.c, -1, 1, plan.options.is_training ? 0.15 : 0);
  if (c.call.mean) c.call.variance = draw_vector<P>(random, e.c, 0.1, 3, 0);
  const bool is_replaced = plan.options.is_training && plan.momentum() == 1 && !c.call.x.empty();
  if (is_replaced && c.call.mean && plan.options.not_finite == batchnorm::NotFinite::update && random.integer(0, 1) == 0) {
    (*c.call.mean)[static_cast<std::size_t>(random.integer(0, e.c - 1))] = element<P>(std::nan(""));
  }
  return c;
}

/// The tensors of a call on a stage.
template <class T, class P>
struct StagedTensors {
  Placed<T>* y;
  const Placed<T>* x;
  const Placed<T>* residual;

  StagedTensors(Stage& stage, const ForwardCase<T, P>& c)
      : y(stage.output("output_x", c.call.shape, c.y,
                       c.y_is_x          ? c.call.x
                       : c.y_is_residual ? c.residual
                                         : blank<T>(c.call.x.size()))),
        x(c.y_is_x ? y : stage.input("x", c.call.shape, c.x, c.call.x)),
        residual(y) {
    if (c.epilogue != Epilogue::leaky_sum || c.y_is_residual) return;
    residual = stage.input("residual", c.call.shape, c.residual_layout, c.residual);
  }
};

/// call(epilogue), on a stage that is ready.
template <class T, class P, class F>
void with_epilogue(const ForwardCase<T, P>& c, const StagedTensors<T, P>& tensors, const F& call) {
  if constexpr (std::is_same_v<P, batchnorm::parameter_t<T>>) {
    if (c.epilogue == Epilogue::relu) return call(batchnorm::Relu{});
    if (c.epilogue == Epilogue::leaky_sum) return call(LeakySum<T>{tensors.residual->view(), {c.slope}});
  }
  call(batchnorm::Identity{});
}

template <class T, class P>
ForwardOutcome<T, P> run_forward(const ForwardCase<T, P>& c, const Way& way) {
  const auto size = c.call.x.size(), channels = static_cast<std::size_t>(c.call.extents().c);
  Stage stage(way.flush);
  const StagedTensors<T, P> tensors(stage, c);
  const auto *scale = stage.input("scale", c.call.scale), *bias = stage.input("bias", c.call.bias);
  Placed<P>*mean = nullptr, *variance = nullptr;
  if (c.call.mean) mean = stage.output("mean", *c.call.mean), variance = stage.output("variance", *c.call.variance);
  Placed<P>* to[4] = {};
  const char* names[] = {"batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"};
  for (int i = 0; i < 4; ++i) to[i] = stage.output(names[i], blank<P>(channels));
  Placed<std::uint8_t>* mask = nullptr;
  if (c.wants_mask) mask = stage.output("mask", std::vector<std::uint8_t>((size + 7) / 8, 0x5A));
  const batchnorm::OutputViews<T, P> out{tensors.y->view(), to[0]->view(), to[1]->view(),
                                         to[2]->view(),     to[3]->view(), view(mask)};
  const auto options = options_of(way, c.plan->batch_number);
  stage.run([&] {
    with_epilogue(c, tensors, [&](const auto& epilogue) {
      batchnorm::batch_norm<T, P>(c.call.format, c.call.options, tensors.x->view(), view(scale), view(bias), view(mean),
                                  view(variance), out, epilogue, options);
    });
  });
  return {
      {tensors.y->values(), to[0]->values(), to[1]->values(), to[2]->values(), to[3]->values(), values(mean), values(variance)},
      values(mask)};
}

/// y of the same call in inference, prepared, for the shape of x or for none.
template <class T, class P>
std::vector<T> run_prepared(const ForwardCase<T, P>& c, const Way& way, bool shape_is_known) {
  Stage stage(way.flush);
  const StagedTensors<T, P> tensors(stage, c);
  const auto *scale = stage.input("scale", c.call.scale), *bias = stage.input("bias", c.call.bias);
  const auto *mean = stage.input("mean", c.call.mean), *variance = stage.input("variance", c.call.variance);
  stage.run([&] {
    const batchnorm::PreparedInference<T, P> layer(
        c.call.format, {.scale = view(scale), .bias = view(bias), .mean = view(mean), .variance = view(variance)},
        c.call.options.epsilon, shape_is_known ? c.call.shape : Shape{});
    with_epilogue(c, tensors,
                  [&](const auto& epilogue) { layer(tensors.x->view(), tensors.y->view(), epilogue, options_of(way)); });
  });
  return tensors.y->values();
}

template <class T, class P>
void require_same(const ForwardOutcome<T, P>& a, const ForwardOutcome<T, P>& b) {
  fuzz::require_same("y", a.result.y, b.result.y, two_ways);
  fuzz::require_same("batch_mean", a.result.batch_mean, b.result.batch_mean, two_ways);
  fuzz::require_same("batch_variance", a.result.batch_variance, b.result.batch_variance, two_ways);
  fuzz::require_same("the running mean", a.result.mean, b.result.mean, two_ways);
  fuzz::require_same("the running variance", a.result.variance, b.result.variance, two_ways);
  fuzz::require_same("mask", a.mask, b.mask, two_ways);
}

/// y through the epilogue: a residual and an activation round half an ulp more each.
template <class T, class P>
void require_y(const ForwardCase<T, P>& c, const ForwardOutcome<T, P>& got, const Expected& want) {
  constexpr Real epilogue_ulps = 1.5L;
  const Extents e = c.call.extents();
  const Real slope = c.epilogue == Epilogue::relu ? 0
                     : std::is_same_v<T, double>  ? static_cast<Real>(c.slope)
                                                  : static_cast<Real>(static_cast<float>(c.slope));
  Worst worst;
  for (std::int64_t channel = 0; channel < e.c; ++channel) {
    if (channel == c.poisoned) continue;
    for (std::int64_t j = 0; j < e.n * e.s; ++j) {
      const std::size_t i = e.index(j / e.s, channel, j % e.s);
      Normalized y = want.y[i];
      Real more = 0;
      if (c.epilogue != Epilogue::identity) {
        const Real residual = c.residual.empty() ? 0 : real(c.residual[i]);
        y.z += residual;
        y.magnitude = std::max({y.magnitude, std::abs(residual), std::abs(y.z)});
        if (y.z < 0) y.z *= slope;
        more = sizeof(T) == 2 ? 0 : epilogue_ulps * ulp_at<T>(y.magnitude);
      }
      const Real scale = want.scale[static_cast<std::size_t>(channel)];
      worst.note(error(got.result.y[i], y.z), ulp_at<T>(y_magnitude<T>(y, scale)),
                 allowed_y_error<T>(c.plan->isa, y, scale, c.call.options.is_training) + more, i);
    }
  }
  require_kept("y", worst);
}

/// The channel with a NaN or Inf, in training: nothing of it is finite.
template <class T, class P>
void require_poisoned(const ForwardCase<T, P>& c, const Result<T, P>& got) {
  if (c.poisoned < 0 || !c.call.options.is_training) return;
  const Extents e = c.call.extents();
  const auto channel = static_cast<std::size_t>(c.poisoned);
  require(!std::isfinite(real(got.batch_mean[channel])), "the mean of a channel with NaN or Inf is finite");
  require(std::isnan(real(got.batch_variance[channel])), "the variance of a channel with NaN or Inf is not NaN");
  for (std::int64_t j = 0; c.epilogue == Epilogue::identity && j < e.n * e.s; ++j) {
    require(std::isnan(real(got.y[e.index(j / e.s, c.poisoned, j % e.s)])), "y of a channel with NaN or Inf is not NaN");
  }
}

/// Whether the running statistics of a channel are to stay as they are; then requires that they do. The variance that enters
/// the running one decides: the unbiased one may be infinite where the biased one is not.
template <class T, class P>
bool requires_kept(const ForwardCase<T, P>& c, const Result<T, P>& got, const Statistics& want, std::size_t channel) {
  const bool is_unbiased = c.call.options.running_variance == batchnorm::RunningVariance::unbiased;
  const P entering = element<P>(static_cast<double>(is_unbiased ? want.unbiased() : want.variance));
  const bool is_finite = std::isfinite(real(got.batch_mean[channel])) && std::isfinite(real(got.batch_variance[channel])) &&
                         std::isfinite(real(entering));
  if (!c.call.mean || c.call.options.not_finite != batchnorm::NotFinite::keep || is_finite) return false;
  require(std::memcmp(&got.mean[channel], &(*c.call.mean)[channel], sizeof(P)) == 0 &&
              std::memcmp(&got.variance[channel], &(*c.call.variance)[channel], sizeof(P)) == 0,
          "running statistics were not kept from NaN or Inf");
  return true;
}

template <class T, class P>
void require_statistics(const ForwardCase<T, P>& c, const Result<T, P>& got, const Expected& want) {
  fuzz::require_same("batch_mean and reserve_space_1", got.batch_mean, got.reserve_space_1, "the two outputs");
  fuzz::require_same("batch_variance and reserve_space_2", got.batch_variance, got.reserve_space_2, "the two outputs");
  const bool is_empty = got.y.empty();
  if (!c.call.options.is_training || (is_empty && c.call.mean) || (c.call.mean && c.plan->momentum() == 0)) {
    fuzz::require_same("the running mean", got.mean, *c.call.mean, "before and after the call");
    fuzz::require_same("the running variance", got.variance, *c.call.variance, "before and after the call");
  }
  if (!c.call.options.is_training) {
    fuzz::require_same("batch_mean", got.batch_mean, *c.call.mean, "inference's input and output");
    return fuzz::require_same("batch_variance", got.batch_variance, *c.call.variance, "inference's input and output");
  }
  // The comparison of the tests, without y, which has an epilogue, and without channels that have no finite statistics.
  Call<T, P> call = c.call;
  call.shape = {0, 1}, call.format = Format::NCHW;
  call.options.momentum = c.plan->momentum();
  Expected without{{}, want.channel, {}};
  Result<T, P> result = got;
  if (is_empty) call.mean.reset();
  for (std::size_t channel = got.batch_mean.size(); channel-- > 0;) {
    if (!requires_kept(c, got, want.channel[channel], channel) && static_cast<std::int64_t>(channel) != c.poisoned) continue;
    const auto erase = [&](auto& values) {
      if (!values.empty()) values.erase(values.begin() + static_cast<std::ptrdiff_t>(channel));
    };
    erase(without.channel), erase(result.batch_mean), erase(result.batch_variance), erase(result.mean), erase(result.variance);
    if (call.mean) erase(*call.mean), erase(*call.variance);
  }
  const Errors worst = errors(call, result, without, c.plan->isa);
  require_kept("batch_mean", worst.mean);
  require_kept("batch_variance", worst.variance);
  if (call.mean && call.options.momentum == 1) {
    return fuzz::require_same("the running mean", result.mean, result.batch_mean, "the running and the batch's, momentum 1");
  }
  require_kept("the running mean", worst.running_mean);
  require_kept("the running variance", worst.running_variance);
}

template <class T, class P>
void require_mask(const ForwardCase<T, P>& c, const ForwardOutcome<T, P>& got) {
  if (!c.wants_mask) return;
  const std::vector<std::size_t> order = mask_order(*c.plan);
  std::size_t expected_bits = 0, bits = 0;
  for (const std::uint8_t byte : got.mask) bits += static_cast<std::size_t>(__builtin_popcount(byte));
  for (std::size_t i = 0; i < order.size(); ++i) {
    const bool passes = !(real(got.result.y[i]) <= 0);
    expected_bits += passes ? 1 : 0;
    // The mask follows memory; of a permuted tensor, nothing but its own backward pass need know how.
    if (!c.plan->natural_order) continue;
    const bool bit = (got.mask[order[i] / 8] >> order[i] % 8 & 1) != 0;
    require(bit == passes, "mask: the bit of y[" + std::to_string(i) + "] is wrong");
  }
  require(bits == expected_bits, "mask: bits are set after the last, or too many or too few");
}

}  // namespace

void forward(const Plan& plan, Random& random) {
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    const auto c = draw_forward<T, P>(random, plan);
    const auto got = run_forward(c, plan.way);
    const Expected want = expected(c.call);
    require_poisoned(c, got.result);
    require_statistics(c, got.result, want);
    require_y(c, got, want);
    require_mask(c, got);
    require_same(got, run_forward(c, plan.other_way));
    if (plan.options.is_training || c.wants_mask) return;
    fuzz::require_same("y", got.result.y, run_prepared(c, plan.other_way, random.integer(0, 1) == 0),
                       "the operator and a prepared inference");
  });
}

}  // namespace fuzz
