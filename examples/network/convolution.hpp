// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <batchnorm/thread_team.hpp>

#include "weighted.hpp"

namespace network {

/// 3 x 3 neighbours of every pixel, zeros outside the image: x is [N, H, W, inputs], y is [N, H, W, outputs].
///
/// A product of matrices for each image: its patches, [H W, 3 * 3 * inputs], times the weights, [3 * 3 * inputs, outputs].
/// Images are worked on by the library's threads in blocks of a fixed size, and gradients of blocks are added in their order,
/// so that the result does not depend on the number of threads.
template <class T>
class Convolution final : public Weighted<T> {
 public:
  Convolution(std::int64_t inputs, std::int64_t outputs, Bias bias, double deviation, Random& random)
      : Weighted<T>(Shape{side, side, inputs, outputs}, bias, deviation, random) {}

  std::unique_ptr<Layer<T>> clone() const override { return std::make_unique<Convolution>(*this); }

  Shape output_shape(const Shape& x) const override { return {x[0], x[1], x[2], this->outputs()}; }

  void forward(const Tensor<T>& x, Tensor<T>& y, Mode) override {
    prepare_blocks(x.shape());
    for_each_image([&](Block& block, std::int64_t n) {
      gather_patches(image(x, n), block.patches);
      auto y_image = image(y, n);
      y_image.noalias() = block.patches * this->weights_matrix();
      this->add_bias(y_image);
    });
  }

  void backward(const Tensor<T>& x, const Tensor<T>&, const Tensor<T>& dy, Tensor<T>* dx) override {
    prepare_blocks(x.shape());
    for (Block& block : blocks_) block.weights_gradient.setZero(patch_size(), this->outputs());
    for_each_image([&](Block& block, std::int64_t n) {
      gather_patches(image(x, n), block.patches);
      const auto dy_image = image(dy, n);
      block.weights_gradient.noalias() += block.patches.transpose() * dy_image;
      if (dx == nullptr) return;
      block.patches.noalias() = dy_image * this->weights_matrix().transpose();
      scatter_patches(block.patches, image(*dx, n));
    });
    this->weights_gradient().setZero();
    for (const Block& block : blocks_) this->weights_gradient() += block.weights_gradient;
    this->find_bias_gradient(dy);
  }

 private:
  static constexpr std::int64_t side = 3;
  static constexpr std::int64_t images_per_block = 6;

  /// What one task writes.
  struct Block {
    Matrix<T> patches;
    Matrix<T> weights_gradient;
  };

  std::int64_t inputs() const { return this->weights().shape()[2]; }
  std::int64_t patch_size() const { return side * side * inputs(); }

  /// Allocates here, because tasks must not throw.
  void prepare_blocks(const Shape& x) {
    images_ = x[0];
    height_ = x[1];
    width_ = x[2];
    blocks_.resize(static_cast<std::size_t>((images_ + images_per_block - 1) / images_per_block));
    for (Block& block : blocks_) block.patches.resize(height_ * width_, patch_size());
  }

  /// Calls work(block, n) for each image n, several blocks at a time.
  template <class Work>
  void for_each_image(Work work) {
    batchnorm::default_executor().run(static_cast<int>(blocks_.size()), [&](int index) {
      const std::int64_t first = index * images_per_block;
      const std::int64_t end = std::min(first + images_per_block, images_);
      for (std::int64_t n = first; n < end; ++n) work(blocks_[static_cast<std::size_t>(index)], n);
    });
  }

  /// Image n as a row for each pixel.
  template <class Images>
  static auto image(Images& images, std::int64_t n) {
    const std::int64_t pixels = images.shape()[1] * images.shape()[2];
    return by_last_axis(images).middleRows(n * pixels, pixels);
  }

  /// Calls copy(pixel, at, neighbour, values): `values` values of a patch, from `at` on, are those from pixel `neighbour` on,
  /// because the neighbours in a row lie next to each other. What no call covers lies outside the image.
  template <class Copy>
  void for_each_run(Copy copy) const {
    for (std::int64_t row = 0; row < height_; ++row) {
      for (std::int64_t k = 0; k < side; ++k) {  // the patch's row k is the image's row + k - 1
        if (row + k < 1 || row + k > height_) continue;
        for (std::int64_t column = 0; column < width_; ++column) {
          const std::int64_t first = std::max(column - 1, std::int64_t{0});
          const std::int64_t last = std::min(column + 1, width_ - 1);
          copy(row * width_ + column, (k * side + first - (column - 1)) * inputs(), (row + k - 1) * width_ + first,
               (last - first + 1) * inputs());
        }
      }
    }
  }

  template <class Image>
  void gather_patches(const Image& from, Matrix<T>& patches) const {
    patches.setZero();
    for_each_run([&](std::int64_t pixel, std::int64_t at, std::int64_t neighbour, std::int64_t values) {
      std::copy_n(from.data() + neighbour * inputs(), values, patches.data() + pixel * patch_size() + at);
    });
  }

  /// The transpose of gather_patches().
  template <class Image>
  void scatter_patches(const Matrix<T>& patches, Image&& to) const {
    to.setZero();
    for_each_run([&](std::int64_t pixel, std::int64_t at, std::int64_t neighbour, std::int64_t values) {
      const T* const from = patches.data() + pixel * patch_size() + at;
      T* const sum = to.data() + neighbour * inputs();
      for (std::int64_t i = 0; i < values; ++i) sum[i] += from[i];
    });
  }

  std::int64_t images_ = 0;
  std::int64_t height_ = 0;
  std::int64_t width_ = 0;
  std::vector<Block> blocks_;
};

}  // namespace network
