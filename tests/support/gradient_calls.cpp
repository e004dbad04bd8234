// SPDX-License-Identifier: MIT
#include "gradient_calls.hpp"

namespace support {

namespace {

/// Uniform in [-2, 2), each channel about the next of a row of small offsets.
template <class T>
std::vector<T> with_offsets(const Extents& e, double step, std::uint64_t seed) {
  Random random(seed);
  std::vector<T> values(static_cast<std::size_t>(e.n * e.c * e.s));
  for (std::int64_t c = 0; c < e.c; ++c) {
    const double offset = step * static_cast<double>(c % 5 - 2);
    for (std::int64_t n = 0; n < e.n; ++n) {
      for (std::int64_t s = 0; s < e.s; ++s) values[e.index(n, c, s)] = element<T>(offset + random.uniform(-2, 2));
    }
  }
  return values;
}

/// Notes the errors of channel c of a tensor.
template <class T>
void note(Worst& worst, const std::vector<T>& got, const std::vector<Gradient>& expected, const Extents& e, std::int64_t c,
          Real ulps) {
  if (got.empty()) return;
  for (std::int64_t j = 0; j < e.n * e.s; ++j) {
    const std::size_t at = e.index(j / e.s, c, j % e.s);
    const Gradient& want = expected[static_cast<std::size_t>(j)];
    worst.note(error(got[at], want.value), ulp_at<T>(gradient_magnitude<T>(want)), allowed_gradient_error<T>(want, ulps), at);
  }
}

template <class P>
void note(Worst& worst, const std::vector<P>& got, const Sum& expected, std::int64_t c) {
  if (got.empty()) return;
  const auto at = static_cast<std::size_t>(c);
  worst.note(error(got[at], expected.value), ulp_at<P>(sum_magnitude<P>(expected)), allowed_sum_error<P>(expected), at);
}

}  // namespace

template <class T, class P>
void save_statistics(GradientCall<T, P>& call) {
  const Extents e = call.extents();
  call.mean.clear(), call.variance.clear();
  for (std::int64_t c = 0; c < e.c; ++c) {
    const Statistics channel = statistics<T>(call.x, e, c);
    call.mean.push_back(element<P>(static_cast<double>(channel.mean + channel.rest)));
    call.variance.push_back(element<P>(static_cast<double>(channel.variance)));
  }
}

template <class T, class P>
GradientCall<T, P> ordinary_gradient_call(const Shape& shape, Format format, bool is_training, std::uint64_t seed) {
  GradientCall<T, P> call{shape, format, {.is_training = is_training}};
  const Extents e = call.extents();
  call.x = with_offsets<T>(e, 1.5, seed);
  call.dy = with_offsets<T>(e, 0.375, seed + 1000);
  call.scale = uniform<P>(e.c, -2, 2, seed + 2000);
  save_statistics(call);
  if (!is_training) {
    call.mean = uniform<P>(e.c, -1, 1, seed + 3000);
    call.variance = uniform<P>(e.c, 0.1, 3, seed + 4000);
  }
  return call;
}

template <class T, class P>
GradientResult<T, P> run(const GradientCall<T, P>& call, const batchnorm::CallOptions& options, const Offsets& offsets) {
  const auto channels = static_cast<std::size_t>(call.extents().c);
  GradientResult<T, P> result{
      {}, std::vector<P>(channels, element<P>(unwritten)), std::vector<P>(channels, element<P>(unwritten))};
  Guarded<T> dy(std::span<const T>(call.dy), offsets.dy), x(std::span<const T>(call.x), offsets.x);
  Guarded<T> dx(call.x.size(), offsets.out, element<T>(unwritten));
  batchnorm::batch_norm_backward<T, P>(call.format, call.options, {dy.data(), call.shape}, {x.data(), call.shape},
                                       view(call.scale), call.mean, call.variance,
                                       {{dx.data(), call.shape}, result.dscale, result.dbias}, batchnorm::Identity{}, options);
  EXPECT_TRUE(dy.guards_intact() && x.guards_intact() && dx.guards_intact()) << "bytes beside the tensor were written";
  EXPECT_TRUE(same_bits(dy.values(), call.dy) && same_bits(x.values(), call.x)) << "an input was changed";
  result.dx.assign(dx.values().begin(), dx.values().end());
  return result;
}

template <class T, class P>
ChannelGradients expected(const GradientCall<T, P>& call, std::int64_t c) {
  const Extents e = call.extents();
  return backward(call.channel(c), channel_values<T>(call.dy, e, c), channel_values<T>(call.x, e, c));
}

template <class T, class P>
std::vector<ChannelGradients> expected(const GradientCall<T, P>& call) {
  std::vector<ChannelGradients> result;
  for (std::int64_t c = 0; c < call.extents().c; ++c) result.push_back(expected(call, c));
  return result;
}

template <class T, class P>
void note_errors(GradientErrors& worst, const GradientCall<T, P>& call, const GradientResult<T, P>& result,
                 const ChannelGradients& expected, std::int64_t c, Isa isa) {
  note(worst.dx, result.dx, expected.dx, call.extents(), c, dx_ulps<T>(isa, call.options.is_training));
  note(worst.dscale, result.dscale, expected.dscale, c);
  note(worst.dbias, result.dbias, expected.dbias, c);
}

template <class T, class P>
GradientErrors errors(const GradientCall<T, P>& call, const GradientResult<T, P>& result,
                      const std::vector<ChannelGradients>& expected, Isa isa) {
  GradientErrors worst;
  for (std::size_t c = 0; c < expected.size(); ++c) {
    note_errors(worst, call, result, expected[c], static_cast<std::int64_t>(c), isa);
  }
  return worst;
}

template <class T, class P>
DoubleGradientCall<T, P> ordinary_double_gradient_call(const Shape& shape, Format format, bool is_training,
                                                       std::uint64_t seed) {
  DoubleGradientCall<T, P> call{ordinary_gradient_call<T, P>(shape, format, is_training, seed)};
  call.ddx = with_offsets<T>(call.of.extents(), -0.5, seed + 5000);
  call.ddscale = uniform<P>(call.of.extents().c, -2, 2, seed + 6000);
  call.ddbias = uniform<P>(call.of.extents().c, -1, 1, seed + 7000);
  return call;
}

template <class T, class P>
DoubleGradientResult<T, P> run(const DoubleGradientCall<T, P>& call, const batchnorm::CallOptions& options,
                               const Offsets& offsets) {
  const GradientCall<T, P>& of = call.of;
  DoubleGradientResult<T, P> result{{}, {}, std::vector<P>(static_cast<std::size_t>(of.extents().c), element<P>(unwritten))};
  Guarded<T> dy(std::span<const T>(of.dy), offsets.dy), x(std::span<const T>(of.x), offsets.x);
  Guarded<T> dx(of.x.size(), offsets.out, element<T>(unwritten)), ddy(of.x.size(), offsets.out + 1, element<T>(unwritten));
  batchnorm::batch_norm_double_backward<T, P>(of.format, of.options,
                                              {.dy = {dy.data(), of.shape},
                                               .x = {x.data(), of.shape},
                                               .scale = view(of.scale),
                                               .mean = of.mean,
                                               .variance = of.variance,
                                               .ddx = call.ddx_view(),
                                               .ddscale = view(call.ddscale),
                                               .ddbias = view(call.ddbias)},
                                              {{dx.data(), of.shape}, {ddy.data(), of.shape}, result.dscale}, options);
  EXPECT_TRUE(dy.guards_intact() && x.guards_intact()) << "bytes beside an input were written";
  EXPECT_TRUE(dx.guards_intact() && ddy.guards_intact()) << "bytes beside an output were written";
  EXPECT_TRUE(same_bits(dy.values(), of.dy) && same_bits(x.values(), of.x)) << "an input was changed";
  result.dx.assign(dx.values().begin(), dx.values().end());
  result.ddy.assign(ddy.values().begin(), ddy.values().end());
  return result;
}

template <class T, class P>
std::vector<ChannelDoubleGradients> expected(const DoubleGradientCall<T, P>& call) {
  const Extents e = call.of.extents();
  std::vector<ChannelDoubleGradients> result;
  for (std::int64_t c = 0; c < e.c; ++c) {
    const auto at = [&](const std::optional<std::vector<P>>& values) {
      return values ? real((*values)[static_cast<std::size_t>(c)]) : Real(0);
    };
    const Values g = call.ddx ? channel_values<T>(*call.ddx, e, c) : Values(static_cast<std::size_t>(e.n * e.s));
    result.push_back(double_backward(call.of.channel(c), channel_values<T>(call.of.dy, e, c),
                                     channel_values<T>(call.of.x, e, c), g, at(call.ddscale), at(call.ddbias)));
  }
  return result;
}

template <class T, class P>
DoubleGradientErrors errors(const DoubleGradientCall<T, P>& call, const DoubleGradientResult<T, P>& result,
                            const std::vector<ChannelDoubleGradients>& expected, Isa isa) {
  DoubleGradientErrors worst;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto c = static_cast<std::int64_t>(i);
    note(worst.dx, result.dx, expected[i].dx, call.of.extents(), c, double_dx_ulps<T>(isa, call.of.options.is_training));
    note(worst.ddy, result.ddy, expected[i].ddy, call.of.extents(), c, ddy_ulps<T>(isa));
    note(worst.dscale, result.dscale, expected[i].dscale, c);
  }
  return worst;
}

std::string text_of(const Shape& shape, Format format, bool is_training) {
  return to_string(shape) + " " + std::string(to_string(format)) + (is_training ? " training" : " inference");
}

// A macro, because an explicit instantiation must repeat the whole signature.
#define SUPPORT_GRADIENT_CALLS(T, P)                                                                                           \
  template void save_statistics(GradientCall<T, P>&);                                                                          \
  template GradientCall<T, P> ordinary_gradient_call(const Shape&, Format, bool, std::uint64_t);                               \
  template GradientResult<T, P> run(const GradientCall<T, P>&, const batchnorm::CallOptions&, const Offsets&);                 \
  template std::vector<ChannelGradients> expected(const GradientCall<T, P>&);                                                  \
  template ChannelGradients expected(const GradientCall<T, P>&, std::int64_t);                                                 \
  template void note_errors(GradientErrors&, const GradientCall<T, P>&, const GradientResult<T, P>&, const ChannelGradients&,  \
                            std::int64_t, Isa);                                                                                \
  template GradientErrors errors(const GradientCall<T, P>&, const GradientResult<T, P>&, const std::vector<ChannelGradients>&, \
                                 Isa);                                                                                         \
  template DoubleGradientCall<T, P> ordinary_double_gradient_call(const Shape&, Format, bool, std::uint64_t);                  \
  template DoubleGradientResult<T, P> run(const DoubleGradientCall<T, P>&, const batchnorm::CallOptions&, const Offsets&);     \
  template std::vector<ChannelDoubleGradients> expected(const DoubleGradientCall<T, P>&);                                      \
  template DoubleGradientErrors errors(const DoubleGradientCall<T, P>&, const DoubleGradientResult<T, P>&,                     \
                                       const std::vector<ChannelDoubleGradients>&, Isa);

SUPPORT_GRADIENT_CALLS(float, float)
SUPPORT_GRADIENT_CALLS(float, batchnorm::half)
SUPPORT_GRADIENT_CALLS(batchnorm::half, float)
SUPPORT_GRADIENT_CALLS(batchnorm::half, batchnorm::half)
SUPPORT_GRADIENT_CALLS(batchnorm::bfloat16, float)
SUPPORT_GRADIENT_CALLS(batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_GRADIENT_CALLS(double, double)

}  // namespace support
