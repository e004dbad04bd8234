// SPDX-License-Identifier: MIT
#include "support/failing_system_calls.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace support {
namespace {

long until_failure = 0;
int failure = 0;
bool links_fail = false, failure_has_happened = false;

bool fails() noexcept {
  if (until_failure == 0 || --until_failure > 0) return false;
  failure_has_happened = true;
  errno = failure;
  return true;
}

}  // namespace

FailingRename::FailingRename(long countdown, int error, bool all_links) noexcept {
  until_failure = countdown;
  failure = error;
  links_fail = all_links;
  failure_has_happened = false;
}
FailingRename::~FailingRename() {
  until_failure = 0;
  links_fail = false;
}
bool FailingRename::has_failed() noexcept { return failure_has_happened; }

}  // namespace support

// They stand before those of the C library.
extern "C" int rename(const char* from, const char* to) noexcept {
  if (support::fails()) return -1;
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

extern "C" int link(const char* from, const char* to) noexcept {
  if (support::links_fail) {
    errno = EPERM;
    return -1;
  }
  if (support::fails()) return -1;
  return static_cast<int>(syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}
