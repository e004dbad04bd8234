// SPDX-License-Identifier: MIT
#include <cstdio>
#include <memory>

#include "commands.hpp"
#include "description.hpp"
#include "model_file.hpp"
#include "npy_tool/command_line.hpp"

namespace onnx_tool {

void add_list(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "list",
      "Lists the nodes BatchNormalization of a model, those in branches, loops and functions too: their numbers and names, "
      "attributes, and where their inputs come from.");
  const auto path = std::make_shared<std::filesystem::path>();
  add_model(command, *path);
  command.callback([path] {
    const ModelFile model(*path);
    const std::string text = model.named([&] { return describe(model.norms()); });
    std::fputs(text.c_str(), stdout);
  });
}

}  // namespace onnx_tool
