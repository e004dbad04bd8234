// SPDX-License-Identifier: MIT
#include "suite.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <iterator>

#include "run.hpp"

namespace selftest {
namespace {

struct Expected {
  std::string_view name;
  std::uint64_t checksum;
};

constexpr Expected table[] = {
#include "expected.inc"
};

std::string hexadecimal(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, number);
  return text;
}

struct Line {
  Verdict verdict;
  std::uint64_t sum = 0;
};

Line run_case(const Case& one, Machine& machine, bool compares_checksums) {
  Line line;
  const std::unique_ptr<Run> run = make_run(one, machine);
  const std::vector<std::string> ways = machine.ways();
  std::vector<std::byte> first;
  for (std::size_t way = 0; way < ways.size(); ++way) {
    run->prepare();
    machine.run(way, [&](batchnorm::cuda::Stream stream) { run->enqueue(stream); });
    Outcome outcome = run->collect();
    if (way == 0) {
      line.verdict = run->check();
      line.sum = checksum(outcome.bits);
      first = std::move(outcome.bits);
    } else if (line.verdict.wrong.empty() && outcome.bits != first) {
      line.verdict.wrong = ways[way] + " gives other bits than " + ways[0];
    }
    if (line.verdict.wrong.empty()) line.verdict.wrong = outcome.wrong;
  }
  if (compares_checksums && line.verdict.wrong.empty()) {
    const auto expected = expected_checksum(name_of(one));
    if (!expected) {
      line.verdict.wrong = "no checksum is known";
    } else if (*expected != line.sum) {
      line.verdict.wrong = "the checksum should be " + hexadecimal(*expected);
    }
  }
  return line;
}

}  // namespace

std::optional<std::uint64_t> expected_checksum(std::string_view name) {
  const auto* found = std::find_if(std::begin(table), std::end(table), [&](const Expected& one) { return one.name == name; });
  if (found == std::end(table)) return std::nullopt;
  return found->checksum;
}

std::size_t expected_count() { return std::size(table); }

Report run_cases(Machine& machine, std::string_view filter, bool compares_checksums) {
  Report report;
  for (const Case& one : cases()) {
    const std::string name = name_of(one);
    if (name.find(filter) == std::string::npos) continue;
    Line line;
    bool is_left_out = false;
    try {
      line = run_case(one, machine, compares_checksums);
    } catch (const NotHere& reason) {
      is_left_out = true;
      line.verdict.wrong = reason.what();
    } catch (const std::exception& error) {
      line.verdict.wrong = error.what();
    }
    const bool is_wrong = !line.verdict.wrong.empty() && !is_left_out;
    ++report.cases;
    report.left_out += is_left_out ? 1 : 0;
    report.failed += is_wrong ? 1 : 0;
    const std::string sum = hexadecimal(line.sum);
    std::printf("%-6s %-42s %7.4f ulp  %s  %s\n",
                is_wrong      ? "FAILED"
                : is_left_out ? "-"
                              : "ok",
                name.c_str(), line.verdict.ulps, sum.c_str(), line.verdict.wrong.c_str());
    std::fflush(stdout);
    report.table.append("{\"").append(name).append("\", 0x").append(sum).append("U},\n");
  }
  return report;
}

}  // namespace selftest
