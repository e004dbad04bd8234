// SPDX-License-Identifier: MIT
#include "workload.hpp"

#include <batchnorm/element.hpp>

#include "names.hpp"

namespace bench {

extern template std::unique_ptr<Workload> make_workload_of<float>(const Problem&, batchnorm::Executor&);
extern template std::unique_ptr<Workload> make_workload_of<double>(const Problem&, batchnorm::Executor&);
extern template std::unique_ptr<Workload> make_workload_of<batchnorm::half>(const Problem&, batchnorm::Executor&);
extern template std::unique_ptr<Workload> make_workload_of<batchnorm::bfloat16>(const Problem&, batchnorm::Executor&);

std::unique_ptr<Workload> make_workload(const Problem& problem, batchnorm::Executor& executor) {
  switch (problem.type) {
    case ElementType::float32: return make_workload_of<float>(problem, executor);
    case ElementType::float64: return make_workload_of<double>(problem, executor);
    case ElementType::half: return make_workload_of<batchnorm::half>(problem, executor);
    case ElementType::bfloat16: return make_workload_of<batchnorm::bfloat16>(problem, executor);
  }
  return nullptr;
}

double workload_bytes(const Problem& problem) {
  // x and y, dy, the residual or its gradient
  const int tensors = 2 + (is_backward(problem.operation) ? 1 : 0) + (adds_residual(problem.operation) ? 1 : 0);
  return static_cast<double>(tensors * bytes_of(problem.type)) * static_cast<double>(problem.elements());
}

}  // namespace bench
