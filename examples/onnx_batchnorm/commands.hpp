// SPDX-License-Identifier: MIT
#pragma once

namespace CLI {
class App;
}

// The commands of onnx_batchnorm. Each adds its options to the application; its callback does the work, all of it or none.
namespace onnx_tool {

void add_list(CLI::App& app);
void add_fold(CLI::App& app);
void add_run(CLI::App& app);

}  // namespace onnx_tool
