// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "idx.hpp"

namespace fashion_mnist {

/// Where Debian's package puts the files.
inline constexpr std::string_view default_directory = "/usr/share/datasets/fashion-mnist";
inline constexpr std::string_view debian_package = "dataset-fashion-mnist";

inline constexpr std::int64_t image_side = 28;
inline constexpr std::array<std::string_view, 10> class_names = {"T-shirt", "Trouser", "Pullover", "Dress", "Coat",
                                                                 "Sandal",  "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

/// Images and, for each, its class: an index into class_names.
struct Examples {
  Images images;
  std::vector<std::uint8_t> labels;
};

enum class Split { training, test };

/// Reads one half of the data set: 60,000 images for training or 10,000 for the test, but any other number (not 0) as well.
/// @throws DataError   a file is missing or malformed, or the files do not fit each other
inline Examples read_examples(const std::filesystem::path& directory, Split split) {
  const std::string prefix = split == Split::training ? "train" : "t10k";
  const std::filesystem::path images_path = directory / (prefix + "-images-idx3-ubyte.gz");
  const std::filesystem::path labels_path = directory / (prefix + "-labels-idx1-ubyte.gz");
  Examples examples{read_images(images_path), read_labels(labels_path)};
  const Images& images = examples.images;
  if (images.rows != image_side || images.columns != image_side) {
    throw DataError("'" + images_path.string() + "': the images have " + std::to_string(images.rows) + " x " +
                    std::to_string(images.columns) + " pixels, those of Fashion-MNIST have 28 x 28");
  }
  if (images.count == 0) throw DataError("'" + images_path.string() + "': holds no images");
  if (examples.labels.size() != static_cast<std::size_t>(images.count)) {
    throw DataError("'" + labels_path.string() + "': holds " + std::to_string(examples.labels.size()) + " labels for " +
                    std::to_string(images.count) + " images");
  }
  const std::uint8_t highest = *std::ranges::max_element(examples.labels);
  if (highest >= class_names.size()) {
    throw DataError("'" + labels_path.string() + "': has a label " + std::to_string(highest) + ", the classes are 0 to 9");
  }
  return examples;
}

/// The pixels of `count` images from `first` on, as numbers from 0 (black) to 1 (white).
inline void copy_as_float(const Images& images, std::int64_t first, std::int64_t count, float* to) {
  const std::int64_t size = images.pixels_per_image();
  const auto pixels =
      std::span(images.pixels).subspan(static_cast<std::size_t>(first * size), static_cast<std::size_t>(count * size));
  std::ranges::transform(pixels, to, [](std::uint8_t pixel) { return static_cast<float>(pixel) / 255.0F; });
}

}  // namespace fashion_mnist
