// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "calls.hpp"
#include "gradient_oracle.hpp"

// One call of the gradient, or of the double gradient, as data: made, run by the library, computed by the oracle, compared.
// Compiled in gradient_calls.cpp for every pair of types.
namespace support {

template <class T, class P>
struct GradientCall {
  Shape shape;
  Format format = Format::NCHW;
  batchnorm::Options options{.is_training = true};
  std::vector<T> dy{}, x{};
  std::optional<std::vector<P>> scale{};
  std::vector<P> mean{}, variance{};

  Extents extents() const { return support::extents(shape, format); }
  batchnorm::TensorView<const T> x_view() const { return {x.data(), shape}; }
  batchnorm::TensorView<const T> dy_view() const { return {dy.data(), shape}; }

  /// What the oracle needs of channel c.
  Channel channel(std::int64_t c) const {
    const auto i = static_cast<std::size_t>(c);
    return {options.is_training,
            {extents().n * extents().s, real(mean[i]), 0, real(variance[i])},
            options.epsilon,
            scale ? real((*scale)[i]) : 1};
  }
};

template <class T, class P>
struct GradientResult {
  std::vector<T> dx;
  std::vector<P> dscale, dbias;
};

/// The statistics of x, rounded to P: what the forward pass saves.
template <class T, class P>
void save_statistics(GradientCall<T, P>& call);

/// Values of order 1 in x and dy, each channel about offsets of its own; saved statistics those of x in training, others in
/// inference.
template <class T, class P>
GradientCall<T, P> ordinary_gradient_call(const Shape& shape, Format format, bool is_training, std::uint64_t seed = 1);

/// Where to write a result of a call.
template <class T, class P>
GradientResult<T, P> blank_result(const GradientCall<T, P>& call) {
  return {std::vector<T>(call.x.size(), element<T>(unwritten)), std::vector<P>(call.mean.size(), element<P>(unwritten)),
          std::vector<P>(call.mean.size(), element<P>(unwritten))};
}

/// How many elements past a border of a cache line the tensors begin.
struct Offsets {
  std::size_t dy = 0, x = 0, out = 0;
};

/// The call by batch_norm_backward() into prefilled buffers. Expects that nothing beside dx was written.
template <class T, class P>
GradientResult<T, P> run(const GradientCall<T, P>& call, const batchnorm::CallOptions& options = {},
                         const Offsets& offsets = {});

template <class T, class P>
std::vector<ChannelGradients> expected(const GradientCall<T, P>& call);

/// Of channel c alone.
template <class T, class P>
ChannelGradients expected(const GradientCall<T, P>& call, std::int64_t c);

/// What the oracle expects of the call with those moments in place of the saved statistics.
template <class T, class P>
std::vector<ChannelGradients> expected_with(const GradientCall<T, P>& call, const batchnorm::Moments& moments) {
  const Extents e = call.extents();
  std::vector<ChannelGradients> result;
  for (std::int64_t c = 0; c < e.c; ++c) {
    const auto i = static_cast<std::size_t>(c);
    Channel channel = call.channel(c);
    channel.saved = {moments.count, moments.mean[i], moments.mean_low[i], moments.variance(c)};
    result.push_back(backward(channel, channel_values<T>(call.dy, e, c), channel_values<T>(call.x, e, c)));
  }
  return result;
}

struct GradientErrors {
  Worst dx, dscale, dbias;

  void merge(const GradientErrors& other) { dx.merge(other.dx), dscale.merge(other.dscale), dbias.merge(other.dbias); }
};

/// Adds channel c's errors to `worst`. Absent (empty) members of the result are left out.
template <class T, class P>
void note_errors(GradientErrors& worst, const GradientCall<T, P>& call, const GradientResult<T, P>& result,
                 const ChannelGradients& expected, std::int64_t c, Isa isa);

template <class T, class P>
GradientErrors errors(const GradientCall<T, P>& call, const GradientResult<T, P>& result,
                      const std::vector<ChannelGradients>& expected, Isa isa);

inline void expect_kept(const GradientErrors& worst) {
  expect_kept(worst.dx, "dx");
  expect_kept(worst.dscale, "dscale");
  expect_kept(worst.dbias, "dbias");
}

/// A call of the double gradient: the call of the gradient that it differentiates, and what its results weigh.
template <class T, class P>
struct DoubleGradientCall {
  GradientCall<T, P> of;
  std::optional<std::vector<T>> ddx{};
  std::optional<std::vector<P>> ddscale{}, ddbias{};

  batchnorm::TensorView<const T> ddx_view() const {
    return ddx ? batchnorm::TensorView<const T>(ddx->data(), of.shape) : batchnorm::TensorView<const T>();
  }
};

template <class T, class P>
struct DoubleGradientResult {
  std::vector<T> dx, ddy;
  std::vector<P> dscale;
};

template <class T, class P>
DoubleGradientCall<T, P> ordinary_double_gradient_call(const Shape& shape, Format format, bool is_training,
                                                       std::uint64_t seed = 1);

template <class T, class P>
DoubleGradientResult<T, P> run(const DoubleGradientCall<T, P>& call, const batchnorm::CallOptions& options = {},
                               const Offsets& offsets = {});

struct DoubleGradientErrors {
  Worst dx, ddy, dscale;

  void merge(const DoubleGradientErrors& other) { dx.merge(other.dx), ddy.merge(other.ddy), dscale.merge(other.dscale); }
};

template <class T, class P>
std::vector<ChannelDoubleGradients> expected(const DoubleGradientCall<T, P>& call);

template <class T, class P>
DoubleGradientErrors errors(const DoubleGradientCall<T, P>& call, const DoubleGradientResult<T, P>& result,
                            const std::vector<ChannelDoubleGradients>& expected, Isa isa);

inline void expect_kept(const DoubleGradientErrors& worst) {
  expect_kept(worst.dx, "dx");
  expect_kept(worst.ddy, "ddy");
  expect_kept(worst.dscale, "dscale");
}

/// Where two sequences differ in their bits, as text; nothing where they do not.
template <class T>
std::string difference(const char* name, const std::vector<T>& got, const std::vector<T>& want) {
  if (same_bits(got, want)) return "";
  if (got.size() != want.size()) return std::string(name) + " has another size; ";
  const auto i = static_cast<std::size_t>(first_difference(got, want));
  std::ostringstream text;
  text << name << "[" << i << "] is " << real(got[i]) << ", expected " << real(want[i]) << "; ";
  return text.str();
}

inline testing::AssertionResult without(const std::string& differences) {
  return differences.empty() ? testing::AssertionSuccess() : testing::AssertionFailure() << differences;
}

/// Equality bit by bit.
template <class T, class P>
testing::AssertionResult same(const GradientResult<T, P>& got, const GradientResult<T, P>& want) {
  return without(difference("dx", got.dx, want.dx) + difference("dscale", got.dscale, want.dscale) +
                 difference("dbias", got.dbias, want.dbias));
}

template <class T, class P>
testing::AssertionResult same(const DoubleGradientResult<T, P>& got, const DoubleGradientResult<T, P>& want) {
  return without(difference("dx", got.dx, want.dx) + difference("ddy", got.ddy, want.ddy) +
                 difference("dscale", got.dscale, want.dscale));
}

/// "[2, 3, 4] NCHW training"
std::string text_of(const Shape& shape, Format format, bool is_training);

template <class T, class P>
std::string text_of(const GradientCall<T, P>& call) {
  return text_of(call.shape, call.format, call.options.is_training);
}

}  // namespace support
