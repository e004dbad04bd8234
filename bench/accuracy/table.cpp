// SPDX-License-Identifier: MIT
#include "table.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "../suite/names.hpp"

namespace bench {
namespace {

struct Column {
  std::string_view title;
  Operation operation;
  const char* quantity;
  const char* otherwise;  // where it is not returned: with momentum 1 this is of the batch alone, too
};

constexpr std::array columns = {Column{"mean", Operation::training, "the batch mean", "the running mean"},
                                Column{"variance", Operation::training, "the batch variance", "the running variance"},
                                Column{"y", Operation::training, "y", "y"},
                                Column{"y, inference", Operation::inference, "y", "y"},
                                Column{"dx", Operation::backward, "dx", "dx"},
                                Column{"dscale", Operation::backward, "dscale", "dscale"},
                                Column{"dbias", Operation::backward, "dbias", "dbias"}};

const std::vector<std::string> titles_of_names = {"type", "shape", "data", "implementation"};

/// "0.49", "371", "8e8"
std::string text_of(double error) {
  char text[32];
  std::snprintf(text, sizeof text, error < 9.995 ? "%.2f" : error < 99.95 ? "%.1f" : error < 9999.5 ? "%.0f" : "%.0e", error);
  std::string result = text;
  if (const std::size_t plus = result.find('+'); plus != std::string::npos) result.erase(plus, result[plus + 1] == '0' ? 2 : 1);
  return result;
}

}  // namespace

void ErrorTable::note(const Problem& problem, std::string_view data, const std::string& implementation, const Errors& errors) {
  const std::vector<std::string> names{std::string(name_of(problem.type)), name_of(problem.extents), std::string(data),
                                       implementation};
  auto line = std::find_if(lines_.begin(), lines_.end(), [&](const Line& one) { return one.names == names; });
  if (line == lines_.end()) line = lines_.insert(line, {names, {}});
  for (const Column& column : columns) {
    if (column.operation != problem.operation) continue;
    const double first = errors.at(column.quantity);
    double& ulps = line->ulps[{column.title, problem.layout}];
    ulps = std::max(ulps, std::isinf(first) ? errors.at(column.otherwise) : first);
  }
}

ErrorTable::Cells ErrorTable::cells() const {
  Cells cells = {titles_of_names};
  for (const Column& column : columns) cells.front().emplace_back(column.title);
  for (const Line& line : lines_) {
    cells.push_back(line.names);
    for (const Column& column : columns) {
      std::string& cell = cells.back().emplace_back();
      for (const Layout layout : layouts_) {
        const auto ulps = line.ulps.find({column.title, layout});
        cell.append(cell.empty() ? "" : " / ").append(ulps == line.ulps.end() ? "-" : text_of(ulps->second));
      }
    }
  }
  return cells;
}

std::string ErrorTable::aligned() const {
  const Cells rows = cells();
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      text.append(i == 0 ? "" : "  ").append(i < titles_of_names.size() ? row[i] + padding : padding + row[i]);
    }
    text.append("\n");
  }
  return text;
}

std::string ErrorTable::markdown() const {
  const Cells rows = cells();
  std::string text;
  for (const auto& row : rows) {
    for (const std::string& cell : row) text.append("| ").append(cell).append(" ");
    text.append("|\n");
    if (&row != &rows.front()) continue;
    for (std::size_t i = 0; i < row.size(); ++i) text.append("|---");
    text.append("|\n");
  }
  return text;
}

}  // namespace bench
