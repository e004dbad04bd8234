// SPDX-License-Identifier: MIT
#pragma once

#include "plan.hpp"

// One function for each kind of case: draws the arguments, calls the library in two ways, compares with the oracle.
namespace fuzz {

void forward(const Plan& plan, Random& random);
void pieces(const Plan& plan, Random& random);
void backward(const Plan& plan, Random& random);
void gradient_pieces(const Plan& plan, Random& random);
void double_backward(const Plan& plan, Random& random);
void in_place(const Plan& plan, Random& random);
void refusal(const Plan& plan, Random& random);

/// What became of a pair of regions that share nothing.
enum class Overlap { shared, accepted, refused };
Overlap overlap(const Plan& plan, Random& random);

}  // namespace fuzz
