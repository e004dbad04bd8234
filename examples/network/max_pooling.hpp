// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "layer.hpp"

namespace network {

/// The largest of 2 x 2 neighbours: x is [N, H, W, C], y is [N, H / 2, W / 2, C]. A last odd row or column is left out.
template <class T>
class MaxPooling final : public Layer<T> {
 public:
  std::unique_ptr<Layer<T>> clone() const override { return std::make_unique<MaxPooling>(*this); }

  Shape output_shape(const Shape& x) const override { return {x[0], x[1] / 2, x[2] / 2, x[3]}; }

  void forward(const Tensor<T>& x, Tensor<T>& y, Mode) override {
    const std::int64_t channels = x.shape()[3];
    for_each_window(x.shape(), [&](const std::array<std::int64_t, 4>& from, std::int64_t to) {
      const T* const a = x.data() + from[0];
      const T* const b = x.data() + from[1];
      const T* const c = x.data() + from[2];
      const T* const d = x.data() + from[3];
      T* const largest = y.data() + to;
      for (std::int64_t i = 0; i < channels; ++i) largest[i] = std::max(std::max(a[i], b[i]), std::max(c[i], d[i]));
    });
  }

  /// dy goes to the first of the neighbours that is the largest.
  void backward(const Tensor<T>& x, const Tensor<T>& y, const Tensor<T>& dy, Tensor<T>* dx) override {
    if (dx == nullptr) return;
    const std::int64_t channels = x.shape()[3];
    std::vector<T> left(static_cast<std::size_t>(channels));
    std::fill(dx->begin(), dx->end(), T(0));
    for_each_window(x.shape(), [&](const std::array<std::int64_t, 4>& from, std::int64_t to) {
      std::copy_n(dy.data() + to, channels, left.data());
      for (const std::int64_t neighbour : from) {
        hand_over(channels, x.data() + neighbour, y.data() + to, left.data(), dx->data() + neighbour);
      }
    });
  }

 private:
  /// Where x is the largest, dx takes what of the gradient is left. (No two of them overlap: the loop can run on vectors.)
  static void hand_over(std::int64_t channels, const T* __restrict x, const T* __restrict largest, T* __restrict left,
                        T* __restrict dx) {
    for (std::int64_t i = 0; i < channels; ++i) {
      const bool takes = x[i] == largest[i];
      dx[i] = takes ? left[i] : T(0);
      left[i] = takes ? T(0) : left[i];
    }
  }

  /// Calls visit(from, to): where the four neighbours and the result begin.
  template <class Visit>
  static void for_each_window(const Shape& x, Visit visit) {
    const std::int64_t height = x[1], width = x[2], channels = x[3];
    std::int64_t to = 0;
    for (std::int64_t n = 0; n < x[0]; ++n) {
      for (std::int64_t row = 0; row + 1 < height; row += 2) {
        for (std::int64_t column = 0; column + 1 < width; column += 2, to += channels) {
          const std::int64_t above = ((n * height + row) * width + column) * channels;
          const std::int64_t below = above + width * channels;
          visit({above, above + channels, below, below + channels}, to);
        }
      }
    }
  }
};

}  // namespace network
