// SPDX-License-Identifier: MIT

// What is written first: the formulas of reference.hpp, each a loop in memory order with sums of double. The statistics of the
// batch go to the caller in the type of the parameters, and y is normalised with those. It uses one thread whatever the problem
// asks for, and is compiled with -O2.

#include <algorithm>

#include <Eigen/Core>

#include <batchnorm/reference.hpp>

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
      : operation_(problem.operation),
        extents_{problem.layout == Layout::nhwc ? batchnorm::Format::NHWC : batchnorm::Format::NCHW, problem.n(), problem.c(),
                 problem.spatial()},
        buffers_(buffers) {
    for (auto* numbers : {&channels_.mean, &channels_.variance, &channels_.r, &channels_.dscale, &channels_.dbias}) {
      numbers->resize(static_cast<std::size_t>(problem.c()));
    }
  }

  std::string name() const override { return "naive loop"; }

  void run() override {
    switch (operation_) {
      case Operation::training: return train();
      case Operation::backward: return backward();
      default: return normalize(buffers_.mean, buffers_.variance);
    }
  }

 private:
  void train() {
    batchnorm::reference::statistics(extents_, static_cast<const T*>(buffers_.x), channels_);
    batchnorm::reference::update_running(extents_, channels_, buffers_.momentum, static_cast<P*>(buffers_.mean),
                                         static_cast<P*>(buffers_.variance));
    round_to(buffers_.out_mean, channels_.mean);
    round_to(buffers_.out_variance, channels_.variance);
    normalize(buffers_.out_mean, buffers_.out_variance);
  }

  void normalize(const void* mean, const void* variance) {
    batchnorm::reference::inference(extents_, static_cast<const T*>(buffers_.x), static_cast<const P*>(buffers_.scale),
                                    static_cast<const P*>(buffers_.bias), static_cast<const P*>(mean),
                                    static_cast<const P*>(variance), buffers_.epsilon, static_cast<T*>(buffers_.y), channels_);
  }

  void backward() {
    batchnorm::reference::backward_training(extents_, static_cast<const T*>(buffers_.dy), static_cast<const T*>(buffers_.x),
                                            static_cast<const P*>(buffers_.scale), static_cast<const P*>(buffers_.mean),
                                            static_cast<const P*>(buffers_.variance), buffers_.epsilon,
                                            static_cast<T*>(buffers_.y), channels_);
    round_to(buffers_.dscale, channels_.dscale);
    round_to(buffers_.dbias, channels_.dbias);
  }

  static void round_to(void* result, const std::vector<double>& numbers) {
    std::transform(numbers.begin(), numbers.end(), static_cast<P*>(result),
                   [](double number) { return static_cast<P>(number); });
  }

  Operation operation_;
  batchnorm::reference::Extents extents_;
  Buffers buffers_;
  batchnorm::reference::Channels channels_;
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
