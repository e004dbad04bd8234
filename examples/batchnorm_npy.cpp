// SPDX-License-Identifier: MIT

// Batch normalization on .npy files: how any framework can be compared with the library. --help says how to call it.

#include <cstdio>
#include <exception>
#include <new>

#include "npy_tool/command_line.hpp"
#include "npy_tool/commands.hpp"

namespace {

int report(const char* message) {
  std::fprintf(stderr, "batchnorm_npy: %s\n", message);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Batch normalization of NumPy files", "batchnorm_npy");
  app.set_help_flag();
  app.set_help_all_flag("-h,--help", "Print this and exit");
  app.footer(
      "BATCHNORM_ISA chooses the instruction set, BATCHNORM_NUM_THREADS the number of threads.\n"
      "Exit status: 0, or 2 after any error; then no file was written.");
  npy_tool::add_forward(app);
  npy_tool::add_backward(app);
  npy_tool::add_double_backward(app);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw npy_tool::UsageError("a command is required; --help lists them");
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const std::bad_alloc&) {
    return report("out of memory");
  } catch (const std::exception& error) {
    return report(error.what());
  }
}
