// SPDX-License-Identifier: MIT

// batchnorm::cuda against a copy of x on the device. Each row times in turn, by events, many calls of the operation and many
// copies, each on buffers that have left the cache, and reports the ratio of the medians. --help names the options. Status 77:
// there is no device, or no driver.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <batchnorm/element.hpp>

#include "../../examples/output/standard_output.hpp"
#include "../suite/json.hpp"
#include "../suite/names.hpp"
#include "../suite/panel.hpp"
#include "buffers.hpp"
#include "cudnn.hpp"

namespace {

using namespace bench;

constexpr int no_device = 77;

struct Request {
  std::vector<std::string> shapes, panels, operations, formats, types;
  std::string json;
  int turns = 30;
  bool lists_only = false, one_by_one = false;
};

template <class All>
std::vector<typename All::value_type> parse_names(const All& all, const std::vector<std::string>& texts, const char* option) {
  std::vector<typename All::value_type> values;
  for (const std::string& text : texts) {
    const auto value = named(all, text);
    if (!value) throw std::invalid_argument(std::string(option) + ": unknown '" + text + "'");
    values.push_back(*value);
  }
  if (values.empty()) values.assign(all.begin(), all.end());
  return values;
}

Extents parse_shape(const std::string& text) {
  Extents extents;
  const char *at = text.data(), *end = at + text.size();
  while (true) {
    std::int64_t extent = 0;
    const auto [after, error] = std::from_chars(at, end, extent);
    if (error != std::errc() || extent < 1 || extent > INT32_MAX || (after != end && *after != ',')) {
      throw std::invalid_argument("--shape " + text + ": expected N,C and up to three spatial extents");
    }
    extents.push_back(extent);
    if (after == end) break;
    at = after + 1;
  }
  if (extents.size() < 2 || extents.size() > 5) throw std::invalid_argument("--shape " + text + ": its rank must be 2 to 5");
  return extents;
}

std::vector<Problem> problems_of(const Request& request) {
  std::vector<Extents> shapes;
  for (const std::string& text : request.shapes) shapes.push_back(parse_shape(text));
  std::vector<std::string> panels = request.panels;
  if (shapes.empty() && panels.empty()) panels = {"full", "odd"};
  for (const std::string& name : panels) {
    for (const Extents& shape : panel(name)) shapes.push_back(shape);
  }
  constexpr std::array operations = {Operation::training, Operation::inference, Operation::backward};
  std::vector<Problem> problems;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    if (std::find(shapes.begin(), shapes.begin() + static_cast<std::ptrdiff_t>(i), shapes[i]) !=
        shapes.begin() + static_cast<std::ptrdiff_t>(i)) {
      continue;  // of several networks
    }
    for (const Operation operation : parse_names(operations, request.operations, "--operation")) {
      for (const Layout layout : parse_names(all_layouts, request.formats, "--format")) {
        // A matrix is the same in both.
        if (shapes[i].size() == 2 && request.formats.empty() && layout == Layout::nchw) continue;
        for (const ElementType type : parse_names(all_types, request.types, "--type")) {
          problems.push_back({operation, layout, type, shapes[i], 1});
        }
      }
    }
  }
  return problems;
}

std::string text_of(const Problem& problem) {
  return std::string(name_of(problem.operation)) + " " + std::string(name_of(problem.layout)) + " " +
         std::string(name_of(problem.type)) + " " + name_of(problem.extents);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

struct CudnnResult {
  std::string name;
  double us = 0;
  bool is_graph = false, differs = false;
  std::string refusal;
};

struct Result {
  Problem problem;
  double us = 0, copy_us = 0;
  std::vector<CudnnResult> cudnn;

  double bytes() const {
    return tensors_moved(problem.operation, problem.type) * static_cast<double>(problem.elements() * bytes_of(problem.type));
  }
  double GB_per_s() const { return bytes() / us * 1e-3; }
  double copy_GB_per_s() const { return 2 * static_cast<double>(tensor_bytes(problem)) / copy_us * 1e-3; }
  double ratio() const { return us / copy_us; }
};

/// What was written to the first set, as doubles.
std::vector<double> written(const Problem& problem, const DeviceBuffers& buffers) {
  const auto read = [&]<class T>(T) {
    std::vector<T> values(static_cast<std::size_t>(problem.elements()));
    buffers.sets[0].y.download(values.data(), tensor_bytes(problem));
    return std::vector<double>(values.begin(), values.end());
  };
  switch (problem.type) {
    case ElementType::float64: return read(double{});
    case ElementType::half: return read(batchnorm::half{});
    case ElementType::bfloat16: return read(batchnorm::bfloat16{});
    default: return read(float{});
  }
}

/// A few roundings of half and bfloat16; what sums in float lose.
double tolerance(ElementType type) {
  return type == ElementType::bfloat16 ? 0x1p-6 : type == ElementType::half ? 0x1p-9 : 1e-3;
}

bool differ(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance * (1 + std::abs(a[i])))) return true;
  }
  return false;
}

Result measure(const Problem& problem, const DeviceFacts& facts, const Request& request) {
  const DeviceBuffers buffers(problem, facts);
  const DeviceStream stream;
  const std::size_t sets = buffers.sets.size();
  // So many calls that the events do not count: each set once, and some 100 us at the speed of a fast device's memory.
  const auto bytes = static_cast<double>(tensor_bytes(problem));
  const std::size_t calls =
      std::clamp(static_cast<std::size_t>(100e-6 * 3e12 / (2 * bytes)), sets, std::max<std::size_t>(sets, 64));
  const auto sequence = [&](const DeviceCall& call) {
    return std::make_unique<Sequence>(call, calls, sets, !request.one_by_one, stream);
  };

  Result result{problem, 0, 0, {}};
  std::vector<std::unique_ptr<Sequence>> sequences;
  sequences.push_back(sequence(library_call(problem, buffers)));
  const std::vector<CudnnCall> rivals = cudnn_calls(problem, buffers);
  const std::vector<double> ours = rivals.empty() ? std::vector<double>() : written(problem, buffers);
  sequences.push_back(sequence(copy_call(problem, buffers)));
  for (const CudnnCall& rival : rivals) {
    CudnnResult& of_rival = result.cudnn.emplace_back();
    of_rival.name = rival.name;
    try {
      sequences.push_back(sequence(rival.call));
      of_rival.is_graph = sequences.back()->is_graph();
      of_rival.differs = differ(ours, written(problem, buffers), tolerance(problem.type));
    } catch (const std::runtime_error& error) {
      sequences.push_back(nullptr);
      of_rival.refusal = error.what();
    }
  }

  std::vector<std::vector<double>> seconds(sequences.size());
  constexpr int warm_up = 3;
  for (int turn = -warm_up; turn < request.turns; ++turn) {
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      if (sequences[i] == nullptr) continue;
      const double one = sequences[i]->seconds();
      if (turn >= 0) seconds[i].push_back(one);
    }
  }
  result.us = median(seconds[0]) * 1e6;
  result.copy_us = median(seconds[1]) * 1e6;
  for (std::size_t i = 0; i < result.cudnn.size(); ++i) {
    if (sequences[i + 2] != nullptr) result.cudnn[i].us = median(seconds[i + 2]) * 1e6;
  }
  return result;
}

void print_header(const DeviceFacts& facts, const Request& request) {
  std::printf("%s, compute capability %d.%d, %d multiprocessors, L2 %.4g MB, driver %d, runtime %d", facts.name.c_str(),
              facts.capability / 10, facts.capability % 10, facts.multiprocessors,
              static_cast<double>(facts.cache_bytes) * 0x1p-20, facts.driver, facts.runtime);
  if (!cudnn_version().empty()) std::printf(", %s", cudnn_version().c_str());
  std::printf("\nratio: to the copy of x; calls %s, buffers not in the cache, median of %d turns\n\n",
              request.one_by_one ? "enqueued one by one" : "in a graph", request.turns);
  std::printf("%-20s %-10s %-6s %-8s %11s %11s %6s %7s %7s\n", "shape", "operation", "format", "type", "median us", "copy us",
              "ratio", "GB/s", "copy");
}

void print(const Result& result) {
  const Problem& p = result.problem;
  std::printf("%-20s %-10s %-6s %-8s %11.2f %11.2f %6.2f %7.1f %7.1f", name_of(p.extents).c_str(), name_of(p.operation).data(),
              name_of(p.layout).data(), name_of(p.type).data(), result.us, result.copy_us, result.ratio(), result.GB_per_s(),
              result.copy_GB_per_s());
  for (const CudnnResult& rival : result.cudnn) {
    if (rival.us == 0) {
      std::printf("  %s refuses", rival.name.c_str());
    } else {
      std::printf("  %s %.2f%s%s", rival.name.c_str(), rival.us / result.copy_us, rival.is_graph ? "" : " (no graph)",
                  rival.differs ? " DIFFERS" : "");
    }
  }
  std::printf("\n");
  standard_output::flush();
}

Json json_of(const Result& result) {
  const Problem& p = result.problem;
  JsonObject cudnn;
  for (const CudnnResult& rival : result.cudnn) {
    JsonObject one;
    if (rival.us > 0) {
      one.add("median_us", rival.us).add("ratio_to_copy", rival.us / result.copy_us).add("graph", rival.is_graph ? 1 : 0);
      one.add("differs", rival.differs ? 1 : 0);
    } else {
      one.add("refusal", rival.refusal);
    }
    cudnn.add(rival.name, one);
  }
  return JsonObject()
      .add("shape", Json::array(p.extents))
      .add("operation", name_of(p.operation))
      .add("format", name_of(p.layout))
      .add("type", name_of(p.type))
      .add("ratio_to_copy", result.ratio())
      .add("median_us", result.us)
      .add("copy_us", result.copy_us)
      .add("GB_per_s", result.GB_per_s())
      .add("copy_GB_per_s", result.copy_GB_per_s())
      .add("cudnn", cudnn);
}

std::string json_of(const DeviceFacts& facts, const Request& request, const std::vector<Result>& results) {
  std::string rows;
  for (const Result& result : results) rows.append(rows.empty() ? "\n  " : ",\n  ").append(json_of(result).text());
  const Json device = JsonObject()
                          .add("name", facts.name)
                          .add("compute_capability", facts.capability)
                          .add("multiprocessors", facts.multiprocessors)
                          .add("l2_bytes", facts.cache_bytes)
                          .add("memory_bytes", facts.memory_bytes)
                          .add("driver", facts.driver)
                          .add("runtime", facts.runtime)
                          .add("cudnn", cudnn_version())
                          .add("graphs", request.one_by_one ? 0 : 1)
                          .add("turns", request.turns);
  return "{\"device\": " + device.text() + ",\n \"rows\": [" + rows + "]}\n";
}

int run(const Request& request, const std::vector<Problem>& problems) {
  DeviceFacts facts;
  const std::string missing = find_device(facts);
  if (!missing.empty()) {
    std::cerr << "batchnorm_cuda_bench: no CUDA device to run on: " << missing << "\n";
    return no_device;
  }
  std::ofstream file;
  if (!request.json.empty()) {
    file.open(request.json);  // before the minutes of work
    if (!file) throw std::runtime_error("'" + request.json + "' cannot be written");
  }
  print_header(facts, request);
  std::vector<Result> results;
  bool is_complete = true;
  for (const Problem& problem : problems) {
    try {
      results.push_back(measure(problem, facts, request));
    } catch (const std::exception& error) {
      std::cerr << "batchnorm_cuda_bench: " << text_of(problem) << ": " << error.what() << "\n";
      is_complete = false;
      continue;
    }
    print(results.back());
  }
  if (!request.json.empty() && !(file << json_of(facts, request, results) << std::flush)) {
    throw std::runtime_error("'" + request.json + "' cannot be written");
  }
  return is_complete ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  standard_output::prepare();
  CLI::App app(
      "Times batch normalization on a CUDA device against a copy of the same bytes on it in the same run: one row for\n"
      "each combination of the options, which may all be repeated. cuDNN stands beside it where it was found.");
  Request request;
  const auto repeatable = [&](const char* name, std::vector<std::string>& to, const char* what, const char* type = "TEXT") {
    app.add_option(name, to, what)->allow_extra_args(false)->type_name(type);
  };
  repeatable("--shape", request.shapes, "N,C and up to three spatial extents, whatever the format", "N,C,...");
  repeatable("--panel", request.panels, "quick, full, odd or a network's; by default full and odd", "NAME");
  repeatable("--operation", request.operations, "training, inference, backward; by default all");
  repeatable("--format", request.formats, "NCHW, NHWC; by default both, once for a matrix");
  repeatable("--type", request.types, "float, double, half, bfloat16; by default all");
  app.add_option("--turns", request.turns, "how often each is timed; by default 30")->check(CLI::Range(1, 100000));
  app.add_option("--json", request.json, "writes the rows to a file")->type_name("FILE");
  app.add_flag("--one-by-one", request.one_by_one, "enqueues each call, as programs without graphs do");
  app.add_flag("--list", request.lists_only, "names the rows and runs none");
  std::vector<Problem> problems;
  try {
    app.parse(argc, argv);
    problems = problems_of(request);
  } catch (const CLI::Success& help) {
    return standard_output::finish("batchnorm_cuda_bench", app.exit(help));
  } catch (const std::exception& error) {
    std::cerr << "batchnorm_cuda_bench: " << error.what() << "\n";
    return 2;
  }
  if (request.lists_only) {
    for (const Problem& problem : problems) std::cout << text_of(problem) << "\n";
    return standard_output::finish("batchnorm_cuda_bench", 0, 1);
  }
  try {
    return standard_output::finish("batchnorm_cuda_bench", run(request, problems), 1);
  } catch (const std::exception& error) {
    std::cerr << "batchnorm_cuda_bench: " << error.what() << "\n";
    return 1;
  }
}
