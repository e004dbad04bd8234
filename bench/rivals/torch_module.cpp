// SPDX-License-Identifier: MIT

// native_batch_norm and its gradient as libtorch runs them, without autograd. Its functions allocate their result; here the
// allocator hands them the caller's buffer, so that neither an allocation nor a page fault is timed, and older versions, which
// lack the variants that write to a given tensor, are called the same way.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>

#include <array>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "idle.hpp"
#include "rival.hpp"
#include "torch_table.hpp"

namespace bench {
namespace {

/// While it is armed, hands out the given buffers, each once, to the first requests of their size; else the memory of
/// libtorch's own allocator.
class ResultAllocator final : public c10::Allocator {
 public:
  void arm(const std::array<void*, 2>& buffers, std::size_t bytes) { buffers_ = buffers, bytes_ = bytes, next_ = 0; }
  void disarm() { bytes_ = 0; }

  // The base has one of the first two, and in newer versions the third.
  c10::DataPtr allocate(std::size_t bytes) { return hand_out(bytes); }
  c10::DataPtr allocate(std::size_t bytes) const { return hand_out(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }

 private:
  c10::DataPtr hand_out(std::size_t bytes) const {
    if (bytes != bytes_ || bytes == 0 || next_ == buffers_.size()) return c10::GetDefaultCPUAllocator()->allocate(bytes);
    return {buffers_[next_++], c10::Device(c10::DeviceType::CPU)};
  }

  std::array<void*, 2> buffers_{};
  std::size_t bytes_ = 0;
  mutable std::size_t next_ = 0;
};

ResultAllocator& allocator() {
  static auto* const one = [] {
    auto* made = new ResultAllocator;  // libtorch keeps it to the end
    c10::SetCPUAllocator(made, 1);
    return made;
  }();
  return *one;
}

/// Armed for as long as it lives: a call that throws must not leave the caller's buffer to the next request.
struct Armed {
  Armed(const std::array<void*, 2>& buffers, std::size_t bytes) { allocator().arm(buffers, bytes); }
  Armed(const Armed&) = delete;
  Armed& operator=(const Armed&) = delete;
  ~Armed() { allocator().disarm(); }
};

class Opened {
 public:
  Opened(const TorchProblem& problem, const Buffers& buffers)
      : operation_(static_cast<Operation>(problem.operation)), threads_(problem.threads), buffers_(buffers) {
    const c10::InferenceMode guard;
    const auto type = static_cast<ElementType>(problem.type);
    const auto element = type == ElementType::float32   ? at::kFloat
                         : type == ElementType::float64 ? at::kDouble
                         : type == ElementType::half    ? at::kHalf
                                                        : at::kBFloat16;
    const auto parameter = type == ElementType::float64 ? at::kDouble : at::kFloat;
    const auto tensor = [&](const void* data) { return at::from_blob(const_cast<void*>(data), sizes_, strides_, element); };
    const auto vector = [&](const void* data) {
      return at::from_blob(const_cast<void*>(data), {problem.extents[1]}, parameter);
    };
    lay_out(problem);
    x_ = tensor(buffers.x);
    scale_ = vector(buffers.scale);
    mean_ = vector(buffers.mean);
    variance_ = vector(buffers.variance);
    if (operation_ == Operation::backward) {
      dy_ = tensor(buffers.dy);
      inverse_deviation_ = (variance_ + buffers.epsilon).rsqrt();
    } else {
      bias_ = vector(buffers.bias);
    }
    at::set_num_threads(threads_);
    find_result();
    if (threads_ > 1) seconds_to_sleep_ = seconds_of_team(threads_);
  }

  void run() {
    const c10::InferenceMode guard;
    at::set_num_threads(threads_);
    const Armed armed(handed_out_, bytes_);
    call();
  }

  void fetch_sums() {
    if (operation_ != Operation::backward) return;
    const auto fetch = [](void* to, const at::Tensor& from) { std::memcpy(to, from.contiguous().data_ptr(), from.nbytes()); };
    fetch(buffers_.dscale, std::get<1>(results_));
    fetch(buffers_.dbias, std::get<2>(results_));
  }

  bool has_plain_result() const {
    const at::Tensor& y = std::get<0>(results_);
    return y.data_ptr() == buffers_.y && y.strides() == x_.strides();
  }
  double seconds_to_sleep() const { return seconds_to_sleep_; }

 private:
  void call() {
    results_ = {};
    if (operation_ == Operation::backward) {
      results_ = at::native_batch_norm_backward(dy_, x_, scale_, {}, {}, mean_, inverse_deviation_, true, buffers_.epsilon,
                                                {true, true, true});
    } else {
      results_ = at::native_batch_norm(x_, scale_, bias_, mean_, variance_, operation_ == Operation::training,
                                       buffers_.momentum, buffers_.epsilon);
    }
  }

  /// Backward asks for a second tensor of the result's size. Which of the two is the result, a first run shows.
  void find_result() {
    bytes_ = static_cast<std::size_t>(x_.numel()) * x_.element_size();
    spare_ = at::ones({static_cast<std::int64_t>(bytes_)}, at::kByte);
    handed_out_ = {buffers_.y, spare_.data_ptr()};
    run();
    if (std::get<0>(results_).data_ptr() != spare_.data_ptr()) return;
    std::swap(handed_out_[0], handed_out_[1]);
    run();
  }

  /// Extents and strides as libtorch names them: channels before positions. Three axes with the channels last are no memory
  /// format of its own, they get a fourth.
  void lay_out(const TorchProblem& problem) {
    sizes_.assign(problem.extents, problem.extents + problem.rank);
    const bool is_channels_last = static_cast<Layout>(problem.layout) == Layout::nhwc;
    if (is_channels_last && problem.rank == 3) sizes_.insert(sizes_.begin() + 2, 1);
    strides_.resize(sizes_.size());
    std::int64_t stride = is_channels_last ? sizes_[1] : 1;
    for (std::size_t axis = sizes_.size(); axis-- > 2;) strides_[axis] = std::exchange(stride, stride * sizes_[axis]);
    strides_[1] = is_channels_last ? 1 : stride;
    strides_[0] = is_channels_last ? stride : stride * sizes_[1];
  }

  static double seconds_of_team(int threads) {
    static const double seconds =
        seconds_of_spinning(threads, [threads] { at::parallel_for(0, threads, 1, [](std::int64_t, std::int64_t) {}); });
    return seconds;
  }

  Operation operation_;
  int threads_;
  Buffers buffers_;
  std::vector<std::int64_t> sizes_, strides_;
  at::Tensor x_, dy_, scale_, bias_, mean_, variance_, inverse_deviation_;
  std::size_t bytes_ = 0;
  at::Tensor spare_;
  std::array<void*, 2> handed_out_{};
  std::tuple<at::Tensor, at::Tensor, at::Tensor> results_;
  double seconds_to_sleep_ = 0;
};

bool is_offered(const TorchProblem& problem) {
  const auto operation = static_cast<Operation>(problem.operation);
  return operation == Operation::training || operation == Operation::inference || operation == Operation::backward ||
         operation == Operation::inference_prepared;
}

const TorchTable table{
    TORCH_VERSION,
    [](const TorchProblem* problem, const Buffers* buffers) -> void* {
      if (!is_offered(*problem)) return nullptr;
      try {
        return new Opened(*problem, *buffers);
      } catch (const c10::Error&) {
        return nullptr;
      }
    },
    [](void* opened) { static_cast<Opened*>(opened)->run(); },
    [](void* opened) { static_cast<Opened*>(opened)->fetch_sums(); },
    [](void* opened) { return static_cast<Opened*>(opened)->has_plain_result(); },
    [](void* opened) { return static_cast<Opened*>(opened)->seconds_to_sleep(); },
    [](void* opened) { delete static_cast<Opened*>(opened); },
};

}  // namespace
}  // namespace bench

const bench::TorchTable* batchnorm_bench_torch_table() { return &bench::table; }
