// SPDX-License-Identifier: MIT
#pragma once

// From the public calls about gradients to the form that the kernels take.

#include <vector>

#include <batchnorm/call/arguments.hpp>
#include <batchnorm/call/backward.hpp>
#include <batchnorm/moments.hpp>

namespace batchnorm {
namespace detail {

template <class G, class T>
struct IsGradientPath : std::is_same<G, Identity> {};
template <class A, class T>
struct IsGradientPath<ThroughMask<A>, T> : std::true_type {};
template <class A, class T>
struct IsGradientPath<ThroughOutput<T, A>, T> : std::true_type {};

}  // namespace detail

inline namespace BATCHNORM_KERNELS {
namespace arguments {

inline constexpr std::string_view gradient_replaces = "dx or dresidual in place of dy";

template <class T>
cpu::Passage<Identity, cpu::Through::nothing> passage_of(const Arguments&, const Identity&) {
  return {};
}
template <class T, class A>
cpu::Passage<batchnorm::detail::PiecesOf<A>, cpu::Through::mask> passage_of(const Arguments& arguments,
                                                                            const ThroughMask<A>& through) {
  arguments.check_trainable(through.activation);
  return {batchnorm::detail::pieces_of(batchnorm::detail::computed_in<compute_t<T>>(through.activation))};
}
template <class T, class A>
cpu::Passage<batchnorm::detail::PiecesOf<A>, cpu::Through::output> passage_of(const Arguments& arguments,
                                                                              const ThroughOutput<T, A>& through) {
  arguments.check_trainable(through.activation);
  return {batchnorm::detail::pieces_of(batchnorm::detail::computed_in<compute_t<T>>(through.activation))};
}

/// To in-place gradients: x is the output, and the activation is undone.
template <class A>
struct Undo {
  A activation;
};
template <class T, class A>
cpu::Passage<A, cpu::Through::inverse> passage_of(const Arguments&, const Undo<A>& undo) {
  return {batchnorm::detail::computed_in<compute_t<T>>(undo.activation)};
}

/// dy, x, how dy passes the activation, dx and dresidual (each may be absent), checked.
template <Element T, class G>
auto gradient_tensors(Arguments& arguments, const TensorView<const T>& dy, const TensorView<const T>& x,
                      const TensorView<T>& dx, const TensorView<T>& dresidual, const G& through) {
  using Pass = decltype(passage_of<T>(arguments, through));
  cpu::GradientTensors<T, Pass> tensors{};
  tensors.passage = passage_of<T>(arguments, through);
  arguments.fit(dy);
  arguments.fit(dx);
  arguments.fit(dresidual);
  if constexpr (Pass::reads_y) arguments.fit(through.y);
  tensors.dy = arguments.tensor("dy", dy, Replaceable::yes);
  if constexpr (Pass::reads_bits) {
    arguments.check_present("mask", through.mask.present(), "it tells where dy passes the activation");
    tensors.mask = arguments.mask(through.mask);
  }
  if constexpr (Pass::reads_y) tensors.y = arguments.tensor("y", through.y);
  tensors.dx = arguments.optional_tensor("dx", dx);
  tensors.dresidual = arguments.optional_tensor("dresidual", dresidual);
  if (arguments.empty()) return tensors;
  tensors.geometry = arguments.geometry();
  tensors.x = arguments.x(x);
  return tensors;
}

template <Element P>
cpu::GradientArguments<P> gradient_arguments(Arguments& arguments, const TensorView<const P>& scale,
                                             const TensorView<P>& dscale, const TensorView<P>& dbias, double epsilon) {
  cpu::GradientArguments<P> to;
  to.scale = arguments.channel_vector("scale", scale);
  to.dscale = arguments.channel_vector("dscale", dscale);
  to.dbias = arguments.channel_vector("dbias", dbias);
  to.epsilon = epsilon;
  to.values = arguments.geometry().values();
  return to;
}

/// Statistics given as vectors of P; 0 where null.
template <Element P>
class GivenVectors {
 public:
  GivenVectors(Arguments& arguments, const TensorView<const P>& mean, const TensorView<const P>& variance) {
    arguments.check_present("mean", mean.present(), "the gradient needs it");
    arguments.check_present("variance", variance.present(), "the gradient needs it");
    mean_ = arguments.channel_vector("mean", mean);
    variance_ = arguments.channel_vector("variance", variance);
  }
  explicit GivenVectors(const P* mean, const P* variance = nullptr) noexcept : mean_(mean), variance_(variance) {}

  cpu::GivenStatistics in(const cpu::ChannelArrays& arrays, std::int64_t channels) const noexcept {
    const cpu::GivenStatistics given{arrays};
    cpu::in_default_mode([&] {
      cpu::widen(mean_, mean_ == nullptr ? 0 : channels, given.center(), arrays.stride);
      cpu::widen(variance_, variance_ == nullptr ? 0 : channels, given.variance(), arrays.stride);
      std::fill_n(given.rest(), arrays.stride, 0.0);
    });
    return given;
  }

 private:
  const P* mean_ = nullptr;
  const P* variance_ = nullptr;
};

inline cpu::GivenStatistics given_moments(const Moments& moments, const cpu::ChannelArrays& arrays) noexcept {
  std::fill_n(arrays.first, cpu::GivenStatistics::count * arrays.stride, 0.0);
  const cpu::GivenStatistics given{arrays};
  std::copy(moments.mean.begin(), moments.mean.end(), given.center());
  std::copy(moments.mean_low.begin(), moments.mean_low.end(), given.rest());
  cpu::in_default_mode([&] {
    for (std::int64_t c = 0; c < moments.channels(); ++c) given.variance()[c] = moments.variance(c);
  });
  return given;
}

/// The gradients of a call whose arguments are right.
/// @throws std::bad_alloc   before anything is written
template <Element T, class Pass, Element P>
void backward(const Arguments& arguments, const CallOptions& call, const cpu::GradientTensors<T, Pass>& tensors,
              const GivenVectors<P>& given, const cpu::GradientArguments<P>& to, bool is_training) {
  const cpu::Machine machine = machine_of<T>(call, arguments.geometry());
  if (arguments.empty()) return to.write_empty_batch(arguments.channels());
  if (!to.wants_sums() && tensors.dx.data == nullptr && tensors.dresidual.data == nullptr) return;
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  scratch.allocate();
  const cpu::GivenStatistics statistics = given.in(part.in(scratch), arguments.channels());
  if (is_training) {
    cpu::backward_training(machine, tensors, statistics, to);
  } else {
    cpu::backward_inference(machine, tensors, statistics, to);
  }
}

/// Fills sums.dy and sums.dy_x, about the whole mean.
template <Element T, class Pass, class Sums>
void collect_sums(const cpu::Machine& machine, const cpu::GradientTensors<T, Pass>& tensors, const cpu::GivenStatistics& given,
                  Sums& sums) {
  cpu::reduce(machine, cpu::gradient_reduction(tensors, given.center()),
              [&](std::int64_t first, std::int64_t channels, const cpu::ChannelArrays& state) {
                for (std::int64_t c = 0; c < channels; ++c) {
                  const auto to = static_cast<std::size_t>(first + c);
                  sums.dy[to] = state[0][c] + state[1][c];
                  sums.dy_x[to] = state[2][c] + (state[3][c] - given.rest()[first + c] * sums.dy[to]);
                }
              });
  sums.count = tensors.geometry.values();
}

/// What `to` and `tensors` name, from sums about the whole mean, those of x's values and perhaps of others. `fill(arrays)`
/// gives the statistics. `sums()` gives the sums; it is called once, when all memory is allocated and nothing is written.
/// @throws std::bad_alloc   before `sums` is called; and what that throws
template <bool is_training, Element T, class Pass, Element P, class Fill, class Sums>
void apply_sums(const Arguments& arguments, const CallOptions& call, const cpu::GradientTensors<T, Pass>& tensors,
                cpu::GradientArguments<P> to, const Fill& fill, const Sums& sums) {
  const cpu::Machine machine = machine_of<T>(call, arguments.geometry());
  cpu::Scratch scratch;
  const auto part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), cpu::GivenStatistics::count);
  const auto state_part = cpu::ChannelScratch::reserve(scratch, arguments.channels(), 4);
  scratch.allocate();
  const cpu::GivenStatistics given = fill(part.in(scratch));
  const cpu::ChannelArrays state = state_part.in(scratch);
  const auto collect = [&] {
    const auto& whole = sums();
    std::fill_n(state.first, 4 * state.stride, 0.0);
    std::copy(whole.dy.begin(), whole.dy.end(), state[0]);
    std::copy(whole.dy_x.begin(), whole.dy_x.end(), state[2]);
    // The sums are about the whole mean: nothing is left to be taken off.
    for (std::int64_t c = 0; c < arguments.channels(); ++c) state[3][c] = given.rest()[c] * state[0][c];
    return whole.count;
  };
  if (!arguments.empty()) return cpu::apply_gradient_sums<is_training>(machine, tensors, state, given, to, collect);
  cpu::in_default_mode([&] { to.values = collect(); });
  if (to.values == 0) return to.write_empty_batch(arguments.channels());
  cpu::in_default_mode([&] { cpu::GradientFinish<T, P>(machine, given, to)(0, arguments.channels(), state); });
}

/// A tensor of zeros for a geometry: one plane or row, that all images and channels share.
inline std::int64_t zeros_needed(const cpu::Geometry& g) noexcept { return g.channels_last ? g.c : g.s; }

template <Element T>
cpu::Operand<const T> zeros(T* memory, const cpu::Geometry& g) noexcept {
  std::fill_n(memory, zeros_needed(g), T(0));
  return {memory, {0, g.channels_last ? 1 : 0}};
}

}  // namespace arguments
}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
