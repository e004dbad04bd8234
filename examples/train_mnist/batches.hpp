// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "../fashion_mnist/dataset.hpp"
#include "../network/layer.hpp"

namespace train_mnist {

using fashion_mnist::Examples;

/// Images as the network takes them, pixels from 0 to 1, and their classes.
template <class T>
struct Batch {
  network::Tensor<T> x;  ///< [N, rows, columns, 1]
  std::vector<std::uint8_t> labels;
};

template <class T>
void load(const Examples& examples, std::span<const std::int64_t> indices, Batch<T>& batch) {
  const fashion_mnist::Images& images = examples.images;
  const auto count = static_cast<std::int64_t>(indices.size());
  network::reshape(batch.x, {count, images.rows, images.columns, 1});
  batch.labels.resize(indices.size());
  const auto size = static_cast<std::size_t>(images.pixels_per_image());
  for (std::size_t n = 0; n < indices.size(); ++n) {
    const auto index = static_cast<std::size_t>(indices[n]);
    const auto pixels = std::span(images.pixels).subspan(index * size, size);
    T* const to = batch.x.data() + n * size;
    std::ranges::transform(pixels, to, [](std::uint8_t pixel) { return static_cast<T>(pixel) / T(255); });
    batch.labels[n] = examples.labels[index];
  }
}

/// All examples in an order that is new in each epoch and depends on the seed alone.
class Shuffled {
 public:
  Shuffled(std::int64_t examples, std::uint64_t seed) : order_(static_cast<std::size_t>(examples)), random_(seed) {
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
  }

  /// The next `size` examples. Those that are left of an epoch and are fewer than that are passed over.
  std::span<const std::int64_t> next(std::int64_t size) {
    const auto wanted = std::min(static_cast<std::size_t>(size), order_.size());
    if (taken_ + wanted > order_.size() || taken_ == 0) {
      std::ranges::shuffle(order_, random_);
      taken_ = 0;
    }
    taken_ += wanted;
    return std::span(order_).subspan(taken_ - wanted, wanted);
  }

 private:
  std::vector<std::int64_t> order_;
  std::size_t taken_ = 0;
  std::mt19937_64 random_;
};

/// Calls visit(batch) for all examples in their own order.
template <class T, class Visit>
void for_each_batch(const Examples& examples, std::int64_t batch_size, Visit visit) {
  Batch<T> batch;
  std::vector<std::int64_t> indices;
  for (std::int64_t first = 0; first < examples.images.count; first += batch_size) {
    indices.resize(static_cast<std::size_t>(std::min(batch_size, examples.images.count - first)));
    std::iota(indices.begin(), indices.end(), first);
    load(examples, indices, batch);
    visit(std::as_const(batch));
  }
}

}  // namespace train_mnist
