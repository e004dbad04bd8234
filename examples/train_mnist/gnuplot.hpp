// SPDX-License-Identifier: MIT
#pragma once

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include <batchnorm/npy/file.hpp>

namespace gnuplot {

/// Writes a file anew, whole or not at all.
/// @throws std::runtime_error   it cannot be written: an older one is as it was; the message names it and says why
inline void write_text(const std::filesystem::path& path, std::string_view text) {
  batchnorm::npy::StagedFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.close();
  file.publish();
}

enum class Outcome { drawn, no_gnuplot };

/// Runs `gnuplot script` in the folder of the script, so that the script names the files beside it without a folder.
/// @throws std::runtime_error   gnuplot is there but fails; what it says goes to standard error
inline Outcome draw(const std::filesystem::path& script) {
  std::string program = "gnuplot";
  std::string name = script.filename().string();
  char* const arguments[] = {program.data(), name.data(), nullptr};
  const std::filesystem::path folder = script.has_parent_path() ? script.parent_path() : ".";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  pid_t process = 0;
  const int error = posix_spawnp(&process, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) return Outcome::no_gnuplot;
  if (error != 0) throw std::runtime_error("gnuplot cannot be run: " + std::string(std::strerror(error)));
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw std::runtime_error("gnuplot fails on '" + script.string() +
                             "'; it needs the terminal pngcairo (in Debian: gnuplot-nox)");
  }
  return Outcome::drawn;
}

}  // namespace gnuplot
