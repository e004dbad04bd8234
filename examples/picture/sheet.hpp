// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "canvas.hpp"

namespace picture {

/// What stands beside a band of pictures: the first line is its title.
using Lines = std::vector<std::string>;

/// The colours of a band or of a map, and what is written at the low end, the middle and the high end of its bar.
struct Legend {
  ColorMap map;
  std::string low;
  std::string middle;
  std::string high;
};

/// Rows of small square pictures that share one legend, as many in a row as the sheet has headings.
struct Band {
  Lines text;
  Legend legend;
  std::vector<std::span<const float>> tiles;
};

/// A larger picture with a legend of its own.
struct Map {
  std::string title;
  Legend legend;
  std::span<const float> values;
};

/// A page: title, column headings, bands of pictures with their text on the left, and a last band of larger pictures.
struct Sheet {
  std::string title;
  std::string subtitle;
  int side = 0;  ///< rows and columns of every picture
  std::vector<std::string_view> headings;
  std::vector<Band> bands;
  Lines maps_text;
  std::vector<Map> maps;
};

namespace detail {

inline constexpr Color paper{250, 249, 246};
inline constexpr Color ink{38, 40, 46};
inline constexpr Color faint_ink{112, 114, 120};

inline constexpr Color frame_ink{196, 196, 194};

inline constexpr int text_scale = 2;
inline constexpr int title_scale = 4;
inline constexpr int tile_scale = 4;
inline constexpr int map_scale = 8;

inline constexpr int margin = 44;
inline constexpr int text_column = 300;
inline constexpr int line_height = 26;
inline constexpr int tile_gap = 8;
inline constexpr int band_gap = 36;
inline constexpr int header_height = 132;  ///< title, subtitle and headings
inline constexpr Size bar{200, 14};
inline constexpr int bar_labels_height = 20;

/// Positions and sizes that follow from a sheet's contents.
class SheetGeometry {
 public:
  explicit SheetGeometry(const Sheet& sheet)
      : columns_(static_cast<int>(sheet.headings.size())),
        tile_(sheet.side * tile_scale),
        map_(sheet.side * map_scale),
        maps_(static_cast<int>(sheet.maps.size())) {}

  int tile_x(int column) const { return margin + text_column + column * (tile_ + tile_gap); }
  int tile_middle(int column) const { return tile_x(column) + tile_ / 2; }
  int tile_pitch() const { return tile_ + tile_gap; }
  int map_size() const { return map_; }
  int columns() const { return columns_; }

  /// The first map begins where the tiles do, the last ends where they do.
  int map_x(int index) const {
    const int spread = tiles_width() - map_;
    return tile_x(0) + (maps_ > 1 ? index * spread / (maps_ - 1) : 0);
  }
  int band_height(const Band& band) const {
    const int rows = (static_cast<int>(band.tiles.size()) + columns_ - 1) / columns_;
    return rows * tile_pitch() - tile_gap + band_gap;
  }
  Size page(const Sheet& sheet) const {
    int height = margin + header_height;
    for (const Band& band : sheet.bands) height += band_height(band);
    return {tile_x(columns_) - tile_gap + margin,
            height + line_height + map_ + tile_gap + bar.height + bar_labels_height + margin};
  }

 private:
  int tiles_width() const { return columns_ * tile_pitch() - tile_gap; }

  int columns_;
  int tile_;
  int map_;
  int maps_;
};

/// The frame keeps pictures apart from the paper where they are nearly as white.
inline void draw_picture(Canvas& canvas, Point corner, int scale, std::span<const float> values, int side,
                         const ColorMap& map) {
  canvas.frame(corner, {side * scale, side * scale}, frame_ink);
  canvas.draw_values(corner, scale, values, side, map);
}

/// Returns where the next line would begin.
inline Point draw_lines(Canvas& canvas, Point corner, const Lines& lines) {
  for (std::size_t i = 0; i < lines.size(); ++i) {
    canvas.draw_text(corner, text_scale, lines[i], i == 0 ? ink : faint_ink);
    corner.y += line_height;
  }
  return corner;
}

inline void draw_legend(Canvas& canvas, Point corner, Size size, const Legend& legend) {
  canvas.frame(corner, size, frame_ink);
  canvas.draw_color_bar(corner, size, legend.map);
  const int y = corner.y + size.height + 6;
  canvas.draw_text({corner.x, y}, text_scale, legend.low, faint_ink);
  canvas.draw_centered_text({corner.x + size.width / 2, y}, text_scale, legend.middle, faint_ink);
  canvas.draw_text({corner.x + size.width - text_width(legend.high) * text_scale, y}, text_scale, legend.high, faint_ink);
}

inline void draw_header(Canvas& canvas, const SheetGeometry& geometry, const Sheet& sheet) {
  canvas.draw_text({margin, margin}, title_scale, sheet.title, ink);
  canvas.draw_text({margin, margin + 46}, text_scale, sheet.subtitle, faint_ink);
  for (int column = 0; column < geometry.columns(); ++column) {
    const std::string_view heading = sheet.headings[static_cast<std::size_t>(column)];
    canvas.draw_centered_text({geometry.tile_middle(column), margin + header_height - 26}, text_scale, heading, ink);
  }
}

inline void draw_band(Canvas& canvas, const SheetGeometry& geometry, const Sheet& sheet, const Band& band, int y) {
  Point below = draw_lines(canvas, {margin, y}, band.text);
  draw_legend(canvas, {below.x, below.y + 6}, bar, band.legend);
  for (std::size_t i = 0; i < band.tiles.size(); ++i) {
    const int row = static_cast<int>(i) / geometry.columns();
    const int column = static_cast<int>(i) % geometry.columns();
    draw_picture(canvas, {geometry.tile_x(column), y + row * geometry.tile_pitch()}, tile_scale, band.tiles[i], sheet.side,
                 band.legend.map);
  }
}

inline void draw_maps(Canvas& canvas, const SheetGeometry& geometry, const Sheet& sheet, int y) {
  draw_lines(canvas, {margin, y}, sheet.maps_text);
  for (std::size_t i = 0; i < sheet.maps.size(); ++i) {
    const Map& map = sheet.maps[i];
    const int x = geometry.map_x(static_cast<int>(i));
    const int size = geometry.map_size();
    canvas.draw_text({x, y}, text_scale, map.title, ink);
    draw_picture(canvas, {x, y + line_height}, map_scale, map.values, sheet.side, map.legend.map);
    draw_legend(canvas, {x, y + line_height + size + tile_gap}, {size, bar.height}, map.legend);
  }
}

}  // namespace detail

inline Canvas draw(const Sheet& sheet) {
  const detail::SheetGeometry geometry(sheet);
  Canvas canvas(geometry.page(sheet), detail::paper);
  detail::draw_header(canvas, geometry, sheet);
  int y = detail::margin + detail::header_height;
  for (const Band& band : sheet.bands) {
    detail::draw_band(canvas, geometry, sheet, band, y);
    y += geometry.band_height(band);
  }
  detail::draw_maps(canvas, geometry, sheet, y);
  return canvas;
}

}  // namespace picture
