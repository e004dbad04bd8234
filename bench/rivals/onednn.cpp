// SPDX-License-Identifier: MIT

// oneDNN, 2.3 or newer. Its threads are OpenMP's; where libtorch is there too, both get the libgomp that was loaded first, so
// that there is one pool. A library built for another runtime than OpenMP keeps its own number of threads, so it is offered
// only problems with all threads of the machine.

#include <omp.h>

#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <thread>
#include <utility>

#include "idle.hpp"
#include "offers.hpp"

namespace bench {

std::string one_dnn_version() {
  const dnnl_version_t* version = dnnl_version();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

namespace {

using dnnl::memory;
using dnnl::normalization_flags;
using dnnl::prop_kind;
using Forward = dnnl::batch_normalization_forward;
using Backward = dnnl::batch_normalization_backward;

enum class Order { nchw, nhwc, blocked_by_16, blocked_by_8 };

const char* order_name(Order order) { return order == Order::nchw ? "nchw" : order == Order::nhwc ? "nhwc" : "blocked"; }

bool is_blocked(Order order) { return order == Order::blocked_by_16 || order == Order::blocked_by_8; }

memory::format_tag tag_of(Order order, std::size_t rank) {
  using Tag = memory::format_tag;
  static constexpr Tag tags[4][4] = {{Tag::nc, Tag::ncw, Tag::nchw, Tag::ncdhw},
                                     {Tag::nc, Tag::nwc, Tag::nhwc, Tag::ndhwc},
                                     {Tag::undef, Tag::nCw16c, Tag::nChw16c, Tag::nCdhw16c},
                                     {Tag::undef, Tag::nCw8c, Tag::nChw8c, Tag::nCdhw8c}};
  return tags[static_cast<int>(order)][rank - 2];
}

bool is_backward(Operation operation) { return operation == Operation::backward || operation == Operation::backward_relu; }

normalization_flags flags_of(Operation operation) {
  normalization_flags flags = normalization_flags::use_scale | normalization_flags::use_shift;
  if (operation == Operation::inference || operation == Operation::inference_relu ||
      operation == Operation::inference_prepared) {
    flags |= normalization_flags::use_global_stats;
  }
  if (operation == Operation::training_relu || operation == Operation::inference_relu ||
      operation == Operation::backward_relu) {
    flags |= normalization_flags::fuse_norm_relu;
  }
  return flags;
}

Forward::primitive_desc forward_descriptor(const dnnl::engine& engine, prop_kind kind, const memory::desc& tensor,
                                           float epsilon, normalization_flags flags) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kind, tensor, tensor, epsilon, flags};
#else
  return {Forward::desc(kind, tensor, epsilon, flags), engine};
#endif
}

Backward::primitive_desc backward_descriptor(const dnnl::engine& engine, const memory::desc& tensor, float epsilon,
                                             normalization_flags flags, const Forward::primitive_desc& forward) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, prop_kind::backward, tensor, tensor, tensor, epsilon, flags, forward};
#else
  return {Backward::desc(prop_kind::backward, tensor, tensor, epsilon, flags), engine, forward};
#endif
}

double seconds_of_openmp(int threads) {
  if (threads == 1) return 0;
  static const double seconds = seconds_of_spinning(threads, [threads] {
#pragma omp parallel num_threads(threads)
    {
#pragma omp barrier
    }
  });
  return seconds;
}

class OneDnn final : public Rival {
 public:
  /// @throws dnnl::error   it does not offer this
  OneDnn(const Problem& problem, const Buffers& buffers, Order order)
      : problem_(problem), order_(order), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    omp_set_num_threads(problem.threads);
    const auto type = problem.type == ElementType::float32 ? memory::data_type::f32
                      : problem.type == ElementType::half  ? memory::data_type::f16
                                                           : memory::data_type::bf16;
    plain_ = {problem.extents, type, tag_of(problem.layout == Layout::nchw ? Order::nchw : Order::nhwc, rank())};
    tensor_ = {problem.extents, type, tag_of(order, rank())};
    is_backward(problem.operation) ? prepare_backward(buffers) : prepare_forward(buffers);
    run();
    stream_.wait();
    seconds_to_sleep_ = seconds_of_openmp(problem.threads);
  }

  std::string name() const override { return one_dnn_version() + " " + order_name(order_); }
  std::string implementation() const override { return implementation_; }
  bool has_plain_result() const override { return !is_blocked(order_); }
  double seconds_to_sleep() const override { return seconds_to_sleep_; }

  void run() override {
    omp_set_num_threads(problem_.threads);
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(primitive_.get(), stream_.get(), static_cast<int>(arguments_.size()), arguments_.data()),
        "could not run batch normalization");
    stream_.wait();
  }

 private:
  std::size_t rank() const { return problem_.extents.size(); }

  void pass(int argument, memory held) {
    arguments_.push_back({argument, held.get()});
    memories_.push_back(std::move(held));
  }
  void pass_vector(int argument, const void* data) {
    pass(argument, memory({{problem_.c()}, memory::data_type::f32, memory::format_tag::a}, engine_, const_cast<void*>(data)));
  }
  /// The caller's tensor, or for a blocked order a copy of it, made here.
  memory input(const void* data) {
    memory given(plain_, engine_, const_cast<void*>(data));
    if (!is_blocked(order_)) return given;
    memory copy(tensor_, engine_);
    dnnl::reorder(given, copy).execute(stream_, given, copy);
    stream_.wait();
    return copy;
  }
  memory output(void* data) { return is_blocked(order_) ? memory(tensor_, engine_) : memory(plain_, engine_, data); }

  void prepare_forward(const Buffers& buffers) {
    const bool is_training = problem_.operation == Operation::training || problem_.operation == Operation::training_relu;
    const auto descriptor =
        forward_descriptor(engine_, is_training ? prop_kind::forward_training : prop_kind::forward_inference, tensor_,
                           static_cast<float>(buffers.epsilon), flags_of(problem_.operation));
    primitive_ = Forward(descriptor);
    implementation_ = descriptor.impl_info_str();
    pass(DNNL_ARG_SRC, input(buffers.x));
    pass(DNNL_ARG_DST, output(buffers.y));
    pass_vector(DNNL_ARG_SCALE, buffers.scale);
    pass_vector(DNNL_ARG_SHIFT, buffers.bias);
    pass_vector(DNNL_ARG_MEAN, is_training ? buffers.out_mean : buffers.mean);
    pass_vector(DNNL_ARG_VARIANCE, is_training ? buffers.out_variance : buffers.variance);
    if (problem_.operation == Operation::training_relu) {
      pass(DNNL_ARG_WORKSPACE, memory(descriptor.workspace_desc(), engine_));
    }
  }

  void prepare_backward(const Buffers& buffers) {
    const auto flags = flags_of(problem_.operation);
    const float epsilon = static_cast<float>(buffers.epsilon);
    const auto forward = forward_descriptor(engine_, prop_kind::forward_training, tensor_, epsilon, flags);
    const auto descriptor = backward_descriptor(engine_, tensor_, epsilon, flags, forward);
    primitive_ = Backward(descriptor);
    implementation_ = descriptor.impl_info_str();
    const memory x = input(buffers.x);
    pass(DNNL_ARG_SRC, x);
    pass(DNNL_ARG_DIFF_DST, input(buffers.dy));
    pass(DNNL_ARG_DIFF_SRC, output(buffers.y));
    pass_vector(DNNL_ARG_MEAN, buffers.mean);
    pass_vector(DNNL_ARG_VARIANCE, buffers.variance);
    pass_vector(DNNL_ARG_SCALE, buffers.scale);
    pass_vector(DNNL_ARG_SHIFT, buffers.bias);
    pass_vector(DNNL_ARG_DIFF_SCALE, buffers.dscale);
    pass_vector(DNNL_ARG_DIFF_SHIFT, buffers.dbias);
    if (problem_.operation == Operation::backward_relu) {
      pass(DNNL_ARG_WORKSPACE, workspace_of(forward, x, buffers));
    }
  }

  /// What the forward pass notes about ReLU.
  memory workspace_of(const Forward::primitive_desc& forward, const memory& x, const Buffers& buffers) {
    const memory::desc vector({problem_.c()}, memory::data_type::f32, memory::format_tag::a);
    memory workspace(forward.workspace_desc(), engine_);
    Forward(forward).execute(stream_, {{DNNL_ARG_SRC, x},
                                       {DNNL_ARG_DST, memory(tensor_, engine_)},
                                       {DNNL_ARG_SCALE, memory(vector, engine_, const_cast<void*>(buffers.scale))},
                                       {DNNL_ARG_SHIFT, memory(vector, engine_, const_cast<void*>(buffers.bias))},
                                       {DNNL_ARG_MEAN, memory(vector, engine_)},
                                       {DNNL_ARG_VARIANCE, memory(vector, engine_)},
                                       {DNNL_ARG_WORKSPACE, workspace}});
    stream_.wait();
    return workspace;
  }

  Problem problem_;
  Order order_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  memory::desc plain_, tensor_;  // of the caller's tensors, and of those that the primitive works on
  dnnl::primitive primitive_;
  std::string implementation_;
  std::vector<memory> memories_;
  std::vector<dnnl_exec_arg_t> arguments_;
  double seconds_to_sleep_ = 0;
};

std::unique_ptr<OneDnn> one_dnn(const Problem& problem, const Buffers& buffers, Order order) {
  try {
    return std::make_unique<OneDnn>(problem, buffers, order);
  } catch (const dnnl::error&) {
    return nullptr;
  }
}

bool is_offered(const Problem& problem) {
  const std::size_t rank = problem.extents.size();
  const bool has_threads = DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP ||
                           problem.threads == static_cast<int>(std::thread::hardware_concurrency());
  return rank >= 2 && rank <= 5 && has_threads && problem.type != ElementType::float64 && problem.elements() > 0 &&
         problem.operation != Operation::moments && problem.operation != Operation::training_add_relu &&
         problem.operation != Operation::backward_add_relu;
}

}  // namespace

void offer_one_dnn(const Problem& problem, const Buffers& buffers, Offers& offers) {
  if (!is_offered(problem)) return;
  if (auto plain = one_dnn(problem, buffers, problem.layout == Layout::nchw ? Order::nchw : Order::nhwc)) {
    offers.push_back(std::move(plain));
  }
  if (problem.extents.size() == 2) return;
  // The blocks that its convolutions ask for are those it has written kernels for.
  for (const Order order : {Order::blocked_by_16, Order::blocked_by_8}) {
    auto blocked = one_dnn(problem, buffers, order);
    if (blocked == nullptr || blocked->implementation().find("jit") == std::string::npos) continue;
    offers.push_back(std::move(blocked));
    return;
  }
}

}  // namespace bench
