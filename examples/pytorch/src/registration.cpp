// SPDX-License-Identifier: MIT

// Replaces the CPU kernels of aten::native_batch_norm and its relatives in PyTorch's dispatcher, while this library is loaded.

#include <ATen/ops/native_batch_norm_backward_native.h>
#include <ATen/ops/native_batch_norm_native.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "calls.hpp"
#include "operator.hpp"
#include "tensors.hpp"

namespace batchnorm_torch {
namespace {

using Optional = std::optional<at::Tensor>;

Tensors native_batch_norm(const at::Tensor& x, const Optional& weight, const Optional& bias, const Optional& running_mean,
                          const Optional& running_variance, bool training, double momentum, double epsilon) {
  if (enabled.load(std::memory_order_relaxed)) {
    const auto taken = forward({x, or_undefined(weight), or_undefined(bias), or_undefined(running_mean),
                                or_undefined(running_variance), training, momentum, epsilon});
    if (taken) {
      counts.add(Fate::forward_taken);
      return *taken;
    }
  }
  counts.add(Fate::forward_passed_on);
  return at::native::batch_norm_cpu(x, weight, bias, running_mean, running_variance, training, momentum, epsilon);
}

// The same operator under the names that torch.export and the tracers of torch.compile give it.
Tensors native_batch_norm_legit(const at::Tensor& x, const Optional& weight, const Optional& bias, at::Tensor& running_mean,
                                at::Tensor& running_variance, bool training, double momentum, double epsilon) {
  return native_batch_norm(x, weight, bias, running_mean, running_variance, training, momentum, epsilon);
}

Tensors native_batch_norm_legit_no_stats(const at::Tensor& x, const Optional& weight, const Optional& bias, bool training,
                                         double momentum, double epsilon) {
  return native_batch_norm(x, weight, bias, {}, {}, training, momentum, epsilon);
}

Tensors native_batch_norm_backward(const at::Tensor& dy, const at::Tensor& x, const Optional& weight,
                                   const Optional& running_mean, const Optional& running_variance, const Optional& saved_mean,
                                   const Optional& saved_inverse_deviation, bool training, double epsilon,
                                   std::array<bool, 3> wanted) {
  if (enabled.load(std::memory_order_relaxed)) {
    const auto taken = backward({dy, x, or_undefined(weight), or_undefined(running_mean), or_undefined(running_variance),
                                 or_undefined(saved_mean), or_undefined(saved_inverse_deviation), training, epsilon, wanted});
    if (taken) {
      counts.add(Fate::backward_taken);
      return *taken;
    }
  }
  counts.add(Fate::backward_passed_on);
  return at::native::batch_norm_backward_cpu(dy, x, weight, running_mean, running_variance, saved_mean, saved_inverse_deviation,
                                             training, epsilon, wanted);
}

/// Drops the dispatcher's warning that a kernel is replaced: that is what whoever loads this library asked for.
class QuietAboutReplacing final : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override {
    if (warning.msg().find("Overriding a previously registered kernel") == std::string::npos) others_->process(warning);
  }

 private:
  c10::WarningHandler* const others_ = c10::WarningUtils::get_warning_handler();
};

torch::Library replace_kernels() {
  QuietAboutReplacing handler;
  const c10::WarningUtils::WarningHandlerGuard quiet(&handler);
  // The dispatcher warns once in a process; whoever replaces kernels after us is still warned.
  const c10::WarningUtils::WarnAlways not_once;
  torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
  library.impl("native_batch_norm", TORCH_FN(native_batch_norm));
  library.impl("_native_batch_norm_legit", TORCH_FN(native_batch_norm_legit));
  library.impl("_native_batch_norm_legit.no_stats", TORCH_FN(native_batch_norm_legit_no_stats));
  library.impl("native_batch_norm_backward", TORCH_FN(native_batch_norm_backward));
  return library;
}

const torch::Library replaced = replace_kernels();

std::vector<std::int64_t> counted() {
  std::vector<std::int64_t> result;
  for (std::size_t fate = 0; fate < Counts::fates; ++fate) result.push_back(counts[fate]);
  return result;
}

}  // namespace
}  // namespace batchnorm_torch

// What the Python package calls; its functions document them.
TORCH_LIBRARY(batchnorm_torch, library) {
  library.def("set_enabled(bool enabled) -> ()", [](bool enabled) { batchnorm_torch::enabled.store(enabled); });
  library.def("is_enabled() -> bool", [] { return batchnorm_torch::enabled.load(); });
  library.def("counts() -> int[]", &batchnorm_torch::counted);
  library.def("reset_counts() -> ()", [] { batchnorm_torch::counts.reset(); });
  library.def("instruction_set() -> str", [] { return std::string(to_string(batchnorm::active_isa())); });
}
