// SPDX-License-Identifier: MIT

// What is written first: one pass for the mean, one for the variance, one for the result, each in memory order, with sums of
// double. It uses one thread whatever the problem asks for, and is compiled with -O2.

#include <algorithm>
#include <cmath>

#include <Eigen/Core>

#include "offers.hpp"

namespace bench {
namespace {

bool is_plain(Operation operation) {
  return operation == Operation::training || operation == Operation::inference || operation == Operation::backward;
}

template <class T, class P>
class NaiveLoop final : public Rival {
 public:
  NaiveLoop(const Problem& problem, const Buffers& buffers)
      : problem_(problem),
        buffers_(buffers),
        count_(problem.c() == 0 ? 0 : problem.elements() / problem.c()),
        first_(static_cast<std::size_t>(problem.c())),
        second_(first_.size()) {}

  std::string name() const override { return "naive loop"; }

  void run() override {
    switch (problem_.operation) {
      case Operation::training: return train();
      case Operation::backward: return backward();
      default: return normalize(static_cast<const P*>(buffers_.mean), static_cast<const P*>(buffers_.variance));
    }
  }

 private:
  /// visit(c, i) for each element i and its channel c.
  template <class Visit>
  void for_each_element(Visit visit) const {
    std::int64_t i = 0;
    if (problem_.layout == Layout::nhwc) {
      const std::int64_t rows = problem_.n() * problem_.spatial();
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t c = 0; c < problem_.c(); ++c) visit(c, i++);
    } else {
      for (std::int64_t n = 0; n < problem_.n(); ++n)
        for (std::int64_t c = 0; c < problem_.c(); ++c)
          for (std::int64_t s = 0; s < problem_.spatial(); ++s) visit(c, i++);
    }
  }

  void train() {
    const T* x = static_cast<const T*>(buffers_.x);
    P* mean = static_cast<P*>(buffers_.out_mean);
    P* variance = static_cast<P*>(buffers_.out_variance);
    const double m = static_cast<double>(count_);
    std::fill(first_.begin(), first_.end(), 0.0);
    std::fill(second_.begin(), second_.end(), 0.0);
    double* sum = first_.data();
    for_each_element([=](std::int64_t c, std::int64_t i) { sum[c] += static_cast<double>(x[i]); });
    for (std::int64_t c = 0; c < problem_.c(); ++c) sum[c] /= m;
    double* squares = second_.data();
    for_each_element([=](std::int64_t c, std::int64_t i) {
      const double difference = static_cast<double>(x[i]) - sum[c];
      squares[c] += difference * difference;
    });
    P* running_mean = static_cast<P*>(buffers_.mean);
    P* running_variance = static_cast<P*>(buffers_.variance);
    const double kept = 1 - buffers_.momentum;
    for (std::int64_t c = 0; c < problem_.c(); ++c) {
      mean[c] = static_cast<P>(sum[c]);
      variance[c] = static_cast<P>(squares[c] / m);
      running_mean[c] = static_cast<P>(kept * running_mean[c] + buffers_.momentum * sum[c]);
      running_variance[c] =
          static_cast<P>(kept * running_variance[c] + buffers_.momentum * squares[c] / std::max<double>(m - 1, 1));
    }
    normalize(mean, variance);
  }

  void normalize(const P* mean, const P* variance) const {
    const T* x = static_cast<const T*>(buffers_.x);
    T* y = static_cast<T*>(buffers_.y);
    const P* scale = static_cast<const P*>(buffers_.scale);
    const P* bias = static_cast<const P*>(buffers_.bias);
    const P epsilon = static_cast<P>(buffers_.epsilon);
    for_each_element([=](std::int64_t c, std::int64_t i) {
      y[i] = static_cast<T>(scale[c] * (static_cast<P>(x[i]) - mean[c]) / std::sqrt(variance[c] + epsilon) + bias[c]);
    });
  }

  void backward() {
    const T* x = static_cast<const T*>(buffers_.x);
    const T* dy = static_cast<const T*>(buffers_.dy);
    T* dx = static_cast<T*>(buffers_.y);
    const P* scale = static_cast<const P*>(buffers_.scale);
    const P* mean = static_cast<const P*>(buffers_.mean);
    const P* variance = static_cast<const P*>(buffers_.variance);
    P* dscale = static_cast<P*>(buffers_.dscale);
    P* dbias = static_cast<P*>(buffers_.dbias);
    std::fill(first_.begin(), first_.end(), 0.0);
    std::fill(second_.begin(), second_.end(), 0.0);
    double* sum = first_.data();
    double* products = second_.data();
    for_each_element([=](std::int64_t c, std::int64_t i) {
      sum[c] += static_cast<double>(dy[i]);
      products[c] += static_cast<double>(dy[i]) * (static_cast<double>(x[i]) - mean[c]);
    });
    const double m = static_cast<double>(count_);
    const double epsilon = buffers_.epsilon;
    for (std::int64_t c = 0; c < problem_.c(); ++c) {
      dscale[c] = static_cast<P>(products[c] / std::sqrt(variance[c] + epsilon));
      dbias[c] = static_cast<P>(sum[c]);
    }
    for_each_element([=](std::int64_t c, std::int64_t i) {
      const double deviation = std::sqrt(variance[c] + epsilon);
      const double normalized = (static_cast<double>(x[i]) - mean[c]) / deviation;
      dx[i] = static_cast<T>(
          static_cast<P>(scale[c] / deviation * (static_cast<double>(dy[i]) - (dbias[c] + normalized * dscale[c]) / m)));
    });
  }

  Problem problem_;
  Buffers buffers_;
  std::int64_t count_;  // values of a channel
  std::vector<double> first_, second_;
};

}  // namespace

void offer_naive_loop(const Problem& problem, const Buffers& buffers, Offers& offers) {
  if (!is_plain(problem.operation)) return;
  switch (problem.type) {
    case ElementType::float32: offers.push_back(std::make_unique<NaiveLoop<float, float>>(problem, buffers)); break;
    case ElementType::float64: offers.push_back(std::make_unique<NaiveLoop<double, double>>(problem, buffers)); break;
    case ElementType::half: offers.push_back(std::make_unique<NaiveLoop<Eigen::half, float>>(problem, buffers)); break;
    case ElementType::bfloat16: offers.push_back(std::make_unique<NaiveLoop<Eigen::bfloat16, float>>(problem, buffers)); break;
  }
}

}  // namespace bench
