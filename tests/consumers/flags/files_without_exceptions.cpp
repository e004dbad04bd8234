// SPDX-License-Identifier: MIT
// Compiled with -fno-exceptions -fno-rtti: an error in a file is a value where the call is asked for one, otherwise it calls the
// handler, which does not return.
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include <batchnorm/checkpoint.hpp>

namespace {

using namespace batchnorm;

std::jmp_buf back;
std::string said;

[[noreturn]] void remember(const char* message) {
  said = message;
  std::longjmp(back, 1);
}

void expect(const std::string& got, const std::string& expected) {
  if (got == expected) return;
  std::printf("'%s', expected '%s'\n", got.c_str(), expected.c_str());
  std::exit(1);
}

std::string text(const std::optional<Error>& error) { return error ? error->message : ""; }

}  // namespace

int main(int, char** arguments) {
  const std::string path = std::string(arguments[0]) + ".npz", missing = path + "-missing";
  std::optional<Error> error;
  Parameters<float> layer(3);
  layer.mean[1] = 5;
  for (const auto compression : {npz::Compression::stored, npz::Compression::deflated}) {
    save_npz(path, layer, compression, &error);
    expect(text(error), "");
    const auto read = load_npz<float>(path, {.error = &error});
    expect(text(error), "");
    if (read.mean[1] != 5) return 1;
  }
  const auto other = load_npz<float>(path, {.channels = 4, .error = &error});
  expect(text(error), "'" + path + "': array 'scale': its shape is (3,), expected is (4,)");
  if (other.channels() != 0) return 1;
  load_npy_folder<float>(missing, {.error = &error});
  expect(text(error), "'" + missing + "/scale.npy': there is no such file");
  save_npy_folder(missing, layer, &error);
  expect(text(error), "'" + missing + "/scale.npy': it cannot be written: No such file or directory");
  layer.batches = -1;
  save_npz(missing, layer, {}, &error);
  expect(text(error), "batchnorm::Parameters: batches is -1, it must not be negative");
  if (std::filesystem::exists(missing)) return 1;

  set_error_handler(remember);
  if (setjmp(back) == 0) {
    load_npz<float>(missing);
    return 1;
  }
  expect(said, "'" + missing + "': there is no such file");
  std::filesystem::remove(path);
}
