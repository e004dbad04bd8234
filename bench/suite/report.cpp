// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <cstdarg>
#include <cstdio>

#include "json.hpp"
#include "names.hpp"

namespace bench {
namespace {

[[gnu::format(printf, 1, 2)]] std::string formatted(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

std::string size(std::int64_t bytes) {
  if (bytes >= 1 << 30) return formatted("%.1f GB", static_cast<double>(bytes) / (1 << 30));
  return bytes >= 1 << 20 ? formatted("%.4g MB", static_cast<double>(bytes) / (1 << 20))
                          : formatted("%.4g KB", static_cast<double>(bytes) / (1 << 10));
}

template <class Strings>
std::string joined(const Strings& strings) {
  std::string text;
  for (const std::string& one : strings) text.append(text.empty() ? "" : ", ").append(one);
  return text;
}

Json json_of(const Machine& machine) {
  JsonObject caches;
  for (const CacheSize& cache : machine.caches) {
    caches.add(cache.name, JsonObject().add("bytes", cache.bytes).add("shared_by", cache.shared_by));
  }
  return JsonObject()
      .add("cpu", machine.cpu)
      .add("cores", machine.cores)
      .add("caches", caches)
      .add("memory_bytes", machine.memory_bytes)
      .add("compiler", machine.compiler)
      .add("flags", machine.flags)
      .add("library", machine.library)
      .add("revision", machine.revision)
      .add("isas", Json::array(machine.isas))
      .add("rivals", Json::array(machine.rivals))
      .add("date", machine.date);
}

Json json_of(const Result& result) {
  const Problem& problem = result.row.problem;
  JsonObject row;
  row.add("shape", Json::array(problem.extents))
      .add("operation", name_of(problem.operation))
      .add("format", name_of(problem.layout))
      .add("type", name_of(problem.type))
      .add("isa", to_string(result.row.isa))
      .add("threads", problem.threads)
      .add("ratio_to_copy", result.ratio_to_copy())
      .add("ratio_per_byte", result.ratio_per_byte())
      .add("median_us", result.median_us)
      .add("copy_us", result.copy_us)
      .add("spread", result.spread)
      .add("GB_per_s", result.GB_per_s());
  const auto ends = [](const Range& range) { return Json::array(std::vector<double>{range.low, range.high}); };
  row.add("range", ends(result.range));
  JsonObject rivals, implementations, ranges;
  std::vector<std::string> differing;
  for (const RivalResult& rival : result.rivals) {
    rivals.add(rival.name, rival.ratio_to_copy);
    ranges.add(rival.name, ends(rival.range));
    if (!rival.implementation.empty()) implementations.add(rival.name, rival.implementation);
    if (rival.differs) differing.push_back(rival.name);
  }
  return row.add("rivals", rivals)
      .add("rival_ranges", ranges)
      .add("rival_implementations", implementations)
      .add("rivals_that_differ", Json::array(differing));
}

}  // namespace

std::string header(const Machine& machine) {
  std::string text = machine.cpu + ", " + std::to_string(machine.cores) + " cores";
  for (const CacheSize& cache : machine.caches) text.append(", ").append(cache.name).append(" ").append(size(cache.bytes));
  text.append("\n")
      .append(machine.library)
      .append(" (")
      .append(machine.revision)
      .append("), ")
      .append(machine.compiler)
      .append(", ")
      .append(machine.flags);
  text.append("; ").append(joined(machine.isas)).append("\n");
  if (!machine.rivals.empty()) text.append("rivals: ").append(joined(machine.rivals)).append("\n");
  text.append("ratio: to the copy; spread: from the 10th to the 90th percentile, relative to the median\n\n");
  return text + formatted("%-20s %-17s %-6s %-8s %-9s %7s %12s %12s %6s %6s %6s\n", "shape", "operation", "format", "type",
                          "isa", "threads", "median us", "copy us", "ratio", "spread", "GB/s");
}

std::string line_of(const Result& result) {
  const Problem& problem = result.row.problem;
  if (!result.error.empty()) return "WRONG " + name_of(result.row) + ": " + result.error + "\n";
  std::string line =
      formatted("%-20s %-17s %-6s %-8s %-9s %7d %12.2f %12.2f %6.2f %6.2f %6.1f", name_of(problem.extents).c_str(),
                name_of(problem.operation).data(), name_of(problem.layout).data(), name_of(problem.type).data(),
                to_string(result.row.isa).data(), problem.threads, result.median_us, result.copy_us, result.ratio_to_copy(),
                result.spread, result.GB_per_s());
  for (const RivalResult& rival : result.rivals) {
    line.append("  ").append(rival.name).append(formatted(" %.2f", rival.ratio_to_copy));
    if (!rival.implementation.empty()) line.append(" (").append(rival.implementation).append(")");
    if (rival.differs) line.append(" DIFFERS");
  }
  return line + "\n";
}

std::string json_of(const Machine& machine, const std::vector<Result>& results) {
  std::string rows;
  for (const Result& result : results) {
    if (result.error.empty()) rows.append(rows.empty() ? "\n  " : ",\n  ").append(json_of(result).text());
  }
  return "{\"machine\": " + json_of(machine).text() + ",\n \"rows\": [" + rows + "]}\n";
}

}  // namespace bench
