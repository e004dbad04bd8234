// SPDX-License-Identifier: MIT

// The unit of compile_cost.sh: what a program pays for the one header of Eigen's that the library includes.

#include <Eigen/Core>
