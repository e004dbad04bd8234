// SPDX-License-Identifier: MIT

// Each rival against the naive loop, on small shapes of every rank. The naive loop has no ReLU: it is applied afterwards.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "rival.hpp"

namespace {

using bench::ElementType;
using bench::Layout;
using bench::Operation;

/// A tensor or a vector of any of the types. Half and bfloat16 hold multiples of 1/8 below 16, which both have: their bits
/// follow from those of float.
class Values {
 public:
  Values(std::int64_t size, ElementType type) : size_(size), type_(type), bytes_(static_cast<std::size_t>(size) * width()) {}

  void* data() { return bytes_.data(); }
  std::int64_t size() const { return size_; }

  void set(std::int64_t i, double value) {
    const float narrow = static_cast<float>(value);
    std::uint32_t bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    switch (type_) {
      case ElementType::float64: return put(i, value);
      case ElementType::float32: return put(i, narrow);
      case ElementType::bfloat16: return put(i, static_cast<std::uint16_t>(bits >> 16));
      case ElementType::half: {
        const std::uint32_t magnitude = narrow == 0 ? 0 : ((bits & 0x7fffffffU) >> 13) - ((127 - 15) << 10);
        return put(i, static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | magnitude));
      }
    }
  }

  double get(std::int64_t i) const {
    if (type_ == ElementType::float64) return take<double>(i);
    if (type_ == ElementType::float32) return static_cast<double>(take<float>(i));
    const std::uint32_t bits = take<std::uint16_t>(i);
    if (type_ == ElementType::half) {
      const double fraction = (bits & 0x3ffU) / 1024.0;
      const int exponent = static_cast<int>(bits >> 10 & 31U);
      const double magnitude = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1 + fraction, exponent - 15);
      return bits >> 15 ? -magnitude : magnitude;
    }
    const std::uint32_t wide = bits << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return static_cast<double>(value);
  }

 private:
  std::size_t width() const { return type_ == ElementType::float64 ? 8 : type_ == ElementType::float32 ? 4 : 2; }
  template <class T>
  void put(std::int64_t i, T value) {
    std::memcpy(bytes_.data() + static_cast<std::size_t>(i) * sizeof value, &value, sizeof value);
  }
  template <class T>
  T take(std::int64_t i) const {
    T value;
    std::memcpy(&value, bytes_.data() + static_cast<std::size_t>(i) * sizeof value, sizeof value);
    return value;
  }

  std::int64_t size_;
  ElementType type_;
  std::vector<unsigned char> bytes_;
};

/// All that one problem reads and writes.
struct Case {
  bench::Problem problem;
  Values x, dy, y;
  std::array<Values, 8> vectors;  // scale, bias, mean, variance, out_mean, out_variance, dscale, dbias

  explicit Case(const bench::Problem& p)
      : problem(p), x(p.elements(), p.type), dy(p.elements(), p.type), y(p.elements(), p.type), vectors{parameter(p),
                                                                                                        parameter(p),
                                                                                                        parameter(p),
                                                                                                        parameter(p),
                                                                                                        parameter(p),
                                                                                                        parameter(p),
                                                                                                        parameter(p),
                                                                                                        parameter(p)} {
    for (std::int64_t i = 0; i < p.elements(); ++i) {
      x.set(i, static_cast<double>(i * 37 % 61 - 30) / 8);
      dy.set(i, static_cast<double>(i * 53 % 41 - 20) / 8);
    }
    for (std::int64_t c = 0; c < p.c(); ++c) {
      vectors[0].set(c, 0.5 + static_cast<double>(c % 5) / 4);
      vectors[1].set(c, static_cast<double>(c % 7) / 8 - 0.25);
      vectors[2].set(c, static_cast<double>(c % 3) / 4 - 0.25);
      vectors[3].set(c, 3 + static_cast<double>(c % 4));
    }
  }

  static Values parameter(const bench::Problem& p) {
    return Values(p.c(), p.type == ElementType::float64 ? ElementType::float64 : ElementType::float32);
  }

  bench::Buffers buffers() {
    return {.x = x.data(),
            .dy = dy.data(),
            .y = y.data(),
            .scale = vectors[0].data(),
            .bias = vectors[1].data(),
            .mean = vectors[2].data(),
            .variance = vectors[3].data(),
            .out_mean = vectors[4].data(),
            .out_variance = vectors[5].data(),
            .dscale = vectors[6].data(),
            .dbias = vectors[7].data(),
            .epsilon = 1e-5,
            .momentum = 0.1};
  }
};

/// The largest difference of the results, as a multiple of what rounding allows.
double difference(const Values& result, const Values& expected, double tolerance) {
  double largest = 0;
  for (std::int64_t i = 0; i < result.size(); ++i) {
    const double error = std::abs(result.get(i) - expected.get(i)) / (tolerance * (1 + std::abs(expected.get(i))));
    largest = error <= largest ? largest : error;  // NaN counts
  }
  return largest;
}

/// Some rivals sum float in another order, others round the half types after each step.
double tolerance_of(ElementType type) {
  switch (type) {
    case ElementType::float64: return 1e-12;
    case ElementType::float32: return 2e-5;
    case ElementType::half: return 4e-3;
    case ElementType::bfloat16: return 3e-2;
  }
  return 0;
}

/// The operation of the naive loop that comes before ReLU.
Operation without_relu(Operation operation) {
  switch (operation) {
    case Operation::training_relu: return Operation::training;
    case Operation::inference_relu:
    case Operation::inference_prepared: return Operation::inference;
    case Operation::backward_relu: return Operation::backward;
    default: return operation;
  }
}

/// What the naive loop makes of a problem.
void run_naive(Case& expected) {
  bench::Problem plain = expected.problem;
  const bool is_prepared = plain.operation == Operation::inference_prepared;
  const bool has_relu = !is_prepared && plain.operation != without_relu(plain.operation);
  plain.operation = without_relu(plain.operation);
  const auto naive = std::move(bench::rivals_of(plain, expected.buffers()).front());
  if (has_relu && plain.operation == Operation::backward) {
    // dy comes through ReLU of the batch's own statistics, so they are those that backward is given.
    bench::Problem forward = plain;
    forward.operation = Operation::training;
    bench::rivals_of(forward, expected.buffers()).front()->run();
    expected.vectors[2] = expected.vectors[4];
    expected.vectors[3] = expected.vectors[5];
    for (std::int64_t i = 0; i < expected.y.size(); ++i) {
      if (expected.y.get(i) <= 0) expected.dy.set(i, 0);
    }
  }
  naive->run();
  if (has_relu && plain.operation != Operation::backward) {
    for (std::int64_t i = 0; i < expected.y.size(); ++i) expected.y.set(i, std::max(expected.y.get(i), 0.0));
  }
}

int compared = 0, failed = 0;

void compare(const bench::Problem& problem) {
  Case expected(problem);
  run_naive(expected);
  Case given(problem);
  if (problem.operation == Operation::backward_relu) {
    given.vectors[2] = expected.vectors[2];
    given.vectors[3] = expected.vectors[3];
  }
  const Case start = given;
  for (const auto& rival : bench::rivals_of(problem, given.buffers())) {
    given.vectors = start.vectors;
    std::memset(given.y.data(), 0xff, 1);
    rival->run();
    rival->fetch_sums();
    std::string line =
        rival->name() + " " + rival->implementation() + ": operation " + std::to_string(static_cast<int>(problem.operation)) +
        ", layout " + std::to_string(static_cast<int>(problem.layout)) + ", type " +
        std::to_string(static_cast<int>(problem.type)) + ", threads " + std::to_string(problem.threads) + ", shape";
    for (const std::int64_t extent : problem.extents) line += " " + std::to_string(extent);
    if (!rival->has_plain_result()) {
      std::printf("%s: its result is in its own order\n", line.c_str());
      continue;
    }
    double worst = difference(given.y, expected.y, tolerance_of(problem.type));
    if (without_relu(problem.operation) == Operation::backward) {
      const double many = 10 * static_cast<double>(problem.elements() / problem.c());  // of a sum of that many
      worst = std::max(worst, difference(given.vectors[6], expected.vectors[6], 1e-7 * many));
      worst = std::max(worst, difference(given.vectors[7], expected.vectors[7], 1e-7 * many));
    }
    ++compared;
    const bool is_right = worst <= 1;
    if (!is_right) ++failed;
    std::printf("%s: %s, %.3f of the tolerance, sleeps %.1f ms\n", line.c_str(), is_right ? "right" : "WRONG", worst,
                1e3 * rival->seconds_to_sleep());
  }
}

}  // namespace

int main() {
  for (const std::string& version : bench::rival_versions()) std::printf("%s\n", version.c_str());
  const std::vector<bench::Extents> shapes = {{37, 24},    {2, 3, 5, 7},     {4, 16, 8, 8},
                                              {3, 32, 50}, {2, 16, 3, 4, 5}, {2, 20, 2, 3, 4}};
  for (const auto operation : {Operation::training, Operation::inference, Operation::backward, Operation::training_relu,
                               Operation::inference_relu, Operation::inference_prepared, Operation::backward_relu}) {
    for (const auto type : {ElementType::float32, ElementType::float64, ElementType::half, ElementType::bfloat16}) {
      for (const auto layout : {Layout::nchw, Layout::nhwc}) {
        for (const auto& shape : shapes) {
          for (const int threads : {1, 2}) compare({operation, layout, type, shape, threads});
        }
      }
    }
  }
  std::printf("%d results compared, %d wrong\n", compared, failed);
  return failed == 0 ? 0 : 1;
}
