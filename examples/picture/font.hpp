// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace picture {

inline constexpr int glyph_columns = 5;  ///< of the widest character
inline constexpr int glyph_height = 9;   ///< 7 for a capital, 2 below the line
inline constexpr int glyph_gap = 1;      ///< between two characters

namespace detail {

/// Some characters side by side, drawn with # in cells of glyph_columns, one empty column between two cells.
struct GlyphSheet {
  std::string_view characters;
  std::array<std::string_view, glyph_height> rows;
};

inline constexpr std::array<GlyphSheet, 6> glyph_sheets = {{
    {"ABCDEFGHIJKLMN",
     {" ###  ####   ###  ####  ##### #####  ###  #   # ###     ### #   # #     #   # #   #",
      "#   # #   # #   # #   # #     #     #   # #   #  #       #  #  #  #     ## ## ##  #",
      "#   # #   # #     #   # #     #     #     #   #  #       #  # #   #     # # # ##  #",
      "##### ####  #     #   # ####  ####  #  ## #####  #       #  ##    #     # # # # # #",
      "#   # #   # #     #   # #     #     #   # #   #  #       #  # #   #     #   # #  ##",
      "#   # #   # #   # #   # #     #     #   # #   #  #    #  #  #  #  #     #   # #  ##",
      "#   # ####   ###  ####  ##### #      ###  #   # ###    ##   #   # ##### #   # #   #",
      "                                                                                   ",
      "                                                                                   "}},
    {"OPQRSTUVWXYZab",
     {" ###  ####   ###  ####   #### ##### #   # #   # #   # #   # #   # #####       #    ",
      "#   # #   # #   # #   # #       #   #   # #   # #   # #   # #   #     #       #    ",
      "#   # #   # #   # #   # #       #   #   # #   # #   #  # #   # #     #   ###  #### ",
      "#   # ####  #   # ####   ###    #   #   # #   # # # #   #     #     #       # #   #",
      "#   # #     # # # # #       #   #   #   # #   # # # #  # #    #    #     #### #   #",
      "#   # #     #  #  #  #      #   #   #   #  # #  ## ## #   #   #   #     #   # #   #",
      " ###  #      ## # #   # ####    #    ###    #   #   # #   #   #   #####  #### #### ",
      "                                                                                   ",
      "                                                                                   "}},
    {"cdefghijklmnop",
     {"          #         ##        #     #       #   #     #                            ",
      "          #        #          #                 #     #                            ",
      " ####  ####  ###  ####   #### ####  #       #   #  #  #     ## #  ####   ###  #### ",
      "#     #   # #   #  #    #   # #   # #       #   # #   #     # # # #   # #   # #   #",
      "#     #   # #####  #    #   # #   # #       #   ##    #     # # # #   # #   # #   #",
      "#     #   # #      #    #   # #   # #       #   # #   #     # # # #   # #   # #   #",
      " ####  ####  ####  #     #### #   # #       #   #  #   #    # # # #   #  ###  #### ",
      "                            #               #                                 #    ",
      "                         ###              ##                                  #    "}},
    {"qrstuvwxyz0123",
     {"                   #                                         ###   #     ###   ### ",
      "                   #                                        #   # ##    #   # #   #",
      " #### # ##   #### ####  #   # #   # #   # #   # #   # ##### #  ##  #        #     #",
      "#   # ##    #      #    #   # #   # #   #  # #  #   #    #  # # #  #       #    ## ",
      "#   # #      ###   #    #   # #   # # # #   #   #   #   #   ##  #  #      #       #",
      "#   # #         #  #    #   #  # #  # # #  # #  #   #  #    #   #  #     #    #   #",
      " #### #     ####    ##   ####   #    # #  #   #  #### #####  ###  ###   #####  ### ",
      "    #                                               #                              ",
      "    #                                            ###                               "}},
    {"456789.,:;-+=/",
     {"   #  #####  ###  #####  ###   ###                                                #",
      "  ##  #     #         # #   # #   #                                               #",
      " # #  ####  #        #  #   # #   #             #      #            #            # ",
      "#  #      # ####     #   ###   ####                         ####    #   ####    #  ",
      "#####     # #   #   #   #   #     #                               #####        #   ",
      "   #  #   # #   #   #   #   #     #        #                        #   ####  #    ",
      "   #   ###   ###    #    ###   ###  #      #    #      #            #         #    ",
      "                                          #            #                           ",
      "                                                      #                            "}},
    {"()<>%'*_!?^",
     {"  #   #        #        ##    #                 #      ###    #  ",
      " #     #      #   #     ##  # #     # # #       #     #   #  # # ",
      "#       #    #     #       #         ###        #         # #   #",
      "#       #   #       #     #         #####       #       ##       ",
      "#       #    #       #   #           ###        #       #        ",
      " #     #      #     #   #  ##       # # #                        ",
      "  #   #        #   #       ##                   #       #        ",
      "                  #                       #####                  ",
      "                                                                 "}},
}};

}  // namespace detail

/// One character: its dots, as wide as it needs.
struct Glyph {
  const detail::GlyphSheet* sheet = nullptr;
  std::size_t first_column = 0;
  int width = 3;  // of a space, and of whatever the font does not have

  bool dot(int row, int column) const {
    if (sheet == nullptr) return false;
    return sheet->rows[static_cast<std::size_t>(row)][first_column + static_cast<std::size_t>(column)] == '#';
  }
};

namespace detail {

inline int used_width(const Glyph& cell) {
  for (int column = glyph_columns - 1; column > 0; --column) {
    for (int row = 0; row < glyph_height; ++row) {
      if (cell.dot(row, column)) return column + 1;
    }
  }
  return 1;
}

}  // namespace detail

inline Glyph find_glyph(char character) {
  for (const detail::GlyphSheet& sheet : detail::glyph_sheets) {
    const std::size_t index = sheet.characters.find(character);
    if (index == std::string_view::npos) continue;
    Glyph glyph{&sheet, index * (glyph_columns + glyph_gap)};
    glyph.width = detail::used_width(glyph);
    return glyph;
  }
  return {};
}

/// Width in dots, without a gap at the end.
inline int text_width(std::string_view text) {
  int width = text.empty() ? 0 : -glyph_gap;
  for (const char character : text) width += find_glyph(character).width + glyph_gap;
  return width;
}

}  // namespace picture
