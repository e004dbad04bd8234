// SPDX-License-Identifier: MIT
#pragma once

// Gradients over canonical tensors that are not empty and are known to be right.

#include <cmath>

#include <batchnorm/call/walks.hpp>
#include <batchnorm/policy/double_gradients.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// The tensors of a gradient; dx and dresidual are null where absent.
template <Element T, class Pass>
struct GradientTensors {
  Geometry geometry;
  Operand<const T> dy, x, y;
  const unsigned char* mask = nullptr;
  Pass passage;
  Operand<T> dx, dresidual;

  /// Whether an output stands in place of dy.
  bool in_place() const noexcept { return dx.data == dy.data || dresidual.data == dy.data; }
};

template <Element T, class Pass>
Reduction<T, GradientStatistic<T, Pass>> gradient_reduction(const GradientTensors<T, Pass>& t, const double* center) noexcept {
  Reduction<T, GradientStatistic<T, Pass>> reduction{t.geometry, {}, {}, {{t.passage}, center}, t.mask};
  reduction.in[0] = t.dy;
  reduction.in[1] = t.x;
  if constexpr (Pass::reads_y) reduction.in[2] = t.y;
  reduction.partition = partition_of<T>(t.geometry, are_gapless(t.geometry, reduction.in));
  return reduction;
}

/// The operation on each element; its outputs go to dx and to dz, unless that is null.
template <class Operation, Element T, class Pass>
Elementwise<T, Operation> gradient_work(const GradientTensors<T, Pass>& t, const Operand<T>& dx,
                                        const Operand<T>& dz) noexcept {
  const bool returns_dz = dz.data != nullptr;
  Elementwise<T, Operation> work{
      t.geometry, {}, {{dx, returns_dz ? dz : dx}}, {t.passage, returns_dz}, {t.mask, nullptr, t.geometry.elements()}};
  work.in[0] = t.dy;
  constexpr bool reads_x = Operation::coefficients > 1 || Pass::inverts;  // always in training
  if constexpr (reads_x) work.in[1] = t.x;
  if constexpr (Pass::reads_y) work.in[Operation::inputs - 1] = t.y;
  return work;
}

/// Sums of a gradient turned into what follows from them.
template <Element T, Element P>
class GradientFinish {
 public:
  using Compute = compute_t<T>;

  GradientFinish(const Machine& machine, const GivenStatistics& given, const GradientArguments<P>& to) noexcept
      : isa_(machine.isa), given_(given), to_(to) {}

  void operator()(std::int64_t first, std::int64_t channels, const ChannelArrays& state,
                  const Coefficients<Compute, 5>& coefficients = {}) const noexcept {
    run(isa_, FinalizeGradients<Compute, P>{state, given_.at(first), channels, to_.at(first), coefficients});
  }

 private:
  Isa isa_;
  GivenStatistics given_;
  GradientArguments<P> to_;
};

/// The operation where no sums enter: dx = a * dz (and dz), or where dx is not asked for dz = 1 * dz.
template <Element T, class Pass>
Elementwise<T, InferenceGradient<T, Pass>> sumless_work(const GradientTensors<T, Pass>& t) noexcept {
  const bool has_dx = t.dx.data != nullptr;
  return gradient_work<InferenceGradient<T, Pass>>(t, has_dx ? t.dx : t.dresidual, has_dx ? t.dresidual : Operand<T>{});
}

/// Its coefficients.
template <Element T, class Pass, Element P>
void fill_sumless(const Machine& machine, const GradientTensors<T, Pass>& t, const GivenStatistics& given,
                  const GradientArguments<P>& to, const Coefficients<compute_t<T>, 1>& k) noexcept {
  if (t.dx.data == nullptr) {
    std::fill_n(k.array[0], t.geometry.c, compute_t<T>(1));
  } else {
    run(machine.isa, InferenceFactors<compute_t<T>, P>{given, t.geometry.c, to.scale, to.epsilon, k.array[0]});
  }
}

/// Gradients whose dx depends on no sums: those in inference, where the statistics are constants, and those without dx.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Pass, Element P>
void backward_inference(const Machine& machine, const GradientTensors<T, Pass>& t, const GivenStatistics& given,
                        const GradientArguments<P>& to) {
  const auto reduction = gradient_reduction(t, given.center());
  const GradientFinish<T, P> finish(machine, given, to);
  if (t.dx.data == nullptr && t.dresidual.data == nullptr) return reduce(machine, reduction, finish);
  const auto fill = [&](const Coefficients<compute_t<T>, 1>& k) { fill_sumless(machine, t, given, to, k); };
  if (!to.wants_sums()) return sweep(machine, sumless_work(t), fill);
  reduce_and_sweep(machine, reduction, sumless_work(t), t.in_place(), fill, finish);
}

/// Gradients in training.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Pass, Element P>
void backward_training(const Machine& machine, const GradientTensors<T, Pass>& t, const GivenStatistics& given,
                       const GradientArguments<P>& to) {
  if (t.dx.data == nullptr) return backward_inference(machine, t, given, to);
  reduce_then_sweep(machine, gradient_reduction(t, given.center()),
                    gradient_work<TrainingGradient<T, Pass>>(t, t.dx, t.dresidual), t.in_place(),
                    GradientFinish<T, P>(machine, given, to));
}

/// Gradients where the sums are those of these and perhaps of other values. `collect()` puts them into `state` and returns how
/// many values a channel has; it is called once, when all memory is allocated and nothing is written.
/// @throws std::bad_alloc   before `collect` is called; and what that throws
template <bool is_training, Element T, class Pass, Element P, class Collect>
void apply_gradient_sums(const Machine& machine, const GradientTensors<T, Pass>& t, const ChannelArrays& state,
                         const GivenStatistics& given, GradientArguments<P> to, const Collect& collect) {
  const auto finish = [&](const Coefficients<compute_t<T>, 5>& k) {
    to.values = collect();
    GradientFinish<T, P>(machine, given, to)(0, t.geometry.c, state, k);
  };
  if (t.dx.data == nullptr && t.dresidual.data == nullptr) return in_default_mode([&] { finish({}); });
  if constexpr (is_training) {
    if (t.dx.data != nullptr) {
      return sweep(machine, gradient_work<TrainingGradient<T, Pass>>(t, t.dx, t.dresidual), finish);
    }
  }
  sweep(machine, sumless_work(t), [&](const Coefficients<compute_t<T>, 1>& k) {
    finish({});
    fill_sumless(machine, t, given, to, k);
  });
}

/// The tensors of a double gradient; dx and ddy are null where absent.
template <Element T>
struct DoubleGradientTensors {
  Geometry geometry;
  std::array<Operand<const T>, 3> in;  ///< x, dy, ddx
  Operand<T> dx, ddy;

  template <bool is_training>
  Elementwise<T, DoubleGradient<T, is_training>> work() const noexcept {
    const Operand<T>& there = dx.data != nullptr ? dx : ddy;
    return {geometry, in, {{there, ddy.data != nullptr ? ddy : there}}, {dx.data != nullptr, ddy.data != nullptr}};
  }
  Reduction<T, DoubleGradientStatistic<T>> reduction(const double* center, bool pivots) const noexcept {
    return {geometry, in, partition_of<T>(geometry, are_gapless(geometry, in)), {{}, center, pivots}};
  }
};

/// Double gradients in training.
/// @throws std::bad_alloc   before anything is written
template <Element T, Element P>
void double_backward_training(const Machine& machine, const DoubleGradientTensors<T>& t, const GivenStatistics& given,
                              const DoubleGradientArguments<P>& to) {
  using Constants = Coefficients<compute_t<T>, 9>;
  const auto finish_channels = [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state, const Constants* k) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const double r = 1 / std::sqrt(given.variance()[first + c] + to.epsilon);
      const double p = pivot_of(*t.in[1].at(0, first + c)), q = pivot_of(*t.in[2].at(0, first + c));
      const DoubleGradientMeans means(state, c, p, q, r, static_cast<double>(to.values));
      finalize_double_gradient(means, given.at(first), c, to.at(first), k);
    }
  };
  const auto reduction = t.reduction(given.center(), true);
  if (t.dx.data == nullptr && t.ddy.data == nullptr) {
    reduce(machine, reduction, [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state) {
      finish_channels(first, channels, state, nullptr);
    });
    return;
  }
  reduce_then_sweep(machine, reduction, t.template work<true>(), false,
                    [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state, const Constants& k) {
                      finish_channels(first, channels, state, &k);
                    });
}

/// Double gradients in inference: ddy = g r scale + t r (x - mean) + u, dx = t r dy, dscale = r sum(g dy).
/// @throws std::bad_alloc   before anything is written
template <Element T, Element P>
void double_backward_inference(const Machine& machine, const DoubleGradientTensors<T>& t, const GivenStatistics& given,
                               const DoubleGradientArguments<P>& to) {
  using Compute = compute_t<T>;
  const auto inverse_deviation = [&](std::int64_t c) { return 1 / std::sqrt(given.variance()[c] + to.epsilon); };
  const auto over_deviation = [&](double value, std::int64_t c) {
    using D = vec<double, 16>;
    double quotient[D::lanes];
    inverse_deviation_times<Compute>(D::broadcast(value), D::broadcast(given.variance()[c]), to.epsilon).store(quotient);
    return quotient[0];
  };
  const auto fill = [&](const Coefficients<Compute, 4>& k) {
    for (std::int64_t c = 0; c < t.geometry.c; ++c) {
      const auto rounded = [&](int j, double value) {
        return static_cast<double>(k.array[j][c] = static_cast<Compute>(value));
      };
      const double center_lost = given.center()[c] - rounded(0, given.center()[c]);
      rounded(1, over_deviation(to.value(to.scale, c, 1), c));
      const double b = rounded(2, over_deviation(to.value(to.ddscale, c, 0), c));
      rounded(3, to.value(to.ddbias, c, 0) - b * center_lost);
    }
  };
  const auto finish = [&](std::int64_t first, std::int64_t channels, const ChannelArrays& state) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const double product = state[10][c] + state[11][c];
      to.dscale[first + c] = static_cast<P>(static_cast<compute_t<P>>(inverse_deviation(first + c) * product));
    }
  };
  const auto reduction = t.reduction(given.center(), false);
  const bool sweeps = t.dx.data != nullptr || t.ddy.data != nullptr;
  if (!sweeps) {
    reduce(machine, reduction, finish);
  } else if (to.dscale == nullptr) {
    sweep(machine, t.template work<false>(), fill);
  } else {
    reduce_and_sweep(machine, reduction, t.template work<false>(), false, fill, finish);
  }
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
