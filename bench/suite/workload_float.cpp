// SPDX-License-Identifier: MIT
#include "workload_of.hpp"

template std::unique_ptr<bench::Workload> bench::make_workload_of<float>(const Problem&, batchnorm::Executor&);
