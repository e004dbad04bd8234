// SPDX-License-Identifier: MIT
#pragma once

// The memory of an argument, and whether two arguments share any.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include <batchnorm/call/step_sums.hpp>
#include <batchnorm/tensor.hpp>
#include <batchnorm/vector/config.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

enum class Role { input, output };

/// Whether an output may stand in place of a tensor that is read.
enum class Replaceable { no, yes };

inline std::uintptr_t address(const volatile void* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

/// Whether the elements of a tensor that is not empty lie so far apart that arithmetic with their distances, in bytes, might
/// overflow, or beyond either end of the address space.
template <class T>
bool reaches_beyond_memory(const TensorView<T>& view) noexcept {
  std::uint64_t before = 0, after = sizeof(T), reach = 0;
  bool overflows = false;
  for (int axis = 0; axis < view.shape().rank(); ++axis) {
    if (view.shape()[axis] == 1) continue;
    const std::int64_t stride = view.strides()[static_cast<std::size_t>(axis)];
    std::uint64_t length = stride < 0 ? 0 - static_cast<std::uint64_t>(stride) : static_cast<std::uint64_t>(stride);
    overflows = __builtin_mul_overflow(length, sizeof(T), &length) || overflows;
    std::uint64_t& side = stride < 0 ? before : after;
    side += length * (static_cast<std::uint64_t>(view.shape()[axis]) - 1);  // no more than what `reach` grows by
    overflows = __builtin_mul_overflow(length, static_cast<std::uint64_t>(view.shape()[axis]), &length) || overflows;
    overflows = __builtin_add_overflow(reach, length, &reach) || overflows;
  }
  const std::uint64_t first = address(view.data());
  return overflows || reach > std::uint64_t{1} << 61 || first < before || first + after < first;
}

/// The bytes of an argument: `span` of them from its lowest one on, or those of a tensor's elements among them. What an array
/// of regions does not hold yet is not initialised.
class Region {
 public:
  Region() noexcept {}
  Region(std::string_view name, Role role, const void* data, std::int64_t bytes) noexcept
      : name_(name),
        role_(role),
        replaceable_(Replaceable::no),
        begin_(address(data)),
        span_(bytes),
        element_(bytes),
        axes_(0) {}

  /// A tensor that is not empty and does not reach beyond memory.
  template <class T>
  Region(std::string_view name, Role role, const TensorView<T>& view, Replaceable replaceable) noexcept
      : Region(name, role, view.data(), sizeof(T)) {
    replaceable_ = replaceable;
    is_tensor_ = true;
    for (int i = 0; i < view.shape().rank(); ++i) {
      if (view.shape()[i] == 1) continue;
      const std::int64_t stride = view.strides()[static_cast<std::size_t>(i)] * element_;
      const std::int64_t length = (view.shape()[i] - 1) * stride;
      if (length < 0) begin_ -= static_cast<std::uintptr_t>(-length);  // it runs backwards
      span_ += length < 0 ? -length : length;
      axis_[axes_++] = {view.shape()[i], stride};
    }
  }

  std::string_view name() const noexcept { return name_; }
  bool is_output() const noexcept { return role_ == Role::output; }
  bool is_tensor() const noexcept { return is_tensor_; }

  /// Whether the strides put several elements in one place: each must reach over what those below it span.
  bool overlaps_itself() const noexcept {
    for (const Axis& axis : axes()) {
      std::int64_t below = element_;
      for (const Axis& other : axes()) {
        const bool is_below = other.distance() < axis.distance() || (other.distance() == axis.distance() && &other < &axis);
        if (is_below) below += (other.extent - 1) * other.distance();
      }
      if (axis.distance() < below) return true;
    }
    return false;
  }

  /// Whether this output may be written beside another argument: the two share nothing, or it stands in place of a
  /// replaceable one with the same strides.
  bool may_be_beside(const Region& other) const noexcept {
    if (is_outside(other)) return true;
    return (other.replaceable_ == Replaceable::yes && coincides(other)) || shares_nothing(other);
  }

  /// Whether the two share no byte. Exact, and the same for both, but for strides that hardly occur: those it may refuse.
  bool is_disjoint(const Region& other) const noexcept { return is_outside(other) || shares_nothing(other); }

  /// Whether this is a tensor with the same elements in the same places.
  bool coincides(const Region& other) const noexcept {
    return is_tensor_ && begin_ == other.begin_ && std::ranges::equal(axes(), other.axes());
  }

 private:
  /// Extent, not 1, and stride in bytes.
  struct Axis {
    std::int64_t extent, stride;

    std::int64_t distance() const noexcept { return stride < 0 ? -stride : stride; }
    friend bool operator==(const Axis&, const Axis&) = default;
  };

  /// Whether one ends before the other begins.
  bool is_outside(const Region& other) const noexcept { return end() <= other.begin_ || other.end() <= begin_; }

  /// is_disjoint() where neither does.
  bool shares_nothing(const Region& other) const noexcept {
    StepSums distances;  // from the other's runs of bytes to this one's, counted from the lowest of each
    const std::int64_t run = add_runs(distances, true), run_of_other = other.add_runs(distances, false);
    const auto apart = static_cast<std::int64_t>(other.begin_ - begin_);
    return !distances.may_be_within(apart - run + 1, apart + run_of_other - 1);
  }

  std::span<const Axis> axes() const noexcept { return std::span(axis_).first(axes_); }

  std::uintptr_t end() const noexcept { return begin_ + static_cast<std::uintptr_t>(span_); }

  /// Adds the distances of the runs of bytes from the lowest one, or their opposites, and returns a run's length: neighbours
  /// that touch make one run.
  std::int64_t add_runs(StepSums& distances, bool is_ahead) const noexcept {
    std::int64_t run = element_;
    std::array<bool, 5> is_within_run{};
    for (bool grows = true; grows;) {
      grows = false;
      for (std::size_t i = 0; i < axes_; ++i) {
        if (is_within_run[i] || axis_[i].distance() > run) continue;
        run += (axis_[i].extent - 1) * axis_[i].distance();
        is_within_run[i] = grows = true;
      }
    }
    for (std::size_t i = 0; i < axes_; ++i) {
      const std::int64_t most = axis_[i].extent - 1;
      if (!is_within_run[i]) distances.add(axis_[i].distance(), is_ahead ? 0 : -most, is_ahead ? most : 0);
    }
    return run;
  }

  std::string_view name_;
  Role role_;
  Replaceable replaceable_;
  bool is_tensor_ = false;
  std::uintptr_t begin_;
  std::int64_t span_;
  std::int64_t element_;  // bytes
  std::size_t axes_;
  std::array<Axis, 5> axis_;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
