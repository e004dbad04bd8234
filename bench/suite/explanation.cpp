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

/// f(x) for a view of the problem's x, of which nothing may be read.
template <class F>
auto with_x(const Problem& problem, const F& f) {
  const auto call = [&]<class T>(T nothing) { return f(batchnorm::TensorView<const T>(&nothing, shape_of(problem))); };
  switch (problem.type) {
    case ElementType::float64: return call(double{});
    case ElementType::half: return call(batchnorm::half{});
    case ElementType::bfloat16: return call(batchnorm::bfloat16{});
    default: return call(float{});
  }
}

}  // namespace

std::string explanation_of(const Row& row) {
  batchnorm::force_isa(row.isa);
  batchnorm::ThreadTeam team(row.problem.threads);
  return with_x(row.problem, [&](const auto& x) {
    return batchnorm::explain(pass_of(row.problem.operation), x, format_of(row.problem.layout), {.executor = &team});
  });
}

batchnorm::Isa isa_of_library(const Problem& problem) {
  return with_x(problem, [&](const auto& x) { return batchnorm::isa_of(x, format_of(problem.layout)); });
}

}  // namespace bench
