// SPDX-License-Identifier: MIT
#include "workload_of.hpp"

template std::unique_ptr<bench::Workload> bench::make_workload_of<batchnorm::half>(const Problem&, batchnorm::Executor&);
