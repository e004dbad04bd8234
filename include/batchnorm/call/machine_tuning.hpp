// SPDX-License-Identifier: MIT
#pragma once

// The tuning of this machine, with what BATCHNORM_TUNING changes.

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include <batchnorm/detail/numbers.hpp>
#include <batchnorm/errors.hpp>
#include <batchnorm/plan/tuning.hpp>

namespace batchnorm {

namespace detail {

/// A member of Tuning by its name.
struct TuningNumber {
  std::string_view name;
  std::int64_t Tuning::*bytes;
  double Tuning::*share;
};

inline constexpr TuningNumber tuning_numbers[] = {{"l2_bytes", &Tuning::l2_bytes, nullptr},
                                                  {"l3_bytes", &Tuning::l3_bytes, nullptr},
                                                  {"inference_stream_share", nullptr, &Tuning::inference_stream_share},
                                                  {"training_stream_share", nullptr, &Tuning::training_stream_share},
                                                  {"plane_group_bytes", &Tuning::plane_group_bytes, nullptr},
                                                  {"column_group_bytes", &Tuning::column_group_bytes, nullptr},
                                                  {"reverse_block_bytes", &Tuning::reverse_block_bytes, nullptr},
                                                  {"serial_bytes", &Tuning::serial_bytes, nullptr},
                                                  {"sweep_task_bytes", &Tuning::sweep_task_bytes, nullptr}};

/// Reads a whole number from 1 to 2^40, perhaps of K, M or G: false if it is none.
inline bool read_bytes(std::string_view text, std::int64_t& bytes) noexcept {
  constexpr std::string_view units = "KMG";
  const std::size_t unit = text.empty() ? units.npos : units.find(text.back());
  if (unit != units.npos) text.remove_suffix(1);
  std::int64_t number = 0;
  const auto [read, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || read != text.data() + text.size() || number < 1) return false;
  const int shift = unit == units.npos ? 0 : 10 * (static_cast<int>(unit) + 1);
  if (number > std::int64_t{1} << (40 - shift)) return false;
  bytes = number << shift;
  return true;
}

/// Reads a number from 0: false if it is none.
inline bool read_share(std::string_view text, double& share) noexcept {
  double number = 0;
  const auto [read, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || read != text.data() + text.size() || !is_finite_from_0(number)) return false;
  share = number;
  return true;
}

/// Changes what the text "name=value,name=value" names; returns what is wrong with it, or "".
inline std::string apply_tuning(std::string_view text, Tuning& tuning) {
  while (!text.empty()) {
    const std::string_view entry = text.substr(0, text.find(','));
    text.remove_prefix((std::min)(entry.size() + 1, text.size()));
    const std::string_view name = entry.substr(0, entry.find('='));
    const std::string_view value = entry.substr((std::min)(name.size() + 1, entry.size()));
    const auto refused = [&](std::string_view why) {
      return std::string("batchnorm: BATCHNORM_TUNING has '").append(entry).append(why);
    };
    const TuningNumber* found = nullptr;
    for (const TuningNumber& number : tuning_numbers) {
      if (number.name == name) found = &number;
    }
    if (found == nullptr) {
      std::string known;
      for (const TuningNumber& number : tuning_numbers) known.append(known.empty() ? "" : ", ").append(number.name);
      return refused("', known are " + known);
    }
    if (found->bytes != nullptr && !read_bytes(value, tuning.*(found->bytes))) {
      return refused("', it must be a whole number of bytes from 1 to 2^40, perhaps with K, M or G");
    }
    if (found->share != nullptr && !read_share(value, tuning.*(found->share))) {
      return refused("', it must be a number from 0, a share of l3_bytes");
    }
  }
  return {};
}

inline std::string_view tuning_of_environment() noexcept {
  const char* text = std::getenv("BATCHNORM_TUNING");
  return text == nullptr ? "" : text;
}

inline std::atomic<bool> tuning_is_settled{false};

/// The numbers of this machine, and whether BATCHNORM_TUNING has changed some: settled at first need.
struct SettledTuning {
  Tuning tuning = tuning_of(machine_caches());
  bool is_changed = false;

  SettledTuning() {
    const std::string_view text = tuning_of_environment();
    const std::string problem = apply_tuning(text, tuning);
    if (!problem.empty()) fail<ValueError>(problem);
    is_changed = !text.empty();
    tuning_is_settled.store(true, std::memory_order_release);
  }
};

inline const SettledTuning& settled_tuning() {
  static const SettledTuning settled;
  return settled;
}

/// What machine_tuning() would throw, or "".
inline std::string problem_of_tuning() {
  if (tuning_is_settled.load(std::memory_order_acquire)) return {};
  Tuning ignored;
  return apply_tuning(tuning_of_environment(), ignored);
}

}  // namespace detail

/// The numbers of this machine: those of its kind, but for what BATCHNORM_TUNING names when they are first needed,
/// "plane_group_bytes=512K,inference_stream_share=0.05" for example.
/// @throws ValueError   BATCHNORM_TUNING cannot be used
inline const Tuning& machine_tuning() { return detail::settled_tuning().tuning; }

}  // namespace batchnorm
