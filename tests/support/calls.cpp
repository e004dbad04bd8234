// SPDX-License-Identifier: MIT
#include "calls.hpp"

namespace support {

namespace {

template <class P>
Errors statistics_errors(std::span<const P> mean, std::span<const P> variance, const std::vector<Statistics>& expected) {
  Errors worst;
  for (std::size_t c = 0; c < expected.size(); ++c) {
    const Statistics& want = expected[c];
    const Real at = std::max(std::abs(want.mean), std::sqrt(want.variance));
    worst.mean.note(error(mean[c], want.mean + want.rest), ulp_at<P>(at), allowed_mean_error<P>(at), c);
    worst.variance.note(error(variance[c], want.variance), ulp_at<P>(want.variance), allowed_variance_error<P>(want.variance),
                        c);
  }
  return worst;
}

/// The running statistics after a call in training, momentum strictly between 0 and 1.
template <class T, class P>
Errors running_errors(const Call<T, P>& call, const Result<T, P>& result, const Expected& expected, double momentum) {
  Errors worst;
  for (std::size_t c = 0; c < expected.channel.size(); ++c) {
    const Statistics& batch = expected.channel[c];
    const Real old_mean = real((*call.mean)[c]), old_variance = real((*call.variance)[c]);
    const Real entering =
        call.options.running_variance == batchnorm::RunningVariance::unbiased ? batch.unbiased() : batch.variance;
    const Real mean_at = std::max({std::abs(old_mean), std::abs(batch.mean), std::sqrt(batch.variance)});
    const Real variance_at = std::max(std::abs(old_variance), entering);
    Real allowed_mean = allowed_mean_error<P>(mean_at), allowed_variance = allowed_variance_error<P>(variance_at);
    if constexpr (sizeof(P) == 8) allowed_mean = double_running_ulps * ulp_at<P>(mean_at);
    worst.running_mean.note(error(result.mean[c], updated(old_mean, batch.mean + batch.rest, momentum)), ulp_at<P>(mean_at),
                            allowed_mean, c);
    worst.running_variance.note(error(result.variance[c], updated(old_variance, entering, momentum)), ulp_at<P>(variance_at),
                                allowed_variance, c);
  }
  return worst;
}

}  // namespace

template <class T, class P>
Call<T, P> ordinary_call(const Shape& shape, Format format, bool is_training, std::uint64_t seed) {
  Call<T, P> call{shape, format, {.is_training = is_training}};
  const Extents e = call.extents();
  Random random(seed);
  call.x.resize(static_cast<std::size_t>(e.n * e.c * e.s));
  for (std::int64_t c = 0; c < e.c; ++c) {
    const double offset = 1.5 * static_cast<double>(c % 5 - 2);
    for (std::int64_t n = 0; n < e.n; ++n) {
      for (std::int64_t s = 0; s < e.s; ++s) call.x[e.index(n, c, s)] = element<T>(offset + random.uniform(-2, 2));
    }
  }
  call.scale = filled<P>(e.c, [&] { return random.uniform(-2, 2); });
  call.bias = filled<P>(e.c, [&] { return random.uniform(-1, 1); });
  call.mean = filled<P>(e.c, [&] { return random.uniform(-1, 1); });
  call.variance = filled<P>(e.c, [&] { return random.uniform(0.1, 3); });
  return call;
}

template <class T, class P>
Result<T, P> run(const Call<T, P>& call, const batchnorm::CallOptions& options, std::size_t x_offset, std::size_t y_offset) {
  const auto channels = static_cast<std::size_t>(call.extents().c);
  Result<T, P> result;
  for (auto* statistic : {&result.batch_mean, &result.batch_variance, &result.reserve_space_1, &result.reserve_space_2}) {
    statistic->assign(channels, element<P>(unwritten));
  }
  batchnorm::TensorView<P> mean, variance;
  if (call.mean) mean = result.mean = *call.mean;
  if (call.variance) variance = result.variance = *call.variance;
  Guarded<T> x(std::span<const T>(call.x), x_offset);
  Guarded<T> y(call.x.size(), y_offset, element<T>(unwritten));
  batchnorm::batch_norm<T, P>(
      call.format, call.options, {x.data(), call.shape}, view(call.scale), view(call.bias), mean, variance,
      {{y.data(), call.shape}, result.batch_mean, result.batch_variance, result.reserve_space_1, result.reserve_space_2},
      batchnorm::Identity{}, options);
  EXPECT_TRUE(x.guards_intact() && y.guards_intact()) << "bytes beside the tensor were written";
  EXPECT_TRUE(same_bits(x.values(), call.x)) << "x was changed";
  result.y.assign(y.values().begin(), y.values().end());
  return result;
}

template <class T, class P>
Expected expected(const Call<T, P>& call) {
  const Extents e = call.extents();
  Expected result{std::vector<Normalized>(call.x.size()), {}, {}};
  for (std::int64_t c = 0; c < e.c; ++c) {
    const auto at = [&](const auto& values, Real absent) {
      return values ? real((*values)[static_cast<std::size_t>(c)]) : absent;
    };
    const Statistics channel = call.options.is_training ? statistics<T>(call.x, e, c)
                                                        : Statistics{e.n * e.s, at(call.mean, 0), 0, at(call.variance, 1)};
    const Real scale = at(call.scale, 1), bias = at(call.bias, 0);
    for (std::int64_t n = 0; n < e.n; ++n) {
      for (std::int64_t s = 0; s < e.s; ++s) {
        const std::size_t i = e.index(n, c, s);
        result.y[i] = normalized(real(call.x[i]), channel, call.options.epsilon, scale, bias);
      }
    }
    result.channel.push_back(channel);
    result.scale.push_back(scale);
  }
  return result;
}

template <class T>
Worst y_errors(std::span<const T> y, const Expected& expected, const Extents& e, Isa isa, bool batch_statistics) {
  Worst worst;
  for (std::int64_t n = 0; n < e.n; ++n) {
    for (std::int64_t c = 0; c < e.c; ++c) {
      const Real scale = expected.scale[static_cast<std::size_t>(c)];
      for (std::int64_t s = 0; s < e.s; ++s) {
        const std::size_t i = e.index(n, c, s);
        const Normalized& want = expected.y[i];
        worst.note(error(y[i], want.z), ulp_at<T>(y_magnitude<T>(want, scale)),
                   allowed_y_error<T>(isa, want, scale, batch_statistics), i);
      }
    }
  }
  return worst;
}

template <class T, class P>
Errors errors(const Call<T, P>& call, const Result<T, P>& result, const Expected& expected, Isa isa) {
  Errors worst;
  if (call.options.is_training) {
    worst = statistics_errors<P>(result.batch_mean, result.batch_variance, expected.channel);
    if (call.mean && call.options.momentum > 0 && call.options.momentum < 1) {
      worst.merge(running_errors(call, result, expected, call.options.momentum));
    }
  }
  worst.y = y_errors<T>(result.y, expected, call.extents(), isa, call.options.is_training);
  return worst;
}

// A macro, because an explicit instantiation must repeat the whole signature.
#define SUPPORT_CALLS(T, P)                                                                              \
  template Call<T, P> ordinary_call(const Shape&, Format, bool, std::uint64_t);                          \
  template Result<T, P> run(const Call<T, P>&, const batchnorm::CallOptions&, std::size_t, std::size_t); \
  template Expected expected(const Call<T, P>&);                                                         \
  template Errors errors(const Call<T, P>&, const Result<T, P>&, const Expected&, Isa);

SUPPORT_CALLS(float, float)
SUPPORT_CALLS(float, batchnorm::half)
SUPPORT_CALLS(batchnorm::half, float)
SUPPORT_CALLS(batchnorm::half, batchnorm::half)
SUPPORT_CALLS(batchnorm::bfloat16, float)
SUPPORT_CALLS(batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_CALLS(double, double)
template Worst y_errors(std::span<const float>, const Expected&, const Extents&, Isa, bool);
template Worst y_errors(std::span<const double>, const Expected&, const Extents&, Isa, bool);
template Worst y_errors(std::span<const batchnorm::half>, const Expected&, const Extents&, Isa, bool);
template Worst y_errors(std::span<const batchnorm::bfloat16>, const Expected&, const Extents&, Isa, bool);

}  // namespace support
