// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace picture {

struct Color {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
};

/// From a to b, `part` in [0, 1] of the way.
inline Color mix(Color a, Color b, double part) {
  const auto channel = [part](std::uint8_t from, std::uint8_t to) {
    return static_cast<std::uint8_t>(std::lround(from + part * (to - from)));
  };
  return {channel(a.red, b.red), channel(a.green, b.green), channel(a.blue, b.blue)};
}

/// The colour at `part` of the way along equally spaced stops; beyond the ends, the end's. NaN is the first.
inline Color along(std::span<const Color> stops, double part) {
  const double last = static_cast<double>(stops.size() - 1);
  const double position = part > 0 ? std::min(part, 1.0) * last : 0.0;
  const auto below = std::min(static_cast<std::size_t>(position), stops.size() - 2);
  return mix(stops[below], stops[below + 1], position - static_cast<double>(below));
}

/// Colours values between `low` and `high`.
struct ColorMap {
  std::span<const Color> stops;
  double low = 0;
  double high = 1;

  Color operator()(double value) const { return along(stops, (value - low) / (high - low)); }
};

/// Black to white.
inline constexpr std::array<Color, 2> grey = {{{0, 0, 0}, {255, 255, 255}}};

/// Blue below the middle, nearly white there, red above: equally dark at equal distance, so neither side looks the larger.
inline constexpr std::array<Color, 7> blue_white_red = {
    {{14, 38, 92}, {38, 98, 168}, {140, 186, 220}, {246, 245, 242}, {240, 168, 132}, {196, 66, 58}, {98, 12, 38}}};

}  // namespace picture
