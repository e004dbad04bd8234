// SPDX-License-Identifier: MIT
#pragma once

// The calls of the system that give a file another name, made to fail. Link failing_system_calls.cpp into the program.
namespace support {

/// While the object lives, call number `countdown` (from 1) of rename() and link() fails with `error`, and with all_links each
/// link() does, as on a file system that has none.
class FailingRename {
 public:
  FailingRename(long countdown, int error, bool all_links = false) noexcept;
  FailingRename(const FailingRename&) = delete;
  FailingRename& operator=(const FailingRename&) = delete;
  ~FailingRename();

  static bool has_failed() noexcept;
};

}  // namespace support
