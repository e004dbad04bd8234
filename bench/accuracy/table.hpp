// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../suite/errors.hpp"
#include "../suite/row.hpp"

namespace bench {

/// Errors by type, shape, data and implementation: a line for each, its cells with a number for each of the formats.
class ErrorTable {
 public:
  explicit ErrorTable(std::vector<Layout> layouts) : layouts_(std::move(layouts)) {}

  /// Keeps the larger of what is noted twice.
  /// @param errors   of training, inference or backward, as Workload::errors_of gives them
  void note(const Problem& problem, std::string_view data, const std::string& implementation, const Errors& errors);

  std::string aligned() const;
  std::string markdown() const;

 private:
  struct Line {
    std::vector<std::string> names;
    std::map<std::pair<std::string_view, Layout>, double> ulps;  // by the column's title and the format
  };
  using Cells = std::vector<std::vector<std::string>>;

  /// With the titles.
  Cells cells() const;

  std::vector<Layout> layouts_;
  std::vector<Line> lines_;
};

}  // namespace bench
