// SPDX-License-Identifier: MIT
#pragma once

// One function for each rival, each defined in the file of its name: what it offers of a problem, and its version. A rival that
// this build lacks has none.

#include "rival.hpp"

namespace bench {

using Offers = std::vector<std::unique_ptr<Rival>>;

void offer_naive_loop(const Problem& problem, const Buffers& buffers, Offers& offers);

}  // namespace bench
