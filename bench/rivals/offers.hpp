// SPDX-License-Identifier: MIT
#pragma once

// Two functions for each rival, defined in the file of its name: what it offers of a problem, and its name and version. CMake
// says which rivals this build has.

#include "rival.hpp"

namespace bench {

using Offers = std::vector<std::unique_ptr<Rival>>;

void offer_naive_loop(const Problem& problem, const Buffers& buffers, Offers& offers);

void offer_eigen(const Problem& problem, const Buffers& buffers, Offers& offers);
std::string eigen_version();

void offer_one_dnn(const Problem& problem, const Buffers& buffers, Offers& offers);
std::string one_dnn_version();

/// The version is empty where libtorch, or a library that it needs, cannot be loaded.
void offer_torch(const Problem& problem, const Buffers& buffers, Offers& offers);
std::string torch_version();

}  // namespace bench
