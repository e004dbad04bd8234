// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "temporary_folder.hpp"

namespace support {

/// What a program that ended left behind.
struct ProgramResult {
  int status = -1;  ///< its exit status; 128 + the signal that ended it
  std::string output;
  std::string errors;
};

namespace detail {

inline std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

/// This program's environment without the library's variables, plus `settings` ("NAME=value").
inline std::vector<std::string> environment_with(const std::vector<std::string>& settings) {
  std::vector<std::string> environment = settings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with("BATCHNORM_")) environment.emplace_back(*entry);
  }
  return environment;
}

inline pid_t spawn(std::vector<std::string> command, std::vector<std::string> environment, const TemporaryFolder& streams) {
  const std::string output = streams / "output", errors = streams / "errors";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors.c_str(), O_WRONLY | O_CREAT, 0600);
  pid_t process = 0;
  const int error =
      posix_spawn(&process, command.front().c_str(), &actions, nullptr, pointers(command).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::system_error(error, std::generic_category(), "'" + command.front() + "' cannot be run");
  return process;
}

}  // namespace detail

/// Runs a program (path and arguments) to its end.
inline ProgramResult run_program(const std::vector<std::string>& command, const std::vector<std::string>& settings = {}) {
  const TemporaryFolder streams;
  const pid_t process = detail::spawn(command, detail::environment_with(settings), streams);
  int status = 0;
  if (waitpid(process, &status, 0) != process) throw std::system_error(errno, std::generic_category(), "waitpid");
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_bytes(streams / "output"),
          read_bytes(streams / "errors")};
}

}  // namespace support
