// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "row.hpp"

namespace bench {

/// The inputs of batch normalization in a network, at a batch size that it is trained or served with.
struct Network {
  std::string name;  // as `--panel` takes it
  std::vector<Extents> shapes;
};

const std::vector<Network>& networks();

/// The shapes of a network, of all ("full"), or of a few of each class ("quick").
/// @throws std::invalid_argument   no panel of that name
std::vector<Extents> panel(const std::string& name);

}  // namespace bench
