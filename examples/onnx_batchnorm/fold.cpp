// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <batchnorm/npy/file.hpp>

#include "commands.hpp"
#include "folding.hpp"
#include "model_file.hpp"

namespace onnx_tool {
namespace {

struct FoldArguments {
  std::filesystem::path model, out;
  bool overwrites = false;
};

/// The file that a path leads to: a link stays one.
std::filesystem::path target_of(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? path : target;
}

void fold(const FoldArguments& arguments) {
  std::error_code ignored;
  if (!arguments.overwrites && std::filesystem::equivalent(arguments.model, arguments.out, ignored)) {
    throw UsageError("--out '" + arguments.out.string() + "' is the model itself; --overwrite allows that");
  }
  ModelFile model(arguments.model);
  const std::unique_ptr<Folding> folding =
      model.named([&] { return std::make_unique<Folding>(model.model(), model.values(), model.norms()); });
  const std::vector<std::string_view> pieces = folding->result();
  std::uint64_t size = 0;
  for (const std::string_view piece : pieces) size += piece.size();
  if (size > INT32_MAX) {
    throw UsageError("the folded model would have " + std::to_string(size) + " bytes, a protocol buffer has at most " +
                     std::to_string(INT32_MAX));
  }
  batchnorm::npy::StagedFile file(target_of(arguments.out));
  for (const std::string_view piece : pieces) file.write(std::as_bytes(std::span(piece)));
  file.close();
  // The file appears only if the report does.
  std::fputs(folding->report().c_str(), stdout);
  standard_output::flush();
  file.publish();
}

}  // namespace

void add_fold(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "fold",
      "Writes the model with its batch norms in inference folded into the nodes Conv, ConvTranspose and Gemm before them, "
      "whose weights and bias the model must hold. Says of each what became of it, and why some were not folded; those stay. "
      "All else in the file stays as it is, byte for byte.");
  const auto arguments = std::make_shared<FoldArguments>();
  add_model(command, arguments->model);
  command.add_option("--out", arguments->out, "Where the folded model goes; an older file of that name is replaced")
      ->type_name("FILE")
      ->required();
  command.add_flag("--overwrite", arguments->overwrites, "FILE may be the model itself");
  command.callback([arguments] { fold(*arguments); });
}

}  // namespace onnx_tool
