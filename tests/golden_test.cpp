// SPDX-License-Identifier: MIT

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/isa.hpp>

#include "support/npy_files.hpp"
#include "support/run_program.hpp"
#include "support/temporary_folder.hpp"

// Results of other frameworks, compared with those of the tool. tests/data/golden/README.md says where they come from.
namespace {

namespace npy = batchnorm::npy;

struct Expected {
  std::string name;
  std::filesystem::path file;
  long double relative = 0;  ///< allowed: absolute + relative * abs(expected)
  long double absolute = 0;
};

/// One folder of tests/data/golden.
struct GoldenCase {
  std::string name;
  std::string command;
  std::string source;
  std::vector<std::string> arguments;  ///< of that command
  std::vector<Expected> expected;
};

void PrintTo(const GoldenCase& golden, std::ostream* out) { *out << golden.source; }

/// Takes in one line of case.txt.
void add_line(GoldenCase& golden, const std::filesystem::path& folder, const std::string& line) {
  std::istringstream words(line);
  std::string kind, name, value;
  words >> kind >> name;
  if (kind == "command") {
    golden.command = name;
  } else if (kind == "source") {
    golden.source = line.substr(kind.size() + 1);
  } else if (kind == "flag") {
    golden.arguments.push_back("--" + name);
  } else if (kind == "attribute" && words >> value) {
    golden.arguments.insert(golden.arguments.end(), {"--" + name, value});
  } else if (kind == "input" && words >> value) {
    golden.arguments.insert(golden.arguments.end(), {"--" + name, (folder / value).string()});
  } else if (Expected expected{name, {}, 0, 0};
             kind == "expected" && words >> value >> expected.relative >> expected.absolute) {
    expected.file = folder / value;
    golden.expected.push_back(expected);
  } else if (kind != "reference" && kind != "note") {
    throw std::runtime_error("'" + folder.string() + "/case.txt': the line '" + line + "' is not understood");
  }
}

GoldenCase read_case(const std::filesystem::path& folder) {
  GoldenCase golden{folder.filename(), {}, {}, {}, {}};
  std::ifstream file(folder / "case.txt");
  for (std::string line; std::getline(file, line);) add_line(golden, folder, line);
  return golden;
}

std::vector<GoldenCase> all_cases() {
  const std::filesystem::path root = std::filesystem::path(BATCHNORM_TEST_DATA) / "golden";
  std::vector<GoldenCase> cases;
  for (const std::string& name : support::names_in(root)) {
    if (is_directory(root / name)) cases.push_back(read_case(root / name));
  }
  return cases;
}

bool agree(long double got, long double expected, const Expected& tolerance) {
  if (got == expected || (std::isnan(got) && std::isnan(expected))) return true;
  if (!std::isfinite(got) || !std::isfinite(expected)) return false;
  return std::abs(got - expected) <= tolerance.absolute + tolerance.relative * std::abs(expected);
}

void expect_agreement(const support::Array& got, const Expected& expected) {
  const support::Array wanted = support::load_npy(expected.file);
  EXPECT_EQ(npy::type_name(got.header.type), npy::type_name(wanted.header.type));
  ASSERT_EQ(got.header.shape, wanted.header.shape);
  std::size_t first_wrong = 0;
  while (first_wrong < wanted.values.size() && agree(got.values[first_wrong], wanted.values[first_wrong], expected))
    ++first_wrong;
  if (first_wrong == wanted.values.size()) return;
  ADD_FAILURE() << "element " << first_wrong << " is " << got.values[first_wrong] << ", expected " << wanted.values[first_wrong]
                << " within " << expected.absolute << " + " << expected.relative << " of it";
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {};

TEST_P(GoldenTest, AgreesOnEveryInstructionSet) {
  const support::TemporaryFolder folder;
  std::vector<std::string> command{BATCHNORM_NPY_TOOL, GetParam().command, "--out", folder / "out"};
  command.insert(command.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  ASSERT_FALSE(GetParam().expected.empty());
  for (const batchnorm::Isa isa : batchnorm::available_isas()) {
    const std::string name(to_string(isa));
    SCOPED_TRACE(name);
    std::filesystem::remove_all(folder / "out");
    const support::ProgramResult result = support::run_program(command, {"BATCHNORM_ISA=" + name});
    ASSERT_EQ(result.status, 0) << result.errors;
    for (const Expected& expected : GetParam().expected) {
      SCOPED_TRACE(expected.name);
      expect_agreement(support::load_npy(folder / "out" / (expected.name + ".npy")), expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tool, GoldenTest, testing::ValuesIn(all_cases()), [](const auto& test) {
  std::string name = test.param.name;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char letter) { return std::isalnum(letter) == 0; }, '_');
  return name;
});

TEST(GoldenDataTest, HoldsCasesOfEveryFramework) {
  const std::vector<GoldenCase> cases = all_cases();
  for (const std::string framework :
       {"mindspore_", "mindspore_published_", "pytorch_", "onnxruntime_", "onnx_node_", "flax_"}) {
    EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), [&](const auto& golden) { return golden.name.starts_with(framework); }))
        << framework;
  }
}

TEST(GoldenDataTest, HoldsCasesOfEveryCommand) {
  const std::vector<GoldenCase> cases = all_cases();
  for (const std::string command : {"forward", "backward", "double-backward"}) {
    EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), [&](const auto& golden) { return golden.command == command; }))
        << command;
  }
}

}  // namespace
