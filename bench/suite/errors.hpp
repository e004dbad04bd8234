// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string_view>

namespace bench {

/// The largest error of each quantity by its name ("y", "the batch mean"), in ulp as docs/numerics.md counts them. Infinite
/// where it is NaN and should not be.
using Errors = std::map<std::string_view, double>;

}  // namespace bench
