// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "../suite/row.hpp"

namespace bench {

/// A channel's values: normally distributed, the first one perhaps in another place.
struct Data {
  std::string_view name;
  double offset, deviation;
  std::optional<double> first{};

  double largest() const { return std::max(offset + 10 * deviation, first.value_or(0)); }
};

inline constexpr std::array all_data = {Data{"normal", 0, 1},     Data{"offset-1e3", 1e3, 1},       Data{"offset-1e6", 1e6, 1},
                                        Data{"constant", 1e4, 0}, Data{"small-deviation", 1, 1e-3}, Data{"outlier", 0, 1, 1e6}};

inline std::string_view name_of(const Data& data) { return data.name; }

/// A tensor of such channels, as it lies in memory.
std::vector<double> values_of(const Problem& problem, const Data& data, std::uint64_t seed);

}  // namespace bench
