// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include <png.h>

#include "canvas.hpp"

namespace picture {

/// Writes the canvas as a PNG file of 8-bit RGB.
/// @throws std::runtime_error   the file cannot be written; the message names it
inline void write_png(const Canvas& canvas, const std::filesystem::path& path) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(canvas.width());
  image.height = static_cast<png_uint_32>(canvas.height());
  image.format = PNG_FORMAT_RGB;
  const std::string name = path.string();
  if (png_image_write_to_file(&image, name.c_str(), 0, canvas.bytes(), 0, nullptr) == 0) {
    throw std::runtime_error("'" + name + "' cannot be written: " + image.message);
  }
}

}  // namespace picture
