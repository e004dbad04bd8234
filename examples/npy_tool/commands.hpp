// SPDX-License-Identifier: MIT
#pragma once

namespace CLI {
class App;
}

// The commands of batchnorm_npy, each in a file of its own. Each adds its options to the application; its callback reads the
// files, computes, and writes all results or none.
namespace npy_tool {

void add_forward(CLI::App& app);
void add_backward(CLI::App& app);
void add_double_backward(CLI::App& app);

}  // namespace npy_tool
