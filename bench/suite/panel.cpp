// SPDX-License-Identifier: MIT
#include "panel.hpp"

#include <stdexcept>

namespace bench {
namespace {

std::vector<Extents> resnet_50() {
  std::vector<Extents> shapes;
  for (const std::int64_t n : {1, 32}) {
    for (const auto& [c, size] :
         {std::pair{64, 112}, {64, 56}, {256, 56}, {128, 28}, {512, 28}, {256, 14}, {1024, 14}, {512, 7}, {2048, 7}}) {
      shapes.push_back({n, c, size, size});
    }
  }
  return shapes;
}

// Large and small planes, in and out of the caches, one image and many, few channels and odd ones, a matrix.
const std::vector<Extents>& quick() {
  static const std::vector<Extents> shapes = {{32, 64, 112, 112}, {32, 256, 56, 56}, {32, 128, 28, 28}, {32, 1024, 14, 14},
                                              {32, 2048, 7, 7},   {1, 64, 112, 112}, {1, 2048, 7, 7},   {4, 8, 640, 1024},
                                              {16, 512},          {65536, 16},       {4, 256, 512}};
  return shapes;
}

// A round shape and then those to compare with it, byte by byte: odd channels, odd planes, one image, one channel, many
// channels.
const std::vector<Extents>& odd() {
  static const std::vector<Extents> shapes = {{32, 16, 56, 56},  {32, 17, 56, 56},  {32, 32, 56, 56},   {32, 33, 56, 56},
                                              {32, 96, 28, 28},  {32, 100, 28, 28}, {32, 256, 28, 28},  {32, 257, 28, 28},
                                              {32, 64, 56, 56},  {32, 64, 57, 57},  {32, 1024, 8, 8},   {32, 1024, 13, 5},
                                              {32, 1024, 7, 7},  {32, 8192, 7, 7},  {32, 64, 112, 112}, {1, 2048, 112, 112},
                                              {32, 1, 896, 896}, {4096, 1024},      {4096, 1023}};
  return shapes;
}

}  // namespace

const std::vector<Network>& networks() {
  static const std::vector<Network> all = {
      {"resnet-50", resnet_50()},
      {"mobilenet-v2", {{32, 32, 112, 112}, {32, 144, 56, 56}, {32, 192, 28, 28}, {32, 576, 14, 14}, {32, 1280, 7, 7}}},
      {"vgg-16", {{8, 64, 224, 224}, {16, 256, 56, 56}, {32, 512, 14, 14}}},
      {"inception-v3", {{16, 64, 147, 147}, {32, 288, 35, 35}, {32, 768, 17, 17}, {32, 2048, 8, 8}}},
      {"densenet-121", {{32, 96, 56, 56}, {32, 544, 14, 14}, {32, 1024, 7, 7}}},
      {"unet-2d", {{2, 64, 388, 388}, {2, 1024, 28, 28}}},
      {"unet-3d", {{1, 32, 64, 128, 128}, {2, 256, 16, 16, 16}}},
      {"segmentation", {{4, 8, 640, 1024}}},
      {"matrix", {{16, 512}, {128, 2048}, {65536, 16}}},
      {"signal", {{4, 256, 512}}},
  };
  return all;
}

std::vector<Extents> panel(const std::string& name) {
  if (name == "quick") return quick();
  if (name == "odd") return odd();
  std::vector<Extents> shapes;
  for (const Network& network : networks()) {
    if (name == network.name || name == "full") shapes.insert(shapes.end(), network.shapes.begin(), network.shapes.end());
  }
  if (!shapes.empty()) return shapes;
  std::string known = "quick, full, odd";
  for (const Network& network : networks()) known.append(", ").append(network.name);
  throw std::invalid_argument("unknown panel '" + name + "', known are " + known);
}

}  // namespace bench
