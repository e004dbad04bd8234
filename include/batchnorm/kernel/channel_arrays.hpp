// SPDX-License-Identifier: MIT
#pragma once

// Arrays over channels: what walks keep in scratch memory, and what they hand to those who asked for sums.

#include <algorithm>
#include <concepts>
#include <memory>
#include <type_traits>

#include <batchnorm/kernel/arguments.hpp>
#include <batchnorm/kernel/scratch.hpp>
#include <batchnorm/plan/partition.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Scratch arrays of doubles over channels are this much longer than the channels, so that loops need no tail.
inline constexpr std::int64_t channel_padding = 16;

/// Doubles over `channels` channels, with room for the vectors of any kernel.
constexpr std::int64_t padded(std::int64_t channels) noexcept { return detail::ceiling(channels, 8) * 8 + channel_padding; }

/// Arrays over channels, `stride` doubles apart.
struct ChannelArrays {
  double* first = nullptr;
  std::int64_t stride = 0;

  double* operator[](int k) const noexcept { return first + k * stride; }
  ChannelArrays at(std::int64_t c) const noexcept { return {first + c, stride}; }

  /// Zeros after the last channel of each array: kernels read whole pairs of vectors.
  void clear_padding(std::int64_t channels, int arrays) const noexcept {
    for (int k = 0; k < arrays; ++k) std::fill_n((*this)[k] + channels, stride - channels, 0.0);
  }
};

/// `count` numbers as doubles, followed by zeros up to `room` of them.
template <Element P>
void widen(const P* from, std::int64_t count, double* to, std::int64_t room) noexcept {
  std::int64_t i = 0;
  if constexpr (std::same_as<P, float>) {
    using D = vec<double, 16>;
    for (; i + 4 <= count; i += 4) {
      D low, high;
      load_pair(low, high, from + i);
      low.store(to + i);
      high.store(to + i + 2);
    }
  }
  for (; i < count; ++i) to[i] = widened(from[i]);
  std::fill(to + count, to + room, 0.0);
}

/// ChannelArrays as a part of the scratch memory.
struct ChannelScratch {
  Scratch::Part<double> doubles;
  std::int64_t stride = 0;

  static ChannelScratch reserve(Scratch& scratch, std::int64_t channels, int arrays) noexcept {
    return {scratch.reserve<double>(padded(channels) * arrays), padded(channels)};
  }
  ChannelArrays in(const Scratch& scratch) const noexcept { return {scratch[doubles], stride}; }
};

/// A reference to a callable, which outlives it. Walks take callbacks in this form, so that a program compiles them once.
template <class... Args>
class Callback {
 public:
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, Callback>)
  Callback(const F& callable)
  noexcept
      : callable_(std::addressof(callable)),
        call_([](const void* object, Args... args) { (*static_cast<const F*>(object))(args...); }) {}

  void operator()(Args... args) const { call_(callable_, args...); }

 private:
  const void* callable_;
  void (*call_)(const void*, Args...);
};

/// (first, channels, state): the sums of channels [first, first + channels) are merged in `state`.
using SumsCallback = Callback<std::int64_t, std::int64_t, const ChannelArrays&>;

/// The same, and where the coefficients that follow from the sums go.
using SumsToCoefficients = Callback<std::int64_t, std::int64_t, const ChannelArrays&, const CoefficientArrays&>;

/// Where the coefficients of all channels go.
using FillCoefficients = Callback<const CoefficientArrays&>;

/// The coefficients of an operation as a part of the scratch memory.
struct CoefficientScratch {
  Scratch::Part<std::byte> values;
  std::int64_t stride = 0;  // bytes from array to array
  int count = 0;

  static CoefficientScratch reserve(Scratch& scratch, std::int64_t positions, int count, std::int64_t compute_bytes) noexcept {
    const std::int64_t stride = padded(positions) * compute_bytes;
    return {scratch.reserve<std::byte>(count * stride), stride, count};
  }
  CoefficientArrays in(const Scratch& scratch) const noexcept {
    CoefficientArrays result{};
    for (int k = 0; k < count; ++k) result[static_cast<std::size_t>(k)] = scratch[values] + k * stride;
    return result;
  }
};

/// The arrays from position p on.
inline CoefficientArrays at(const CoefficientArrays& arrays, std::int64_t p, std::int64_t compute_bytes) noexcept {
  CoefficientArrays result = arrays;
  for (void*& array : result) array = array == nullptr ? array : static_cast<std::byte*>(array) + p * compute_bytes;
  return result;
}

/// Coefficients that outlive calls: of channels, and of positions of planes of `length` values, which repeat after `period`
/// positions, a multiple of what all channels have, and go on for a line after it.
struct PreparedCoefficients {
  CoefficientArrays of_channels{}, of_positions{};
  std::int64_t length = 1, period = 0;
};

/// Positions p in [0, count) get the coefficients of channel p / length mod channels.
template <class Compute>
void expand(const CoefficientArrays& from, int arrays, std::int64_t channels, std::int64_t length, const CoefficientArrays& to,
            std::int64_t count) noexcept {
  for (std::size_t k = 0; k < static_cast<std::size_t>(arrays); ++k) {
    const auto* source = static_cast<const Compute*>(from[k]);
    auto* target = static_cast<Compute*>(to[k]);
    if (length == 1) {
      std::int64_t done = (std::min)(channels, count);
      if (source != target) std::copy_n(source, done, target);
      while (done < count) {
        const std::int64_t some = (std::min)(done, count - done);
        std::copy_n(target, some, target + done);
        done += some;
      }
      continue;
    }
    std::int64_t c = 0;
    for (std::int64_t p = 0; p < count; p += length) {
      std::fill_n(target + p, (std::min)(length, count - p), source[c]);
      c = c + 1 == channels ? 0 : c + 1;
    }
  }
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
