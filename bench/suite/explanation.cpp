// SPDX-License-Identifier: MIT

#include <batchnorm/explain.hpp>
#include <batchnorm/thread_team.hpp>

#include "measure.hpp"
#include "workload_of.hpp"

namespace bench {

namespace {

batchnorm::Pass pass_of(Operation operation) {
  switch (operation) {
    case Operation::inference:
    case Operation::inference_relu:
    case Operation::inference_prepared: return batchnorm::Pass::inference;
    case Operation::backward:
    case Operation::backward_relu:
    case Operation::backward_add_relu: return batchnorm::Pass::backward;
    case Operation::moments: return batchnorm::Pass::moments;
    default: return batchnorm::Pass::training;
  }
}

template <class T>
std::string explanation(const Problem& problem) {
  batchnorm::ThreadTeam team(problem.threads);
  const T nothing{};  // nothing is read of x
  const batchnorm::TensorView<const T> x(&nothing, shape_of(problem));
  return batchnorm::explain<T>(pass_of(problem.operation), x, format_of(problem.layout), {.executor = &team});
}

}  // namespace

std::string explanation_of(const Row& row) {
  batchnorm::force_isa(row.isa);
  switch (row.problem.type) {
    case ElementType::float64: return explanation<double>(row.problem);
    case ElementType::half: return explanation<batchnorm::half>(row.problem);
    case ElementType::bfloat16: return explanation<batchnorm::bfloat16>(row.problem);
    default: return explanation<float>(row.problem);
  }
}

}  // namespace bench
