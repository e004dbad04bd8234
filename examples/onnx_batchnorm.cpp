// SPDX-License-Identifier: MIT

// The batch norms of an ONNX model: listed, run, folded. --help says how to call it.

#include "npy_tool/command_line.hpp"
#include "onnx_batchnorm/commands.hpp"

int main(int argc, char** argv) {
  CLI::App app("The BatchNormalization nodes of ONNX models", "onnx_batchnorm");
  npy_tool::set_up(app);
  onnx_tool::add_list(app);
  onnx_tool::add_run(app);
  onnx_tool::add_fold(app);
  return npy_tool::run(app, argc, argv);
}
