// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/calls.hpp"
#include "support/messages.hpp"

// Each convention against the rule of its framework, written out here as that framework writes it: several training steps, then
// the running statistics are compared.
namespace {

using namespace support;
using namespace batchnorm;

constexpr int steps = 5;
constexpr std::int64_t channels = 3;

/// The running statistics of one channel, as a framework keeps them.
struct Running {
  Real mean, variance;
};

using Rule = std::function<void(Running&, const Statistics& batch)>;

Real weighted(Real old_weight, Real old, Real new_weight, Real batch) { return old_weight * old + new_weight * batch; }

/// Values lie in [-6, 5): means below 8, variances (of two values, unbiased) below 11^2 / 2. Per step the batch statistic's own
/// error, and the rounding of the update, are below double_running_ulps and double_variance_error at these magnitudes.
constexpr Real mean_bound = 8, variance_bound = 61;
constexpr Real allowed_mean = steps * double_running_ulps * mean_bound * 0x1p-52L;
constexpr Real allowed_variance = steps * (double_variance_error + 0x1p-52L) * variance_bound;

std::vector<double> batch_of(const Shape& shape, int step) {
  return uniform<double>(element_count(shape), -1.0 - step, 2.0 + 0.5 * step, static_cast<std::uint64_t>(step) + 1);
}

/// Trains with options(step) on batches of that shape and follows the rule beside it.
void expect_follows(const Shape& shape, const std::function<Options(int)>& options, const Rule& rule) {
  SCOPED_TRACE("x is " + to_string(shape));
  std::vector<double> mean{0.5, -1, 2}, variance{1, 0.25, 3}, scale(channels, 1), bias(channels, 0);
  std::vector<Running> expected;
  for (std::size_t c = 0; c < channels; ++c) expected.push_back({mean[c], variance[c]});
  for (int step = 0; step < steps; ++step) {
    const std::vector<double> x = batch_of(shape, step);
    BatchNorm<double>{options(step)}({x.data(), shape}, scale, bias, mean, variance);
    for (std::size_t c = 0; c < channels; ++c) {
      rule(expected[c], statistics<double>(x, extents(shape, Format::NCHW), static_cast<std::int64_t>(c)));
    }
  }
  for (std::size_t c = 0; c < channels; ++c) {
    EXPECT_LE(error(mean[c], expected[c].mean), allowed_mean) << "channel " << c;
    EXPECT_LE(error(variance[c], expected[c].variance), allowed_variance) << "channel " << c;
  }
}

// 12 values per channel, the factor m / (m - 1) is then 1.09; 2 where it is largest.
const Shape ordinary[] = {{3, channels, 2, 2}, {2, channels}};
const Shape one_value{1, channels};

void expect_follows(const Options& options, const Rule& rule) {
  for (const Shape& shape : ordinary)
    expect_follows(
        shape, [&](int) { return options; }, rule);
}

/// Also with one value per channel, for frameworks that define what happens then.
void expect_follows_always(const Options& options, const Rule& rule) {
  expect_follows(options, rule);
  expect_follows(
      one_value, [&](int) { return options; }, rule);
}

/// m / (m - 1), for frameworks that do not define it for one value.
Real bessel(const Statistics& batch) { return static_cast<Real>(batch.count) / static_cast<Real>(batch.count - 1); }

TEST(Conventions, PyTorch) {
  for (const double momentum : {0.1, 0.0, 1.0, 0.75}) {
    expect_follows(from_pytorch(momentum), [&](Running& running, const Statistics& batch) {
      running.mean = weighted(1 - static_cast<Real>(momentum), running.mean, momentum, batch.mean);
      running.variance = weighted(1 - static_cast<Real>(momentum), running.variance, momentum, bessel(batch) * batch.variance);
    });
  }
}

TEST(Conventions, PyTorchWithoutMomentumIsTheBatchNumber) {
  const Shape shape = ordinary[0];
  std::vector<double> mean(channels, 7), variance(channels, 7);
  std::vector<Running> expected(channels, {7, 7});
  std::int64_t num_batches_tracked = 0;
  for (int step = 0; step < steps; ++step) {
    const std::vector<double> x = batch_of(shape, step);
    num_batches_tracked += 1;
    BatchNorm<double>{from_pytorch()}({x.data(), shape}, nullptr, nullptr, mean, variance, Identity{},
                                      {.batch_number = num_batches_tracked});
    const Real factor = Real(1) / static_cast<Real>(num_batches_tracked);
    for (std::size_t c = 0; c < channels; ++c) {
      const Statistics batch = statistics<double>(x, extents(shape, Format::NCHW), static_cast<std::int64_t>(c));
      expected[c].mean = weighted(1 - factor, expected[c].mean, factor, batch.mean);
      expected[c].variance = weighted(1 - factor, expected[c].variance, factor, bessel(batch) * batch.variance);
    }
  }
  for (std::size_t c = 0; c < channels; ++c) {
    EXPECT_LE(error(mean[c], expected[c].mean), allowed_mean);
    EXPECT_LE(error(variance[c], expected[c].variance), allowed_variance);
  }
}

TEST(Conventions, MindSporeOps) {
  for (const double momentum : {0.1, 0.6}) {
    expect_follows(from_mindspore_ops(momentum), [&](Running& running, const Statistics& batch) {
      running.mean = weighted(1 - static_cast<Real>(momentum), running.mean, momentum, batch.mean);
      running.variance = weighted(1 - static_cast<Real>(momentum), running.variance, momentum, bessel(batch) * batch.variance);
    });
  }
}

TEST(Conventions, MindSporeNn) {
  for (const double momentum : {0.9, 0.25}) {
    expect_follows(from_mindspore_nn(momentum), [&](Running& running, const Statistics& batch) {
      const Real op_momentum = 1 - static_cast<Real>(momentum);  // what nn hands to ops.BatchNorm
      running.mean = weighted(1 - op_momentum, running.mean, op_momentum, batch.mean);
      running.variance = weighted(1 - op_momentum, running.variance, op_momentum, bessel(batch) * batch.variance);
    });
  }
}

TEST(Conventions, CuDnn) {
  for (const double factor : {0.1, 0.5, 1.0}) {
    expect_follows(from_cudnn(factor), [&](Running& running, const Statistics& batch) {
      running.mean = weighted(1 - static_cast<Real>(factor), running.mean, factor, batch.mean);
      running.variance = weighted(1 - static_cast<Real>(factor), running.variance, factor, bessel(batch) * batch.variance);
    });
  }
}

// Each call with 1 / (1 + n), as the documentation of cuDNN suggests: the cumulative average.
TEST(Conventions, CuDnnWithAFactorForEachCall) {
  int n = 0;
  expect_follows(
      ordinary[0], [](int step) { return from_cudnn(1.0 / (1 + step)); },
      [&](Running& running, const Statistics& batch) {
        const int call = n++ / static_cast<int>(channels);  // the rule is called once for each channel
        const Real factor = 1.0 / (1 + call);
        running.mean = weighted(1 - factor, running.mean, factor, batch.mean);
        running.variance = weighted(1 - factor, running.variance, factor, bessel(batch) * batch.variance);
      });
}

TEST(Conventions, Onnx) {
  for (const float momentum : {0.9F, 0.1F, 0.0F, 1.0F}) {
    expect_follows_always(from_onnx(momentum), [&](Running& running, const Statistics& batch) {
      running.mean = running.mean * momentum + batch.mean * (1 - static_cast<Real>(momentum));
      running.variance = running.variance * momentum + batch.variance * (1 - static_cast<Real>(momentum));
    });
  }
}

TEST(Conventions, OnnxSubtractsItsFloatFromOne) {
  Options (*const with_attributes)(float, float, bool) = from_onnx;  // a double is narrowed before it is subtracted
  EXPECT_EQ(with_attributes(0.9F, 1e-5F, true).momentum, 0.10000002384185791);
  EXPECT_EQ(from_onnx().momentum, 0.10000002384185791);
  EXPECT_EQ(from_onnx().epsilon, 9.999999747378752e-06);
  EXPECT_EQ(from_paddle().momentum, 0.10000002384185791);
}

TEST(Conventions, Keras) {
  for (const double momentum : {0.99, 0.5}) {
    expect_follows_always(from_keras(momentum), [&](Running& running, const Statistics& batch) {
      running.mean = running.mean * momentum + batch.mean * (1 - static_cast<Real>(momentum));
      running.variance = running.variance * momentum + batch.variance * (1 - static_cast<Real>(momentum));
    });
  }
}

TEST(Conventions, Flax) {
  for (const double momentum : {0.99, 0.5}) {
    expect_follows_always(from_flax(momentum), [&](Running& running, const Statistics& batch) {
      running.mean = momentum * running.mean + (1 - static_cast<Real>(momentum)) * batch.mean;
      running.variance = momentum * running.variance + (1 - static_cast<Real>(momentum)) * batch.variance;
    });
  }
}

// One value per channel is left out: the framework then copies x to y and keeps its statistics.
TEST(Conventions, Paddle) {
  for (const float momentum : {0.9F, 0.3F}) {
    expect_follows(from_paddle(momentum), [&](Running& running, const Statistics& batch) {
      running.mean = running.mean * momentum + batch.mean * (1 - static_cast<Real>(momentum));
      running.variance = running.variance * momentum + batch.variance * (1 - static_cast<Real>(momentum));
    });
  }
}

TEST(Conventions, TensorFlow) {
  for (const double factor : {1.0, 0.1}) {
    expect_follows_always(from_tensorflow(factor), [&](Running& running, const Statistics& batch) {
      const std::int64_t rest_size_minus_one = batch.count > 1 ? batch.count - 1 : 1;
      const Real adjusted = batch.variance * static_cast<Real>(batch.count) / static_cast<Real>(rest_size_minus_one);
      running.mean = factor == 1 ? batch.mean : weighted(1 - static_cast<Real>(factor), running.mean, factor, batch.mean);
      running.variance = factor == 1 ? adjusted : weighted(1 - static_cast<Real>(factor), running.variance, factor, adjusted);
    });
  }
}

TEST(Conventions, OneDnnPutsOutTheBiasedVarianceAndUpdatesNothing) {
  for (const Shape& shape : {ordinary[0], ordinary[1], one_value}) {
    const std::vector<double> x = batch_of(shape, 1), before{0.5, -0.0, std::numeric_limits<double>::quiet_NaN()};
    std::vector<double> mean = before, variance = before;
    const auto outputs = BatchNorm<double>{from_onednn()}({x.data(), shape}, nullptr, nullptr, mean, variance);
    EXPECT_TRUE(same_bits(mean, before) && same_bits(variance, before));
    for (std::int64_t c = 0; c < channels; ++c) {
      const Statistics batch = statistics<double>(x, extents(shape, Format::NCHW), c);
      EXPECT_LE(error(outputs.batch_mean[c], batch.mean), allowed_mean);
      EXPECT_LE(error(outputs.batch_variance[c], batch.variance), allowed_variance);
    }
  }
}

/// Caffe's three blobs.
struct Blobs {
  std::vector<Real> mean = std::vector<Real>(channels), variance = std::vector<Real>(channels);
  Real weight = 0;

  void step(const std::vector<double>& x, const Shape& shape, float fraction) {
    weight *= fraction;
    weight += 1;
    for (std::size_t c = 0; c < channels; ++c) {
      const Statistics batch = statistics<double>(x, extents(shape, Format::NCHW), static_cast<std::int64_t>(c));
      const Real m = static_cast<Real>(batch.count), correction = m > 1 ? m / (m - 1) : 1;
      mean[c] = batch.mean + fraction * mean[c];
      variance[c] = correction * batch.variance + fraction * variance[c];
    }
  }
};

template <class To>
std::vector<To> converted(const std::vector<Real>& values) {
  return std::vector<To>(values.begin(), values.end());
}

TEST(Conventions, Caffe) {
  for (const Shape& shape : {ordinary[0], ordinary[1], one_value}) {
    for (const float fraction : {0.999F, 0.5F, 0.0F, 1.0F}) {
      SCOPED_TRACE(to_string(shape) + ", fraction " + std::to_string(fraction));
      Blobs blobs;
      CaffeAverage average{.fraction = fraction};
      std::vector<double> mean(channels, std::numeric_limits<double>::quiet_NaN()), variance = mean;  // replaced at once
      for (int step = 0; step < steps; ++step) {
        const std::vector<double> x = batch_of(shape, step);
        blobs.step(x, shape, fraction);
        BatchNorm<double>{from_caffe(average)}({x.data(), shape}, nullptr, nullptr, mean, variance);
        average.weight = average.next_weight();
      }
      EXPECT_LE(error(average.weight, blobs.weight), steps * 0x1p-53L * blobs.weight) << "each step rounds once";
      for (std::size_t c = 0; c < channels; ++c) {
        EXPECT_LE(error(mean[c], blobs.mean[c] / blobs.weight), allowed_mean);
        EXPECT_LE(error(variance[c], blobs.variance[c] / blobs.weight), allowed_variance);
      }
    }
  }
}

TEST(Conventions, CaffeGoesOnFromStoredBlobs) {
  const Shape shape = ordinary[0];
  Blobs blobs;
  for (int step = 0; step < steps; ++step) blobs.step(batch_of(shape, step), shape, 0.999F);
  const auto weight = static_cast<double>(blobs.weight);
  std::vector<double> mean = caffe_statistic(converted<double>(blobs.mean), weight);
  std::vector<double> variance = caffe_statistic(converted<double>(blobs.variance), weight);
  const std::vector<double> x = batch_of(shape, steps);
  BatchNorm<double>{from_caffe({.weight = weight})}({x.data(), shape}, nullptr, nullptr, mean, variance);
  blobs.step(x, shape, 0.999F);
  for (std::size_t c = 0; c < channels; ++c) {
    EXPECT_LE(error(mean[c], blobs.mean[c] / blobs.weight), allowed_mean);
    EXPECT_LE(error(variance[c], blobs.variance[c] / blobs.weight), allowed_variance);
  }
}

TEST(Conventions, CaffeStatisticDividesByTheWeight) {
  EXPECT_EQ(caffe_statistic(std::vector<float>{3, -1, 0}, 2.0F), (std::vector<float>{1.5F, -0.5F, 0}));
  EXPECT_EQ(caffe_statistic(std::vector<double>{1}, 3.0), std::vector<double>{1.0 / 3});
  EXPECT_EQ(caffe_statistic(std::vector<float>{3, -1}, 0.0F), std::vector<float>(2, 0)) << "nothing stored yet";
  EXPECT_TRUE(caffe_statistic(std::vector<float>{}, 1.0F).empty());
}

// inverse: rounded once, twice that in its square; 1 / inverse: as much again; the difference: once.
constexpr Real allowed_round_trip = 5 * 0x1p-53L * 1.01L;

TEST(Conventions, InverseDeviationAndVarianceAreInverses) {
  for (const double epsilon : {1e-5, 1e-3, 1.0, 1e-12}) {
    for (const double variance : {0.0, 1e-30, 1e-9, 1e-5, 0.3, 1.0, 7e4, 1e30}) {
      const Real sum = static_cast<Real>(variance) + static_cast<Real>(epsilon);
      const auto inverse = static_cast<double>(1 / std::sqrt(sum));
      EXPECT_LE(error(variance_of_inverse_deviation(inverse, epsilon), variance), allowed_round_trip * sum)
          << variance << ", epsilon " << epsilon;
      EXPECT_LE(error(inverse_deviation_of_variance(variance, epsilon), 1 / std::sqrt(sum)), 3 * 0x1p-53L / std::sqrt(sum))
          << "the sum, its root and the quotient round once each";
    }
  }
  EXPECT_EQ(variance_of_inverse_deviation(0.5, 1.0), 3.0);
  EXPECT_EQ(inverse_deviation_of_variance(3.0, 1.0), 0.5);
  EXPECT_TRUE(std::isnan(inverse_deviation_of_variance(-2, 1.0)));
}

void expect_options(const Options& options, double momentum, double epsilon, RunningVariance running_variance) {
  EXPECT_TRUE(options.is_training);
  EXPECT_EQ(options.momentum, momentum);
  EXPECT_EQ(options.epsilon, epsilon);
  EXPECT_EQ(options.running_variance, running_variance);
  EXPECT_EQ(options.not_finite, NotFinite::update);
}

TEST(Conventions, DefaultsAreThoseOfTheFramework) {
  expect_options(from_pytorch(), 0.1, 1e-5, RunningVariance::unbiased);
  expect_options(from_mindspore_ops(), 0.1, 1e-5, RunningVariance::unbiased);
  expect_options(from_mindspore_nn(), 1 - 0.9, 1e-5, RunningVariance::unbiased);
  expect_options(from_cudnn(), 0.1, 1e-5, RunningVariance::unbiased);
  expect_options(from_onnx(), 1 - static_cast<double>(0.9F), static_cast<double>(1e-5F), RunningVariance::biased);
  expect_options(from_keras(), 1 - 0.99, 1e-3, RunningVariance::biased);
  expect_options(from_flax(), 1 - 0.99, 1e-5, RunningVariance::biased);
  expect_options(from_paddle(), 1 - static_cast<double>(0.9F), static_cast<double>(1e-5F), RunningVariance::biased);
  expect_options(from_tensorflow(), 1, 1e-4, RunningVariance::unbiased);
  expect_options(from_onednn(), 0, 1e-5, RunningVariance::biased);
  expect_options(from_caffe(), 1, static_cast<double>(1e-5F), RunningVariance::unbiased);
}

TEST(Conventions, EpsilonAndTrainingArePassedOn) {
  for (const bool is_training : {false, true}) {
    for (const Options& options :
         {from_pytorch(0.25, 0.5, is_training), from_mindspore_ops(0.25, 0.5, is_training),
          from_mindspore_nn(0.75, 0.5, is_training), from_cudnn(0.25, 0.5, is_training), from_onnx(0.75F, 0.5F, is_training),
          from_keras(0.75, 0.5, is_training), from_flax(0.75, 0.5, is_training), from_paddle(0.75F, 0.5F, is_training),
          from_tensorflow(0.25, 0.5, is_training), from_caffe({.fraction = 1, .weight = 3}, 0.5F, is_training)}) {
      EXPECT_EQ(options.is_training, is_training);
      EXPECT_EQ(options.momentum, 0.25);
      EXPECT_EQ(options.epsilon, 0.5);
    }
    EXPECT_EQ(from_onednn(0.5, is_training).epsilon, 0.5);
    EXPECT_EQ(from_onednn(0.5, is_training).is_training, is_training);
  }
}

TEST(Conventions, AWeightOutOfRangeIsRefusedByTheNameItHasThere) {
  const auto expect_refused = [](const std::string& call, const std::string& weight, const auto& convert) {
    for (const auto& [value, text] :
         {std::pair(-0.5, "-0.5"), std::pair(1.5, "1.5"), std::pair(std::numeric_limits<double>::quiet_NaN(), "nan")}) {
      EXPECT_EQ(message_of<ValueError>([&, v = value] { convert(v); }),
                "batchnorm::" + call + ": " + weight + " is " + text + ", it must be in [0, 1]");
    }
    EXPECT_NO_THROW(convert(0));
    EXPECT_NO_THROW(convert(1));
  };
  expect_refused("from_pytorch", "momentum", [](double value) { from_pytorch(value); });
  expect_refused("from_mindspore_ops", "momentum", [](double value) { from_mindspore_ops(value); });
  expect_refused("from_mindspore_nn", "momentum", [](double value) { from_mindspore_nn(value); });
  expect_refused("from_cudnn", "exponentialAverageFactor", [](double value) { from_cudnn(value); });
  expect_refused("from_onnx", "momentum", [](double value) { from_onnx(static_cast<float>(value)); });
  expect_refused("from_keras", "momentum", [](double value) { from_keras(value); });
  expect_refused("from_flax", "momentum", [](double value) { from_flax(value); });
  expect_refused("from_paddle", "momentum", [](double value) { from_paddle(static_cast<float>(value)); });
  expect_refused("from_tensorflow", "exponential_avg_factor", [](double value) { from_tensorflow(value); });
  expect_refused("from_caffe", "moving_average_fraction",
                 [](double value) { from_caffe({.fraction = static_cast<float>(value)}); });
}

TEST(Conventions, CaffesWeightIsASumOfWeights) {
  for (const auto& [value, text] : {std::pair(-1.0, "-1"), std::pair(std::numeric_limits<double>::quiet_NaN(), "nan"),
                                    std::pair(std::numeric_limits<double>::infinity(), "inf")}) {
    const std::string message = std::string(": weight is ") + text + ", it must be a finite number from 0";
    EXPECT_EQ(message_of<ValueError>([v = value] { from_caffe({.weight = v}); }), "batchnorm::from_caffe" + message);
    EXPECT_EQ(message_of<ValueError>([v = value] { caffe_statistic(std::vector<double>(2), v); }),
              "batchnorm::caffe_statistic" + message);
  }
}

TEST(Conventions, ByName) {
  const std::pair<std::string, Options> named[] = {{"pytorch", from_pytorch()},
                                                   {"mindspore_ops", from_mindspore_ops()},
                                                   {"mindspore_nn", from_mindspore_nn()},
                                                   {"cudnn", from_cudnn()},
                                                   {"onnx", from_onnx()},
                                                   {"keras", from_keras()},
                                                   {"flax", from_flax()},
                                                   {"paddle", from_paddle()},
                                                   {"tensorflow", from_tensorflow()},
                                                   {"onednn", from_onednn()}};
  for (const auto& [name, options] : named) {
    SCOPED_TRACE(name);
    expect_options(parse_convention(name), options.momentum, options.epsilon, options.running_variance);
    EXPECT_FALSE(parse_convention(name, false).is_training);
  }
  for (const std::string name : {"", "PyTorch", "caffe", "pytorc"}) {
    EXPECT_EQ(message_of<ValueError>([&] { parse_convention(name); }),
              "batchnorm: unknown convention '" + name +
                  "', known are pytorch, mindspore_ops, mindspore_nn, cudnn, onnx, keras, flax, paddle, tensorflow, onednn");
  }
}

}  // namespace
