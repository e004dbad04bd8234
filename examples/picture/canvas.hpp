// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "color.hpp"
#include "font.hpp"

namespace picture {

/// Upper left corner of something; x to the right, y down.
struct Point {
  int x = 0;
  int y = 0;
};

/// Width and height in pixels.
struct Size {
  int width = 0;
  int height = 0;
};

/// A picture of RGB pixels to draw on. What lies outside is cut off.
class Canvas {
 public:
  Canvas(Size size, Color background)
      : size_(size), bytes_(3 * static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height)) {
    fill({0, 0}, size, background);
  }

  int width() const noexcept { return size_.width; }
  int height() const noexcept { return size_.height; }

  /// Rows from top to bottom, red, green and blue of each pixel.
  const std::uint8_t* bytes() const noexcept { return bytes_.data(); }

  void fill(Point corner, Size size, Color color) {
    for (int y = 0; y < size.height; ++y) {
      for (int x = 0; x < size.width; ++x) set(corner.x + x, corner.y + y, color);
    }
  }

  /// Draws a line of one pixel around a rectangle, outside of it.
  void frame(Point corner, Size size, Color color) {
    fill({corner.x - 1, corner.y - 1}, {size.width + 2, 1}, color);
    fill({corner.x - 1, corner.y + size.height}, {size.width + 2, 1}, color);
    fill({corner.x - 1, corner.y}, {1, size.height}, color);
    fill({corner.x + size.width, corner.y}, {1, size.height}, color);
  }

  /// Draws values row by row as squares of `scale` pixels.
  template <class T>
  void draw_values(Point corner, int scale, std::span<const T> values, int columns, const ColorMap& map) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const int row = static_cast<int>(i) / columns;
      const int column = static_cast<int>(i) % columns;
      fill({corner.x + column * scale, corner.y + row * scale}, {scale, scale}, map(static_cast<double>(values[i])));
    }
  }

  /// All colours of a map, the lowest on the left.
  void draw_color_bar(Point corner, Size size, const ColorMap& map) {
    for (int x = 0; x < size.width; ++x) {
      fill({corner.x + x, corner.y}, {1, size.height}, along(map.stops, (x + 0.5) / size.width));
    }
  }

  /// Draws a line of text, each dot of the font `scale` pixels wide; capitals are 7 dots high.
  void draw_text(Point corner, int scale, std::string_view text, Color color) {
    for (const char character : text) {
      const Glyph glyph = find_glyph(character);
      for (int row = 0; row < glyph_height; ++row) {
        for (int column = 0; column < glyph.width; ++column) {
          if (!glyph.dot(row, column)) continue;
          fill({corner.x + column * scale, corner.y + row * scale}, {scale, scale}, color);
        }
      }
      corner.x += (glyph.width + glyph_gap) * scale;
    }
  }

  /// As draw_text, with the middle of the text at corner.x.
  void draw_centered_text(Point corner, int scale, std::string_view text, Color color) {
    draw_text({corner.x - text_width(text) * scale / 2, corner.y}, scale, text, color);
  }

 private:
  void set(int x, int y, Color color) {
    if (x < 0 || y < 0 || x >= size_.width || y >= size_.height) return;
    const std::size_t at =
        3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(size_.width) + static_cast<std::size_t>(x));
    bytes_[at] = color.red;
    bytes_[at + 1] = color.green;
    bytes_[at + 2] = color.blue;
  }

  Size size_;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace picture
