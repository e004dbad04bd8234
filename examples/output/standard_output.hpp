// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <system_error>

// What a program prints reaches its reader, or the program says that it does not: a full disk, a closed descriptor and a pipe
// that nobody reads any more show only when a write's result is looked at.
namespace standard_output {

/// What main() does first. A standard descriptor that the caller has closed would be given to the next file that is opened,
/// and text would end up in it: a placeholder that refuses every access takes its place. A broken pipe is an error, no signal.
inline void prepare() {
  std::signal(SIGPIPE, SIG_IGN);
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    if (fcntl(descriptor, F_GETFD) != -1 || errno != EBADF) continue;
    // The lowest free number is that of the closed one. Input is opened for writing, output for reading.
    if (open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY) == -1) return;
  }
}

/// Writes what is left in the buffer.
/// @throws std::runtime_error   something that was printed cannot be written, or could not before
inline void flush() {
  const std::string before = "standard output cannot be written: ";
  if (std::fflush(stdout) != 0) throw std::runtime_error(before + std::generic_category().message(errno));
  if (std::ferror(stdout) != 0) throw std::runtime_error(before + "an earlier part of it was lost");
}

/// The exit status of a program that would end with `status`: `failed`, if it believes to have succeeded and what it printed is
/// lost. Then a line of standard error says so. A program that has failed has said why.
inline int finish(const char* program, int status, int failed = 2) {
  if (status != 0) return status;
  try {
    flush();
    return 0;
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return failed;
  }
}

}  // namespace standard_output
