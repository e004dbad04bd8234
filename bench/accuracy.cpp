// SPDX-License-Identifier: MIT

// How exact the library and its rivals are: their largest errors against the tests' oracle in long double, in ulp as
// docs/numerics.md counts them, on data that are hard in different ways. It judges nothing. --help names the options.

#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <batchnorm/isa.hpp>
#include <batchnorm/thread_team.hpp>

#include "../examples/output/standard_output.hpp"
#include "accuracy/data.hpp"
#include "accuracy/table.hpp"
#include "suite/machine.hpp"
#include "suite/parse.hpp"
#include "suite/workload.hpp"

namespace {

using bench::Data;
using bench::ElementType;
using bench::Layout;
using bench::Operation;
using bench::Problem;

struct Request {
  std::vector<bench::Extents> shapes;
  std::vector<Data> data;
  std::vector<ElementType> types;
  std::vector<Layout> layouts;
  std::vector<batchnorm::Isa> isas;
  bool is_markdown = false;
};

/// "oneDNN 2.6.3" of "oneDNN 2.6.3 nchw"
std::string without_order(const std::string& name) {
  for (const std::string& version : bench::rival_versions()) {
    if (name.starts_with(version)) return version;
  }
  return name;
}

void measure(const Problem& problem, const Data& data, const std::vector<batchnorm::Isa>& isas, bench::ErrorTable& table) {
  batchnorm::ThreadTeam team(problem.threads);
  const auto workload = bench::make_workload(problem, team);
  const Data& normal = bench::all_data.front();
  workload->set_values(values_of(problem, data, 1), values_of(problem, normal, 2));
  for (const batchnorm::Isa isa : isas) {
    batchnorm::force_isa(isa);
    const bench::Errors errors = workload->errors_of([&] { workload->run(); });
    table.note(problem, data.name, "batchnorm", errors);
  }
  for (const auto& rival : bench::rivals_of(problem, workload->buffers())) {
    if (!rival->has_plain_result()) continue;
    const bench::Errors errors = workload->errors_of([&] {
      rival->run();
      rival->fetch_sums();
    });
    table.note(problem, data.name, without_order(rival->name()), errors);
  }
}

bench::ErrorTable measured(const Request& request) {
  constexpr double largest_half = 65504;
  constexpr int threads = 1;  // the order of a rival's sums may depend on it
  bench::ErrorTable table(request.layouts);
  for (const ElementType type : request.types) {
    for (const bench::Extents& shape : request.shapes) {
      for (const Data& data : request.data) {
        if (type == ElementType::half && data.largest() > largest_half) continue;
        for (const Layout layout : request.layouts) {
          for (const Operation operation : {Operation::training, Operation::inference, Operation::backward}) {
            measure({operation, layout, type, shape, threads}, data, request.isas, table);
          }
        }
      }
    }
  }
  return table;
}

Request read(int argc, char** argv, CLI::App& app) {
  std::vector<std::string> shapes, data, types, formats, isas;
  Request request;
  const auto repeatable = [&](const char* name, std::vector<std::string>& to, const std::string& what) {
    return app.add_option(name, to, what)->allow_extra_args(false);
  };
  repeatable("--shape", shapes, "N,C and up to three spatial extents; by default 8,32,28,28 and 16,4,256,256")
      ->type_name("N,C,...");
  repeatable("--data", data, bench::names_of(bench::all_data) + "; by default all");
  repeatable("--type", types, bench::names_of(bench::all_types) + "; by default float");
  repeatable("--format", formats, "NCHW, NHWC; by default both, one / the other");
  repeatable("--isa", isas, "instruction set of the library, of several the worst; by default all that are available here");
  app.add_flag("--markdown", request.is_markdown, "the table in Markdown");
  app.parse(argc, argv);
  if (shapes.empty()) shapes = {"8,32,28,28", "16,4,256,256"};
  for (const std::string& shape : shapes) request.shapes.push_back(bench::parse_shape(shape));
  const auto all_or = [](const auto& all, const std::vector<std::string>& texts, const char* option) {
    auto named = bench::parse_names(all, texts, option);
    return texts.empty() ? decltype(named)(all.begin(), all.end()) : named;
  };
  request.data = all_or(bench::all_data, data, "--data");
  request.types = bench::parse_names(bench::all_types, types, "--type");
  if (types.empty()) request.types = {ElementType::float32};
  request.layouts = all_or(bench::all_layouts, formats, "--format");
  for (const std::string& isa : isas) request.isas.push_back(batchnorm::parse_isa(isa, "--isa"));
  if (isas.empty()) request.isas = batchnorm::available_isas();
  return request;
}

void print(const bench::ErrorTable& table, const Request& request) {
  const bench::Machine machine = bench::this_machine();
  std::cout << (request.is_markdown ? table.markdown() : table.aligned()) << "\n" << machine.library << " on";
  for (const batchnorm::Isa isa : request.isas) std::cout << " " << to_string(isa);
  std::cout << "; " << machine.compiler << ", " << machine.flags << "; " << machine.cpu << ", " << machine.cores << " cores\n";
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  CLI::App app(
      "Prints how exact batch normalization is, here and by the rivals of this build: the largest errors against an\n"
      "oracle in long double, in ulp as docs/numerics.md counts them. Options that name something may be repeated.");
  try {
    const Request request = read(argc, argv, app);
    print(measured(request), request);
  } catch (const CLI::Success& help) {
    return standard_output::finish("bench_accuracy", app.exit(help));
  } catch (const std::exception& error) {
    std::cerr << "bench_accuracy: " << error.what() << "\n";
    return 2;
  }
  return standard_output::finish("bench_accuracy", 0);
}
