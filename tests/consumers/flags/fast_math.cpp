// SPDX-License-Identifier: MIT
// Compiled with -ffast-math: the promise of docs/numerics.md is void, yet finite data gives what it should to 1e-5, and an
// option that is NaN is still refused.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <batchnorm/batchnorm.hpp>

namespace {

using namespace batchnorm;

int failures = 0;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::printf("not so: %s\n", what.c_str());
  ++failures;
}

double not_a_number() {
  const std::uint64_t bits = 0x7ff8'0000'0000'0000;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class Call>
void expect_refused(const char* what, const Call& call) {
  try {
    call();
  } catch (const ValueError&) {
    return;
  }
  expect(false, std::string("a NaN is refused as ") + what);
}

/// Training, its gradient and inference on [4, 3, 200] against plain loops in double.
template <class T, Format F>
void expect_right(const std::string& where) {
  const std::int64_t n = 4, c = 3, s = 200, m = n * s;
  const Shape shape = F == Format::NCHW ? Shape{n, c, s} : Shape{n, s, c};
  const auto at = [&](std::int64_t i, std::int64_t k, std::int64_t j) {
    return F == Format::NCHW ? (i * c + k) * s + j : (i * s + j) * c + k;
  };
  Tensor<T> x(shape), dy(shape);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<T>(static_cast<float>(std::sin(0.7 * static_cast<double>(i))));
    dy[i] = static_cast<T>(static_cast<float>(std::cos(0.3 * static_cast<double>(i))));
  }
  using P = parameter_t<T>;
  const std::vector<P> scale{P(1.5), P(-2), P(0.5)}, bias{P(0.25), P(0), P(-1)};
  std::vector<P> mean(3), variance(3, P(1));
  const BatchNorm<T, F> norm(true, 1e-3);
  const auto out = norm(x, scale, bias, mean, variance);
  const auto gradients = norm.backward(dy, x, scale, out.reserve_space_1, out.reserve_space_2);
  double worst = 0;
  for (std::int64_t k = 0; k < c; ++k) {
    double sum = 0, squares = 0, sum_dy = 0, sum_dy_xh = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < s; ++j) sum += widened(x[at(i, k, j)]);
    }
    const double average = sum / static_cast<double>(m);
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < s; ++j) squares += std::pow(widened(x[at(i, k, j)]) - average, 2);
    }
    const double r = 1 / std::sqrt(squares / static_cast<double>(m) + 1e-3);
    const auto xh = [&](std::int64_t i, std::int64_t j) { return (widened(x[at(i, k, j)]) - average) * r; };
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < s; ++j) {
        sum_dy += widened(dy[at(i, k, j)]);
        sum_dy_xh += widened(dy[at(i, k, j)]) * xh(i, j);
      }
    }
    const double a = static_cast<double>(scale[static_cast<std::size_t>(k)]),
                 b = static_cast<double>(bias[static_cast<std::size_t>(k)]);
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < s; ++j) {
        const double y = a * xh(i, j) + b;
        const double dx = a * r * (widened(dy[at(i, k, j)]) - (sum_dy + xh(i, j) * sum_dy_xh) / static_cast<double>(m));
        worst = std::fmax(worst, std::fabs(y - widened(out.output_x[at(i, k, j)])));
        worst = std::fmax(worst, std::fabs(dx - widened(gradients.dx[at(i, k, j)])));
      }
    }
  }
  expect(worst < 1e-5, where + " within 1e-5, off by " + std::to_string(worst));
}

}  // namespace

int main() {
  for (const Isa isa : available_isas()) {
    force_isa(isa);
    const std::string name(to_string(isa));
    expect_right<float, Format::NCHW>(name + ", float NCHW");
    expect_right<float, Format::NHWC>(name + ", float NHWC");
    expect_right<double, Format::NHWC>(name + ", double NHWC");
  }
  const double nan = not_a_number();
  expect_refused("epsilon", [&] { BatchNorm<float>(true, nan); });
  expect_refused("momentum", [&] { BatchNorm<float>(true, 1e-5, nan); });
  expect_refused("PyTorch's momentum", [&] { from_pytorch(nan); });
  expect_refused("Caffe's weight", [&] { from_caffe({.weight = nan}); });
  expect_refused("slope", [&] { InPlaceBatchNorm<float>(Options{.is_training = true}, LeakyRelu{nan}); });
  std::printf("-ffast-math: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
