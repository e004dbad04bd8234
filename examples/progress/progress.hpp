// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
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
  ~Line() { clear(); }

  /// Makes room for other output; the next update that is due draws the line again.
  void clear() {
    if (visible_) std::fputs("\r\033[K", stderr);
  }

  /// `note` stands after the bar.
  void update(std::int64_t done, std::string_view note = {}) {
    using namespace std::chrono_literals;
    if (!visible_) return;
    const auto now = Clock::now();
    if (drawn_ && now - last_drawn_ < 40ms) return;  // 25 times a second is as fast as one can read
    last_drawn_ = now;
    drawn_ = true;
    draw(done, note);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void draw(std::int64_t done, std::string_view note) const {
    constexpr std::int64_t width = 32;
    const std::int64_t filled = total_ > 0 ? width * done / total_ : width;
    const std::int64_t percent = total_ > 0 ? 100 * done / total_ : 100;
    const std::string bar =
        std::string(static_cast<std::size_t>(filled), '=') + std::string(static_cast<std::size_t>(width - filled), ' ');
    std::string text = "\r" + label_ + " [" + bar + "] " + std::to_string(percent) + " %" + time_left(done);
    if (!note.empty()) text.append(", ").append(note);
    std::fputs((text + "\033[K").c_str(), stderr);
    std::fflush(stderr);
  }

  /// ", 0:42 left"; nothing in the first second, which is too short to tell.
  std::string time_left(std::int64_t done) const {
    const double elapsed = std::chrono::duration<double>(last_drawn_ - start_).count();
    if (elapsed < 1 || done == 0) return {};
    const auto left = static_cast<int>(elapsed * static_cast<double>(total_ - done) / static_cast<double>(done));
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), ", %d:%02d left", left / 60, left % 60);
    return text.data();
  }

  std::string label_;
  std::int64_t total_;
  bool visible_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_drawn_{};
};

}  // namespace progress
