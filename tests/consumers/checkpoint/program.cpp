// SPDX-License-Identifier: MIT

// A layer on its way through a .npz file.

#include <cstdio>
#include <filesystem>

#include <batchnorm/checkpoint.hpp>

int main() {
  const std::filesystem::path path = std::filesystem::temp_directory_path() / "batchnorm_consumer.npz";
  batchnorm::Parameters<float> layer(64);
  layer.mean[1] = 0.25F;
  batchnorm::save_npz(path, layer, batchnorm::npz::Compression::deflated);
  const auto loaded = batchnorm::load_npz<float>(path, 64);
  std::filesystem::remove(path);
  std::printf("running mean %.4f after the file, %.4f before it\n", loaded.mean[1], layer.mean[1]);
  return loaded.mean[1] == layer.mean[1] ? 0 : 1;
}
