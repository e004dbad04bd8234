// SPDX-License-Identifier: MIT
#include <array>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <batchnorm/batchnorm.hpp>

#include "affine.hpp"
#include "checks.hpp"
#include "commands.hpp"
#include "comparison.hpp"
#include "model_file.hpp"
#include "normalize.hpp"
#include "npy_tool/files.hpp"

namespace onnx_tool {
namespace {

using OptionalPath = std::optional<std::filesystem::path>;

struct RunArguments {
  std::filesystem::path model;
  std::string node;
  std::array<OptionalPath, 5> inputs;  ///< in the order of onnx::input_names
  std::vector<std::filesystem::path> expected;
  OptionalPath out;
  bool fold = false;
};

constexpr std::array<const char*, 5> input_options{"--x", "--scale", "--bias", "--mean", "--variance"};
constexpr std::array<const char*, 3> output_names{"Y", "running_mean", "running_var"};

/// A batch norm of a model, with what the command line adds to it.
class Run {
  /// What call() returns; the library's errors then tell the file and the node.
  template <class Call>
  auto named(Call&& call) const {
    try {
      return call();
    } catch (const std::invalid_argument& error) {
      throw UsageError(before_ + error.what());
    }
  }

 public:
  explicit Run(const RunArguments& arguments)
      : arguments_(arguments),
        model_(arguments.model),
        index_(model_.find(arguments.node)),
        norm_(model_.norms()[index_]),
        before_("'" + arguments.model.string() + "', " + name_of(norm_, index_) + ": ") {
    if (!norm_.problem.empty()) throw UsageError(before_ + norm_.problem);
  }

  /// y = x * factor + shift, what the node does in inference.
  batchnorm::AffineMap fold() {
    for (std::size_t k = 1; k < inputs_.size(); ++k) input(k);
    check(known());
    return map_of(*inputs_[1], *inputs_[2], *inputs_[3], *inputs_[4], norm_.epsilon);
  }

  std::vector<AnyTensor> outputs(const batchnorm::CallOptions& call) {
    for (std::size_t k = 0; k < inputs_.size(); ++k) input(k);
    check(known());
    return named([&] {
      // Inference has no use for momentum, whatever it is.
      const batchnorm::Options options = norm_.is_training ? batchnorm::from_onnx(norm_.momentum, norm_.epsilon, true)
                                                           : batchnorm::from_onnx(0.9F, norm_.epsilon, false);
      return norm_.is_spatial ? normalize(options, take_operands(), call) : normalize_positions(options, take_operands(), call);
    });
  }

 private:
  /// Reads an input when it is first asked for.
  const AnyTensor& input(std::size_t k) {
    if (!inputs_[k]) inputs_[k] = read(k);
    return *inputs_[k];
  }

  /// A file given takes precedence, as a caller's input does over an initializer.
  AnyTensor read(std::size_t k) const {
    const onnx::Value& value = norm_.inputs[k];
    if (arguments_.inputs[k]) return read_tensor(*arguments_.inputs[k], declared_type(value));
    if (value.tensor == nullptr) {
      throw UsageError(before_ + std::string(onnx::input_names[k]) + " is " + origin_of(value) + "; " + input_options[k] +
                       " gives it");
    }
    return model_.named([&] { return decode(*value.tensor); });
  }

  /// What is known with the files that the command line gives in place of what the model holds.
  KnownInputs known() const {
    std::array<bool, 5> is_replaced{};
    for (std::size_t k = 0; k < is_replaced.size(); ++k) is_replaced[k] = arguments_.inputs[k].has_value();
    KnownInputs known = model_.named([&] { return known_of(norm_, is_replaced); });
    for (std::size_t k = 0; k < known.size(); ++k) {
      if (inputs_[k]) known[k] = {type_of(*inputs_[k]), shape_of(*inputs_[k])};
    }
    return known;
  }

  void check(const KnownInputs& known) const {
    const std::string problem = problem_of(norm_, known);
    if (!problem.empty()) throw UsageError(before_ + problem);
  }

  Operands take_operands() {
    return {std::move(*inputs_[0]), std::move(*inputs_[1]), std::move(*inputs_[2]), std::move(*inputs_[3]),
            std::move(*inputs_[4])};
  }

  const RunArguments& arguments_;
  ModelFile model_;
  std::size_t index_;
  const onnx::BatchNormalization& norm_;
  std::string before_;
  std::array<std::optional<AnyTensor>, 5> inputs_;
};

/// How far the outputs are from those in files, a line each.
std::string compare_all(const std::vector<AnyTensor>& outputs, const std::vector<std::filesystem::path>& expected) {
  if (expected.size() > outputs.size()) {
    throw UsageError("--expect has " + std::to_string(expected.size()) + " files, the node puts out " +
                     std::to_string(outputs.size()) + (outputs.size() == 1 ? " tensor" : " tensors"));
  }
  std::string text;
  for (std::size_t k = 0; k < expected.size(); ++k) {
    text += compare(output_names[k], outputs[k], read_tensor(expected[k], type_of(outputs[k])));
  }
  return text;
}

std::string table_of(const batchnorm::AffineMap& map) {
  std::string text = "y = x * scale' + shift'\nchannel\tscale'\tshift'\n";
  for (std::size_t c = 0; c < map.factor.size(); ++c) {
    text += std::to_string(c) + "\t" + to_string(map.factor[c]) + "\t" + to_string(map.shift[c]) + "\n";
  }
  return text;
}

Tensor<double> tensor_of(std::span<const double> values) {
  Tensor<double> tensor(batchnorm::Shape{static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor.begin());
  return tensor;
}

void add(npy_tool::OutputFolder& out, const std::vector<AnyTensor>& outputs, const std::optional<batchnorm::AffineMap>& map) {
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    std::visit([&](const auto& tensor) { out.add(output_names[k], tensor); }, outputs[k]);
  }
  if (map) {
    out.add("folded_scale", tensor_of(map->factor));
    out.add("folded_shift", tensor_of(map->shift));
  }
}

void run(const RunArguments& arguments) {
  const bool has_x = arguments.inputs[0].has_value();
  if (!has_x && !arguments.fold) throw UsageError("--x or --fold is required");
  if (!has_x && !arguments.expected.empty()) throw UsageError("--expect needs --x");
  if (!arguments.fold && !arguments.out && arguments.expected.empty()) {
    throw UsageError("--out, --expect or --fold is required: without them nobody sees a result");
  }
  const batchnorm::CallOptions call = npy_tool::call_options_of_environment();
  Run norm(arguments);
  std::optional<batchnorm::AffineMap> map;
  std::vector<AnyTensor> outputs;
  if (arguments.fold) map = norm.fold();
  if (has_x) outputs = norm.outputs(call);
  const std::string text = compare_all(outputs, arguments.expected) + (map ? table_of(*map) : "");
  std::optional<npy_tool::OutputFolder> out;
  if (arguments.out) add(out.emplace(*arguments.out), outputs, map);
  // Files appear only if the text does.
  std::fputs(text.c_str(), stdout);
  standard_output::flush();
  if (out) out->publish();
}

}  // namespace

void add_run(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "run",
      "Runs a node BatchNormalization by ONNX's convention: momentum weighs the old statistic, the running variance takes the "
      "biased one. Writes Y and, in training, running_mean and running_var, each as NAME.npy. An input that the model holds "
      "need "
      "not be given; one that is given is used. FILE is a .npy file, or a .pb file that holds a TensorProto.");
  const auto arguments = std::make_shared<RunArguments>();
  add_model(command, arguments->model);
  command.add_option("--node", arguments->node, "Which, by name or number as the command list shows them")->type_name("NODE");
  constexpr std::array<const char*, 5> descriptions{"[N, C, ...]", "[C]", "[C]", "[C]: running mean", "[C]: running variance"};
  for (std::size_t k = 0; k < input_options.size(); ++k) {
    command.add_option(input_options[k], arguments->inputs[k], descriptions[k])->type_name("FILE");
  }
  command.add_option("--expect", arguments->expected, "Y, then running_mean and running_var: prints the largest differences")
      ->type_name("FILE")
      ->expected(1, 3);
  command.add_flag("--fold", arguments->fold,
                   "Prints scale' and shift' of each channel: inference with the running statistics given is "
                   "y = x * scale' + shift'. --out writes them as folded_scale.npy and folded_shift.npy");
  command.add_option("--out", arguments->out, "Where the results go; made if it does not exist")->type_name("DIR");
  command.callback([arguments] { run(*arguments); });
}

}  // namespace onnx_tool
