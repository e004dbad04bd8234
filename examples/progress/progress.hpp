// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include <unistd.h>

namespace progress {

/// One line on the terminal that says how far a loop has come, and vanishes with the object. Written to standard error, and
/// only where that is a terminal: logs and pipes stay free of it.
class Line {
 public:
  Line(std::string label, std::int64_t total) : label_(std::move(label)), total_(total), visible_(isatty(STDERR_FILENO) == 1) {
    update(0);
  }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  ~Line() {
    if (visible_) std::fputs("\r\033[K", stderr);
  }

  void update(std::int64_t done) {
    using namespace std::chrono_literals;
    if (!visible_) return;
    const auto now = Clock::now();
    if (drawn_ && now - last_drawn_ < 40ms) return;  // 25 times a second is as fast as one can read
    last_drawn_ = now;
    drawn_ = true;
    draw(done);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void draw(std::int64_t done) const {
    constexpr std::int64_t width = 32;
    const std::int64_t filled = total_ > 0 ? width * done / total_ : width;
    const std::int64_t percent = total_ > 0 ? 100 * done / total_ : 100;
    const std::string bar =
        std::string(static_cast<std::size_t>(filled), '=') + std::string(static_cast<std::size_t>(width - filled), ' ');
    std::fprintf(stderr, "\r%s [%s] %3d %%\033[K", label_.c_str(), bar.c_str(), static_cast<int>(percent));
    std::fflush(stderr);
  }

  std::string label_;
  std::int64_t total_;
  bool visible_;
  bool drawn_ = false;
  Clock::time_point last_drawn_{};
};

}  // namespace progress
