// SPDX-License-Identifier: MIT

// Batch normalization on .npy files: how any framework can be compared with the library. --help says how to call it.

#include "npy_tool/command_line.hpp"
#include "npy_tool/commands.hpp"

int main(int argc, char** argv) {
  CLI::App app("Batch normalization of NumPy files", "batchnorm_npy");
  npy_tool::set_up(app);
  npy_tool::add_forward(app);
  npy_tool::add_backward(app);
  npy_tool::add_double_backward(app);
  return npy_tool::run(app, argc, argv);
}
