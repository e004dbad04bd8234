// SPDX-License-Identifier: MIT
#include "../suite/check.hpp"

#include <gtest/gtest.h>

#include <cmath>

// That the check before the timing finds what is wrong: right results by the formula in double, then one value changed.
namespace {

using bench::Checked;
using bench::Layout;
using bench::Operation;

constexpr double epsilon = 1e-5, momentum = 0.1;

/// A call on 2 x 3 x 5 values, computed right.
struct Call {
  static constexpr std::size_t n = 2, channels = 3, s = 5, size = n * channels * s;

  Operation operation;
  support::Extents layout{n, channels, s, batchnorm::Format::NHWC};
  std::vector<float> x, dy, residual, y;
  std::vector<std::uint8_t> mask = std::vector<std::uint8_t>((size + 7) / 8);
  std::vector<float> scale{1.5F, 0.5F, -1.0F}, bias{0.25F, -0.25F, 0.5F}, mean{0.5F, 0, 1}, variance{1, 2, 3};
  std::vector<float> running_mean = mean, running_variance = variance, out_mean = mean, out_variance = variance;
  std::vector<float> dscale{0, 0, 0}, dbias{0, 0, 0};
  batchnorm::Moments moments{channels};

  explicit Call(Operation of) : operation(of), y(size) {
    for (std::size_t i = 0; i < size; ++i) {
      x.push_back(static_cast<float>((i * 7 % 11)) / 4 - 1);
      dy.push_back(static_cast<float>((i * 5 % 13)) / 8 - 0.5F);
      residual.push_back(static_cast<float>((i * 3 % 7)) / 4 - 0.5F);
    }
    if (operation != Operation::training_add_relu && operation != Operation::backward_add_relu) residual.clear();
    for (std::size_t c = 0; c < channels; ++c) bench::is_backward(operation) ? backward(c) : forward(c);
  }

  std::vector<std::size_t> indices(std::size_t c) const {
    std::vector<std::size_t> result;
    for (std::size_t i = 0; i < n * s; ++i) result.push_back(i * channels + c);
    return result;
  }

  void forward(std::size_t c) {
    double sum = 0, squares = 0;
    for (const std::size_t i : indices(c)) sum += x[i];
    const double m = n * s, batch_mean = sum / m;
    for (const std::size_t i : indices(c)) squares += (x[i] - batch_mean) * (x[i] - batch_mean);
    moments.mean[c] = batch_mean, moments.m2[c] = squares, moments.count = n * s;
    const bool is_training = bench::is_training(operation);
    const double used_mean = is_training ? batch_mean : mean[c], used_variance = is_training ? squares / m : variance[c];
    if (is_training) {
      out_mean[c] = static_cast<float>(batch_mean), out_variance[c] = static_cast<float>(used_variance);
      running_mean[c] = static_cast<float>((1 - momentum) * mean[c] + momentum * batch_mean);
      running_variance[c] = static_cast<float>((1 - momentum) * variance[c] + momentum * squares / (m - 1));
    }
    for (const std::size_t i : indices(c)) {
      double z = scale[c] * (x[i] - used_mean) / std::sqrt(used_variance + epsilon) + bias[c];
      if (!residual.empty()) z += residual[i];
      const bool has_relu = operation == Operation::training_relu || operation == Operation::inference_relu ||
                            operation == Operation::training_add_relu;
      y[i] = static_cast<float>(has_relu ? std::max(z, 0.0) : z);
      if (y[i] > 0) mask[i / 8] = static_cast<std::uint8_t>(mask[i / 8] | 1U << (i % 8));
    }
  }

  void backward(std::size_t c) {
    mask.assign(mask.size(), 0x5A);
    const double m = n * s, r = 1 / std::sqrt(variance[c] + epsilon);
    const auto dz = [&](std::size_t i) { return operation == Operation::backward || (0x5A >> i % 8 & 1) != 0 ? dy[i] : 0; };
    double sum = 0, projection = 0;
    for (const std::size_t i : indices(c)) sum += dz(i), projection += dz(i) * (x[i] - mean[c]) * r;
    dbias[c] = static_cast<float>(sum), dscale[c] = static_cast<float>(projection);
    for (const std::size_t i : indices(c)) {
      y[i] = static_cast<float>(scale[c] * r * (dz(i) - sum / m - (x[i] - mean[c]) * r * projection / m));
      if (!residual.empty()) residual[i] = dz(i);
    }
  }

  std::string error() const {
    const bench::Problem problem{operation, Layout::nhwc, bench::ElementType::float32, {n, channels, s}, 1};
    return bench::error_of<float>(problem, {layout,
                                            batchnorm::Isa::x86_64_v3,
                                            epsilon,
                                            momentum,
                                            x,
                                            dy,
                                            residual,
                                            y,
                                            mask,
                                            scale,
                                            bias,
                                            mean,
                                            variance,
                                            running_mean,
                                            running_variance,
                                            out_mean,
                                            out_variance,
                                            dscale,
                                            dbias,
                                            &moments});
  }
};

constexpr Operation forward_operations[] = {Operation::training,          Operation::inference,
                                            Operation::training_relu,     Operation::inference_relu,
                                            Operation::training_add_relu, Operation::inference_prepared};
constexpr Operation backward_operations[] = {Operation::backward, Operation::backward_relu, Operation::backward_add_relu};

TEST(Check, AcceptsWhatIsRight) {
  for (const Operation operation : bench::all_operations) EXPECT_EQ(Call(operation).error(), "") << name_of(operation);
}

/// A few parts in a million: more than a float may be off.
void nudge(float& value) { value = value * 1.000004F + 1e-6F; }

void expect_named(const Call& call, const std::string& name) {
  EXPECT_NE(call.error().find(name), std::string::npos) << name_of(call.operation) << ": '" << call.error() << "'";
}

TEST(Check, NamesAWrongY) {
  for (const Operation operation : forward_operations) {
    for (const std::size_t i : {std::size_t{0}, std::size_t{14}, Call::size - 1}) {
      Call call(operation);
      nudge(call.y[i]);
      expect_named(call, "y of channel " + std::to_string(i % Call::channels));
    }
  }
}

TEST(Check, NamesWrongStatistics) {
  for (const Operation operation : {Operation::training, Operation::training_relu, Operation::training_add_relu}) {
    Call call(operation);
    nudge(call.out_mean[1]);
    expect_named(call, "the batch mean of channel 1");
    call = Call(operation), nudge(call.out_variance[2]);
    expect_named(call, "the batch variance of channel 2");
    call = Call(operation), nudge(call.running_mean[0]);
    expect_named(call, "the running mean of channel 0");
    call = Call(operation), nudge(call.running_variance[2]);
    expect_named(call, "the running variance of channel 2");
  }
}

TEST(Check, NamesAWrongMask) {
  for (const Operation operation : {Operation::training_relu, Operation::training_add_relu}) {
    Call call(operation);
    call.mask[1] ^= 4;
    expect_named(call, "the mask of channel 1");
  }
}

TEST(Check, NamesAWrongGradient) {
  for (const Operation operation : backward_operations) {
    Call call(operation);
    nudge(call.y[5]);
    expect_named(call, "dx of channel 2, value 1");
    call = Call(operation), nudge(call.dscale[0]);
    expect_named(call, "dscale of channel 0");
    call = Call(operation), nudge(call.dbias[1]);
    expect_named(call, "dbias of channel 1");
  }
  Call call(Operation::backward_add_relu);
  call.residual[4] += 0.125F;
  expect_named(call, "the residual's gradient of channel 1");
}

TEST(Check, NamesWrongMoments) {
  Call call(Operation::moments);
  call.moments.mean[1] += 1e-6;
  expect_named(call, "the mean of channel 1");
  call = Call(Operation::moments), call.moments.m2[2] *= 1.000001;
  expect_named(call, "the variance of channel 2");
}

TEST(Check, NamesAValueThatWasNotWritten) {
  Call call(Operation::training);
  call.y[7] = std::numeric_limits<float>::quiet_NaN();
  expect_named(call, "y of channel 1, value 2");
}

TEST(Check, LooksAtBothEndsOfLongChannels) {
  for (const std::int64_t values : {1, 1000, 3 << 20, (3 << 20) + 1, 10'000'019}) {
    std::int64_t first = -1, last = -1, count = 0;
    bool ascending = true;
    bench::for_each_checked(values, [&](std::int64_t i) {
      if (count++ == 0) first = i;
      ascending = ascending && i > last;
      last = i;
    });
    EXPECT_EQ(first, 0);
    EXPECT_EQ(last, values - 1);
    EXPECT_TRUE(ascending);
    EXPECT_GE(count, std::min<std::int64_t>(values, 1 << 19));
    EXPECT_LE(count, 3 << 20);
  }
}

TEST(Check, LooksAtTheFirstAndTheLastChannel) {
  EXPECT_EQ(bench::checked_channels(1, 1 << 30), (std::vector<std::int64_t>{0}));
  EXPECT_EQ(bench::checked_channels(7, 1 << 30), (std::vector<std::int64_t>{0, 6}));
  EXPECT_EQ(bench::checked_channels(5, 10), (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(bench::checked_channels(9, 1 << 18).back(), 8);
}

}  // namespace
