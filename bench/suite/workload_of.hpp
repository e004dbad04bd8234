// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include <batchnorm/batchnorm.hpp>

#include "buffer.hpp"
#include "check.hpp"
#include "names.hpp"
#include "workload.hpp"

namespace bench {

constexpr double epsilon = 1e-5;

inline batchnorm::Format format_of(Layout layout) {
  return layout == Layout::nchw ? batchnorm::Format::NCHW : batchnorm::Format::NHWC;
}

inline batchnorm::Shape shape_of(const Problem& problem) {
  Extents extents = problem.extents;
  if (problem.layout == Layout::nhwc) std::rotate(extents.begin() + 1, extents.begin() + 2, extents.end());
  return batchnorm::Shape(extents);
}

template <class T>
class WorkloadOf final : public Workload {
 public:
  using P = batchnorm::parameter_t<T>;

  WorkloadOf(const Problem& problem, batchnorm::Executor& executor);

  void run() override;
  std::string check() override;
  Buffers buffers() override;
  void set_values(std::span<const double> x, std::span<const double> dy) override;
  Errors errors_of(const std::function<void()>& compute) override;
  void use(const batchnorm::Tuning& tuning) override { call_.tuning = &tuning; }

 private:
  bool is(Operation operation) const { return problem_.operation == operation; }

  void set_statistics();
  void set_statistics_of_batch();
  void keep_statistics();
  void forward(const auto& epilogue, bool is_training, bool writes_mask);
  void backward(const auto& through);
  Checked<T> checked();

  using View = batchnorm::TensorView<T>;
  View view(std::optional<Buffer<T>>& buffer) const { return {buffer->data(), shape_}; }

  Problem problem_;
  double momentum_ = 0.1;
  batchnorm::Format format_;
  batchnorm::Shape shape_;
  batchnorm::CallOptions call_;
  std::optional<Buffer<T>> x_, dy_, residual_, y_;  // y_: dx in backward; residual_: its gradient in backward
  std::vector<P> scale_, bias_, mean_, variance_, out_mean_, out_variance_, dscale_, dbias_;
  std::vector<P> first_mean_, first_variance_;
  std::vector<std::uint8_t> mask_;
  batchnorm::Moments moments_;
  std::optional<batchnorm::PreparedInference<T>> prepared_;
};

template <class T>
WorkloadOf<T>::WorkloadOf(const Problem& problem, batchnorm::Executor& executor)
    : problem_(problem),
      format_(format_of(problem.layout)),
      shape_(shape_of(problem)),
      call_{.executor = &executor},
      mean_(static_cast<std::size_t>(problem.c())),
      variance_(mean_.size()),
      out_mean_(mean_.size()),
      out_variance_(mean_.size()),
      dscale_(mean_.size()),
      dbias_(mean_.size()),
      mask_(static_cast<std::size_t>(batchnorm::mask_bytes(shape_))) {
  const std::int64_t size = problem.elements();
  x_.emplace(size).fill_with_noise(1, 0.25);
  y_.emplace(size).fill_with(std::numeric_limits<T>::quiet_NaN());  // what the operation leaves out is found wrong
  if (is_backward(problem.operation)) dy_.emplace(size).fill_with_noise(2, 0.125);
  if (adds_residual(problem.operation)) residual_.emplace(size).fill_with_noise(3, 0);
  for (std::size_t c = 0; c < mean_.size(); ++c) {
    scale_.push_back(static_cast<P>(1.5 - 0.125 * static_cast<double>(c % 7)));
    bias_.push_back(static_cast<P>(0.0625 * static_cast<double>(c % 5) - 0.125));
  }
  std::uint32_t state = 4;
  for (std::uint8_t& byte : mask_) byte = static_cast<std::uint8_t>((state = state * 1664525U + 1013904223U) >> 24U);
  if (size % 8 != 0) mask_.back() &= static_cast<std::uint8_t>((1U << (size % 8)) - 1);  // zeros after the last
  set_statistics();
}

/// Backward goes by the statistics of the batch, as the forward pass saves them.
template <class T>
void WorkloadOf<T>::set_statistics() {
  if (is_backward(problem_.operation)) {
    set_statistics_of_batch();
  } else {
    for (std::size_t c = 0; c < mean_.size(); ++c) {
      mean_[c] = static_cast<P>(0.03125 * static_cast<double>(c % 9));
      variance_[c] = static_cast<P>(0.25 + 0.0625 * static_cast<double>(c % 11));
    }
  }
  keep_statistics();
}

/// What every call begins with.
template <class T>
void WorkloadOf<T>::keep_statistics() {
  first_mean_ = mean_, first_variance_ = variance_;
  if (!is(Operation::inference_prepared)) return;
  prepared_.emplace(format_,
                    batchnorm::InferenceParameters<P>{.scale = scale_, .bias = bias_, .mean = mean_, .variance = variance_},
                    epsilon, shape_);
}

template <class T>
void WorkloadOf<T>::set_statistics_of_batch() {
  const batchnorm::Moments batch = batchnorm::moments<T>(view(x_), format_, call_);
  batchnorm::finalize<P>(batch, {}, {.batch_mean = mean_, .batch_variance = variance_});
}

template <class T>
void WorkloadOf<T>::run() {
  using batchnorm::Identity;
  using batchnorm::Relu;
  const batchnorm::ThroughMask<Relu> through{mask_};
  switch (problem_.operation) {
    case Operation::training: return forward(Identity{}, true, false);
    case Operation::inference: return forward(Identity{}, false, false);
    case Operation::training_relu: return forward(Relu{}, true, true);
    case Operation::inference_relu: return forward(Relu{}, false, false);
    case Operation::training_add_relu: return forward(batchnorm::AddResidual<T, Relu>{view(residual_)}, true, true);
    case Operation::backward: return backward(Identity{});
    case Operation::backward_relu:
    case Operation::backward_add_relu: return backward(through);
    case Operation::inference_prepared: (*prepared_)(view(x_), view(y_), Identity{}, call_); return;
    case Operation::moments: moments_ = batchnorm::moments<T>(view(x_), format_, call_); return;
  }
}

template <class T>
void WorkloadOf<T>::forward(const auto& epilogue, bool is_training, bool writes_mask) {
  batchnorm::OutputViews<T, P> out{.output_x = view(y_), .reserve_space_1 = out_mean_, .reserve_space_2 = out_variance_};
  if (writes_mask) out.mask = mask_;
  const batchnorm::Options options{.is_training = is_training, .epsilon = epsilon, .momentum = momentum_};
  batchnorm::batch_norm<T, P>(format_, options, view(x_), scale_, bias_, mean_, variance_, out, epilogue, call_);
}

template <class T>
void WorkloadOf<T>::backward(const auto& through) {
  batchnorm::GradientViews<T, P> out{.dx = view(y_), .dscale = dscale_, .dbias = dbias_};
  if (is(Operation::backward_add_relu)) out.dresidual = view(residual_);
  const batchnorm::Options options{.is_training = true, .epsilon = epsilon};
  batchnorm::batch_norm_backward<T, P>(format_, options, view(dy_), view(x_), scale_, mean_, variance_, out, through, call_);
}

template <class T>
std::string WorkloadOf<T>::check() {
  mean_ = first_mean_, variance_ = first_variance_;
  run();
  return error_of(problem_, checked());
}

template <class T>
void WorkloadOf<T>::set_values(std::span<const double> x, std::span<const double> dy) {
  const auto rounded = [](double value) {
    if constexpr (std::is_same_v<T, double>) return value;
    return static_cast<T>(static_cast<float>(value));
  };
  std::transform(x.begin(), x.end(), x_->data(), rounded);
  if (dy_.has_value()) std::transform(dy.begin(), dy.end(), dy_->data(), rounded);
  if (is(Operation::training)) {
    mean_.assign(mean_.size(), 0), variance_.assign(variance_.size(), 0);
  } else {
    set_statistics_of_batch();
  }
  keep_statistics();
  momentum_ = 1;
}

template <class T>
Errors WorkloadOf<T>::errors_of(const std::function<void()>& compute) {
  y_->fill_with(std::numeric_limits<T>::quiet_NaN());
  for (auto* const result : {&out_mean_, &out_variance_, &dscale_, &dbias_}) {
    std::fill(result->begin(), result->end(), std::numeric_limits<P>::quiet_NaN());
  }
  mean_ = first_mean_, variance_ = first_variance_;
  compute();
  return bench::errors_of(problem_, checked());
}

template <class T>
Checked<T> WorkloadOf<T>::checked() {
  const auto values = [](const std::optional<Buffer<T>>& buffer) {
    return buffer.has_value() ? buffer->values() : std::span<const T>();
  };
  return {.layout = {problem_.n(), problem_.c(), problem_.spatial(), format_},
          .isa = batchnorm::active_isa(),
          .epsilon = epsilon,
          .momentum = momentum_,
          .x = values(x_),
          .dy = values(dy_),
          .residual = values(residual_),
          .y = values(y_),
          .mask = mask_,
          .scale = scale_,
          .bias = bias_,
          .mean = first_mean_,
          .variance = first_variance_,
          .running_mean = mean_,
          .running_variance = variance_,
          .out_mean = out_mean_,
          .out_variance = out_variance_,
          .dscale = dscale_,
          .dbias = dbias_,
          .moments = &moments_};
}

template <class T>
Buffers WorkloadOf<T>::buffers() {
  return {.x = x_->data(),
          .dy = dy_.has_value() ? dy_->data() : nullptr,
          .y = y_->data(),
          .scale = scale_.data(),
          .bias = bias_.data(),
          .mean = mean_.data(),
          .variance = variance_.data(),
          .out_mean = out_mean_.data(),
          .out_variance = out_variance_.data(),
          .dscale = dscale_.data(),
          .dbias = dbias_.data(),
          .epsilon = epsilon,
          .momentum = momentum_};
}

template <class T>
std::unique_ptr<Workload> make_workload_of(const Problem& problem, batchnorm::Executor& executor) {
  return std::make_unique<WorkloadOf<T>>(problem, executor);
}

}  // namespace bench
