// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include <CLI/CLI.hpp>
#include <batchnorm/call/machine_tuning.hpp>
#include <batchnorm/thread_team.hpp>

#include "../../examples/output/standard_output.hpp"
#include "names.hpp"
#include "panel.hpp"
#include "parse.hpp"
#include "workload.hpp"

namespace bench {
namespace {

struct Texts {
  std::vector<std::string> shapes, panels, operations, formats, types, threads, isas;
  std::string tuning;
};

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

std::vector<Extents> shapes_of(const Texts& texts) {
  std::vector<Extents> shapes;
  for (const std::string& text : texts.shapes) shapes.push_back(parse_shape(text));
  std::vector<std::string> panels = texts.panels;
  if (shapes.empty() && panels.empty()) panels = {"quick"};
  for (const std::string& name : panels) {
    for (const Extents& shape : panel(name)) shapes.push_back(shape);
  }
  return shapes;
}

std::vector<int> threads_of(const std::vector<std::string>& texts) {
  std::vector<int> threads;
  for (const std::string& text : texts) {
    const std::int64_t number = parse_whole_number(text, "--threads");
    if (number > batchnorm::ThreadTeam::max_concurrency) {
      refuse("--threads: " + text + " is more than " + std::to_string(batchnorm::ThreadTeam::max_concurrency));
    }
    threads.push_back(static_cast<int>(number));
  }
  if (threads.empty()) threads.push_back(1);
  if (texts.empty() && std::thread::hardware_concurrency() >= 2) threads.push_back(2);
  return threads;
}

std::vector<batchnorm::Isa> isas_of(const std::vector<std::string>& texts) {
  std::vector<batchnorm::Isa> isas;
  for (const std::string& text : texts) isas.push_back(batchnorm::parse_isa(text, "--isa"));
  return isas;
}

/// The formats of a shape; of a matrix, which is the same in both, one unless they are named.
std::vector<Layout> layouts_of(const std::vector<Layout>& named, const Extents& shape) {
  if (!named.empty()) return named;
  if (shape.size() == 2) return {Layout::nhwc};
  return {all_layouts.begin(), all_layouts.end()};
}

void check_memory(const Problem& problem) {
  const double machine = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  const double needed = workload_bytes(problem);
  if (needed > machine) {
    const auto megabytes = [](double bytes) { return std::to_string(std::llround(bytes * 0x1p-20)) + " MB"; };
    refuse("--shape " + name_of(problem.extents) + ": its tensors take " + megabytes(needed) + ", the machine has " +
           megabytes(machine));
  }
}

std::vector<Row> rows_of(const Texts& texts) {
  const std::vector<Extents> shapes = shapes_of(texts);
  auto operations = parse_names(all_operations, texts.operations, "--operation");
  if (operations.empty()) operations = {Operation::training, Operation::inference, Operation::backward};
  const auto layouts = parse_names(all_layouts, texts.formats, "--format");
  auto types = parse_names(all_types, texts.types, "--type");
  if (types.empty()) types = {ElementType::float32};
  const std::vector<int> threads = threads_of(texts.threads);
  const std::vector<batchnorm::Isa> isas = isas_of(texts.isas);
  std::vector<Row> rows;
  for (const Extents& shape : shapes) {
    for (const Operation operation : operations) {
      for (const Layout layout : layouts_of(layouts, shape)) {
        for (const ElementType type : types) {
          const auto add = [&](batchnorm::Isa isa) {
            for (const int count : threads) rows.push_back({{operation, layout, type, shape, count}, isa});
          };
          for (const batchnorm::Isa isa : isas) add(isa);
          if (isas.empty()) add(isa_of_library({operation, layout, type, shape, 1}));
        }
      }
    }
  }
  for (const Row& row : rows) check_memory(row.problem);
  return rows;
}

std::string names_of_panels() {
  std::string text = "quick (the default without --shape), full, odd (odd numbers beside round ones)";
  for (const Network& network : networks()) text.append(", ").append(network.name);
  return text;
}

void add_options(CLI::App& app, Texts& texts, Request& request) {
  const auto repeatable = [&](const char* name, std::vector<std::string>& to, const std::string& what) {
    return app.add_option(name, to, what)->allow_extra_args(false);
  };
  repeatable("--shape", texts.shapes, "N,C and up to three spatial extents, whatever the format")->type_name("N,C,...");
  repeatable("--panel", texts.panels, names_of_panels())->type_name("NAME");
  repeatable("--operation", texts.operations, names_of(all_operations) + "; by default training, inference and backward");
  repeatable("--format", texts.formats, "NCHW, NHWC; by default both, once for a matrix");
  repeatable("--type", texts.types, names_of(all_types) + "; by default float");
  repeatable("--threads", texts.threads, "how many; by default 1 and 2")->type_name("N");
  repeatable("--isa", texts.isas, "instruction set; by default that of BATCHNORM_ISA, or the one that the library takes here");
  app.add_option("--tuning", texts.tuning, "numbers of the library, as in BATCHNORM_TUNING: plane_group_bytes=512K,...")
      ->type_name("NAME=VALUE,...");
  app.add_option("--json", request.json, "writes the rows to a file")->type_name("FILE");
  app.add_flag("--rivals", request.with_rivals, "also times the rivals of this build");
  app.add_flag("--list", request.lists_only, "names the rows and runs none");
  app.add_flag("--explain", request.explains,
               "says after each row how the library goes through memory; of a fused operation, what the plain one does");
}

}  // namespace

Request read_command_line(int argc, char** argv) {
  CLI::App app(
      "Times batch normalization against a copy of the same bytes in the same run: one row for each combination of\n"
      "the options, which may all be repeated. Each result is checked before it is timed.");
  Texts texts;
  Request request;
  add_options(app, texts, request);
  try {
    app.parse(argc, argv);
    if (!texts.tuning.empty()) setenv("BATCHNORM_TUNING", texts.tuning.c_str(), 1);
    batchnorm::machine_tuning();  // refuses what it cannot use before anything is timed
    request.rows = rows_of(texts);
  } catch (const CLI::Success& help) {
    std::exit(standard_output::finish("batchnorm_bench", app.exit(help)));
  } catch (const std::exception& error) {
    std::cerr << "batchnorm_bench: " << error.what() << "\n";
    std::exit(2);
  }
  return request;
}

}  // namespace bench
