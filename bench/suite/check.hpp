// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <batchnorm/moments.hpp>

#include "errors.hpp"
#include "names.hpp"
#include "parallel.hpp"
#include "support/gradient_oracle.hpp"
#include "support/oracle.hpp"
#include "support/ulp.hpp"

// A result against the tests' oracle in long double, with the tolerances that the library promises (docs/numerics.md): every
// channel of small tensors, of large ones the first, the last and some between.
namespace bench {

using support::Real;

/// What an operation read and wrote. `mean` and `variance` are as they were before, the running ones as they are after.
template <class T>
struct Checked {
  using P = batchnorm::parameter_t<T>;

  support::Extents layout;
  batchnorm::Isa isa;
  double epsilon, momentum;
  std::span<const T> x, dy, residual, y;
  std::span<const std::uint8_t> mask;
  std::span<const P> scale, bias, mean, variance, running_mean, running_variance, out_mean, out_variance, dscale, dbias;
  const batchnorm::Moments* moments;
};

// A judge is told every value of a result: its name, channel and index there (-1: the channel's own), what it should be, the
// magnitude at which its error is measured, and the error that is allowed.

/// Keeps the first value that is wrong.
class Verdict {
 public:
  template <class V>
  void compare(const char* name, std::int64_t channel, std::int64_t index, V got, Real expected, Real, Real allowed) {
    const Real off = support::error(got, expected);
    if (off <= allowed || !error_.empty()) return;
    std::ostringstream text;
    text.precision(18);
    text << name << " of channel " << channel;
    if (index >= 0) text << ", value " << index << " of it,";
    text << " is " << support::real(got) << ", the formula says " << expected << "; off by " << off << ", allowed are "
         << allowed;
    error_ = text.str();
  }
  void refuse(const std::string& error) {
    if (error_.empty()) error_ = error;
  }
  const std::string& error() const { return error_; }

 private:
  std::string error_;
};

/// Keeps the largest error of each quantity.
class LargestErrors {
 public:
  template <class V>
  void compare(const char* name, std::int64_t, std::int64_t, V got, Real expected, Real at, Real) {
    double& largest = errors_[name];
    largest = std::max(largest, static_cast<double>(support::error(got, expected) / support::ulp_at<V>(at)));
  }
  void refuse(const std::string&) {}
  const Errors& errors() const { return errors_; }

 private:
  Errors errors_;
};

/// The channels to look at: all, or so many that they hold about a million values.
inline std::vector<std::int64_t> checked_channels(std::int64_t channels, std::int64_t values) {
  constexpr std::int64_t budget = 1 << 20;
  const std::int64_t count = std::clamp<std::int64_t>(budget / values, std::min<std::int64_t>(2, channels), channels);
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < count; ++i) chosen.push_back(count == 1 ? 0 : i * (channels - 1) / (count - 1));
  return chosen;
}

/// Calls f(i) for the values of a channel to look at: all, or of very long ones both ends and windows between.
template <class F>
void for_each_checked(std::int64_t values, F&& f) {
  constexpr std::int64_t all = 3 << 20, end = 1 << 18, window = 1 << 10;
  const std::int64_t step = values <= all ? 0 : values / 512;
  for (std::int64_t i = 0; i < values; ++i) {
    if (step > 0 && i >= end && i < values - end && i % step >= window) i = std::min(i / step * step + step, values - end);
    f(i);
  }
}

/// The values of a channel, one after the other: those of the tensor where they lie so, else a copy.
template <class T>
class ChannelValues {
 public:
  ChannelValues(std::span<const T> tensor, const support::Extents& e, std::int64_t c) {
    const auto count = static_cast<std::size_t>(e.n * e.s);
    if (tensor.empty()) return;
    if (e.c == 1 || (e.n == 1 && e.format == batchnorm::Format::NCHW)) {
      values_ = tensor.subspan(e.index(0, c, 0), count);
      return;
    }
    copy_.reserve(count);
    for (std::int64_t n = 0; n < e.n; ++n) {
      for (std::int64_t s = 0; s < e.s; ++s) copy_.push_back(tensor[e.index(n, c, s)]);
    }
    values_ = copy_;
  }
  ChannelValues(const ChannelValues&) = delete;
  ChannelValues& operator=(const ChannelValues&) = delete;

  bool empty() const { return values_.empty(); }
  std::int64_t size() const { return static_cast<std::int64_t>(values_.size()); }
  const T& at(std::int64_t i) const { return values_[static_cast<std::size_t>(i)]; }
  Real operator[](std::int64_t i) const { return support::real(at(i)); }

 private:
  std::vector<T> copy_;
  std::span<const T> values_;
};

/// The sum of term(i) over i in [0, count).
template <class Term>
support::Sum sum_over(std::int64_t count, Term&& term) {
  constexpr std::int64_t block = 1 << 14;
  support::Sum total;
  std::mutex adding;
  in_parallel((count + block - 1) / block, [&](std::int64_t begin, std::int64_t end) {
    support::Sum sum;
    for (std::int64_t i = begin * block; i < std::min(end * block, count); ++i) sum.add(term(i));
    const std::lock_guard guard(adding);
    total.value += sum.value, total.terms += sum.terms;
  });
  return total;
}

/// The mean, the mean of what is left, and the squares about both, as support::statistics has them.
template <class T>
support::Statistics statistics_of(const ChannelValues<T>& x) {
  const auto mean_of = [&](auto term) { return sum_over(x.size(), term).value / static_cast<Real>(x.size()); };
  support::Statistics result{x.size()};
  result.mean = mean_of([&](std::int64_t i) { return x[i]; });
  result.rest = mean_of([&](std::int64_t i) { return x[i] - result.mean; });
  result.variance = mean_of([&](std::int64_t i) {
    const Real deviation = (x[i] - result.mean) - result.rest;
    return deviation * deviation;
  });
  return result;
}

/// Bit i of channel c.
inline bool bit(std::span<const std::uint8_t> mask, const support::Extents& e, std::int64_t c, std::int64_t i) {
  const std::size_t at = e.index(i / e.s, c, i % e.s);
  return (mask[at / 8] >> (at % 8) & 1U) != 0;
}

/// The statistics that training returns and those that it updates.
template <class T, class Judge>
void check_statistics(Judge& judge, const Checked<T>& call, std::int64_t c, const support::Statistics& batch) {
  using P = typename Checked<T>::P;
  const auto at = static_cast<std::size_t>(c);
  const Real magnitude = std::max(std::abs(batch.mean), std::sqrt(batch.variance));
  judge.compare("the batch mean", c, -1, call.out_mean[at], batch.mean + batch.rest, magnitude,
                support::allowed_mean_error<P>(magnitude));
  judge.compare("the batch variance", c, -1, call.out_variance[at], batch.variance, batch.variance,
                support::allowed_variance_error<P>(batch.variance));
  const Real old_mean = call.mean[at], old_variance = call.variance[at];
  const Real mean_at = std::max(std::abs(old_mean), magnitude), variance_at = std::max(old_variance, batch.unbiased());
  const Real allowed_mean =
      sizeof(P) == 8 ? support::double_running_ulps * support::ulp_at<P>(mean_at) : support::allowed_mean_error<P>(mean_at);
  judge.compare("the running mean", c, -1, call.running_mean[at],
                support::updated(old_mean, batch.mean + batch.rest, call.momentum), mean_at, allowed_mean);
  judge.compare("the running variance", c, -1, call.running_variance[at],
                support::updated(old_variance, batch.unbiased(), call.momentum), variance_at,
                support::allowed_variance_error<P>(variance_at));
}

template <class T, class Judge>
void check_forward(Judge& judge, const Checked<T>& call, Operation operation, std::int64_t c) {
  const auto at = static_cast<std::size_t>(c);
  const bool is_training = bench::is_training(operation);
  const bool has_relu = operation == Operation::training_relu || operation == Operation::inference_relu ||
                        operation == Operation::training_add_relu;
  const ChannelValues<T> x(call.x, call.layout, c), y(call.y, call.layout, c), residual(call.residual, call.layout, c);
  const support::Statistics channel =
      is_training ? statistics_of(x) : support::Statistics{x.size(), call.mean[at], 0, call.variance[at]};
  if (is_training) check_statistics(judge, call, c, channel);
  for_each_checked(x.size(), [&](std::int64_t i) {
    support::Normalized want = support::normalized(x[i], channel, call.epsilon, call.scale[at], call.bias[at]);
    Real more = 0;
    if (!residual.empty()) {
      want.z += residual[i];
      want.magnitude = std::max({want.magnitude, std::abs(residual[i]), std::abs(want.z)});
      if (sizeof(T) > 2) more = support::ulp_at<T>(want.magnitude);  // the sum rounds once more
    }
    const Real allowed = support::allowed_y_error<T>(call.isa, want, call.scale[at], is_training) + more;
    judge.compare("y", c, i, y.at(i), has_relu ? std::max<Real>(want.z, 0) : want.z,
                  support::y_magnitude<T>(want, call.scale[at]), allowed);
    if (has_relu && is_training && bit(call.mask, call.layout, c, i) != (y[i] > 0)) {
      judge.refuse("the mask of channel " + std::to_string(c) + ", value " + std::to_string(i) + " of it, is not y > 0");
    }
  });
}

template <class T, class Judge>
void check_backward(Judge& judge, const Checked<T>& call, Operation operation, std::int64_t c) {
  using P = typename Checked<T>::P;
  const auto at = static_cast<std::size_t>(c);
  const ChannelValues<T> x(call.x, call.layout, c), dy(call.dy, call.layout, c), dx(call.y, call.layout, c);
  const ChannelValues<T> dresidual(call.residual, call.layout, c);
  const auto dz = [&](std::int64_t i) {
    return operation == Operation::backward || bit(call.mask, call.layout, c, i) ? dy[i] : 0;
  };
  const support::Channel channel{true, {x.size(), call.mean[at], 0, call.variance[at]}, call.epsilon, call.scale[at]};
  const Real r = channel.r(), a = channel.scale * r;
  const auto xh = [&](std::int64_t i) { return (x[i] - channel.saved.mean) * r; };
  const support::Sum dbias = sum_over(x.size(), dz);
  const support::Sum dscale = sum_over(x.size(), [&](std::int64_t i) { return dz(i) * xh(i); });
  judge.compare("dbias", c, -1, call.dbias[at], dbias.value, support::sum_magnitude<P>(dbias),
                support::allowed_sum_error<P>(dbias));
  judge.compare("dscale", c, -1, call.dscale[at], dscale.value, support::sum_magnitude<P>(dscale),
                support::allowed_sum_error<P>(dscale));
  const support::Sum mean = dbias / static_cast<Real>(x.size()), projection = dscale / static_cast<Real>(x.size());
  for_each_checked(x.size(), [&](std::int64_t i) {
    const Real value = dz(i), normalized = xh(i);
    const support::Gradient want{a * (value - mean.value - normalized * projection.value),
                                 support::largest({a * value, a * mean.value, a * normalized * projection.value}),
                                 std::abs(a) * (mean.terms + std::abs(normalized) * projection.terms)};
    judge.compare("dx", c, i, dx.at(i), want.value, support::gradient_magnitude<T>(want),
                  support::allowed_gradient_error<T>(want, support::dx_ulps<T>(call.isa, true)));
    if (!dresidual.empty()) judge.compare("the residual's gradient", c, i, dresidual.at(i), value, std::abs(value), 0);
  });
}

template <class T>
void check_moments(Verdict& verdict, const Checked<T>& call, std::int64_t c) {
  using P = typename Checked<T>::P;
  const support::Statistics want = statistics_of(ChannelValues<T>(call.x, call.layout, c));
  const Real magnitude = std::max(std::abs(want.mean), std::sqrt(want.variance));
  verdict.compare("the mean", c, -1, call.moments->mean[static_cast<std::size_t>(c)], want.mean, magnitude,
                  support::allowed_mean_error<P>(magnitude));
  verdict.compare("the variance", c, -1, call.moments->variance(c), want.variance, want.variance,
                  support::allowed_variance_error<P>(want.variance));
}

/// What is wrong, or nothing.
template <class T>
std::string error_of(const Problem& problem, const Checked<T>& call) {
  Verdict verdict;
  for (const std::int64_t c : checked_channels(problem.c(), problem.n() * problem.spatial())) {
    if (problem.operation == Operation::moments) {
      check_moments(verdict, call, c);
    } else if (is_backward(problem.operation)) {
      check_backward(verdict, call, problem.operation, c);
    } else {
      check_forward(verdict, call, problem.operation, c);
    }
  }
  return verdict.error();
}

/// The largest errors of any operation but the moments, which have no type of their own to be rounded to.
template <class T>
Errors errors_of(const Problem& problem, const Checked<T>& call) {
  LargestErrors largest;
  for (const std::int64_t c : checked_channels(problem.c(), problem.n() * problem.spatial())) {
    is_backward(problem.operation) ? check_backward(largest, call, problem.operation, c)
                                   : check_forward(largest, call, problem.operation, c);
  }
  return largest.errors();
}

}  // namespace bench
