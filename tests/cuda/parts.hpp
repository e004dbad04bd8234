// SPDX-License-Identifier: MIT
#pragma once

#include <numeric>

#include "virtual_ranks.hpp"

// One batch in parts, each on a device of its own.
namespace support {

/// Images of each rank.
using Parts = std::vector<std::int64_t>;

/// Of 17 images: even and uneven, with ranks that have none, at the front, in between and at the end.
inline const Parts some_parts[] = {{17}, {12, 5}, {0, 16, 1}, {5, 0, 9, 3}, {1, 0, 3, 0, 9, 4, 0}};

inline std::string images_of(const Parts& parts) {
  std::string text;
  for (const std::int64_t n : parts) text += (text.empty() ? "images " : ", ") + std::to_string(n);
  return text;
}

/// Elements [first, first + count) of images.
template <class T>
std::vector<T> images(const std::vector<T>& all, const Shape& shape, std::int64_t first, std::int64_t count) {
  const std::int64_t size = static_cast<std::int64_t>(all.size()) / std::max<std::int64_t>(shape[0], 1);
  return {all.begin() + first * size, all.begin() + (first + count) * size};
}
inline Shape with_images(const Shape& shape, std::int64_t count) {
  std::vector<std::int64_t> extents{count};
  for (int axis = 1; axis < shape.rank(); ++axis) extents.push_back(shape[axis]);
  return Shape(extents);
}
inline std::int64_t first_image(const Parts& parts, std::size_t rank) {
  return std::accumulate(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(rank), std::int64_t{0});
}

template <class T, class P>
Call<T, P> part_of(const Call<T, P>& call, const Parts& parts, std::size_t rank) {
  Call<T, P> part = call;
  part.shape = with_images(call.shape, parts[rank]);
  part.x = images(call.x, call.shape, first_image(parts, rank), parts[rank]);
  return part;
}
template <class T, class P>
GradientCall<T, P> part_of(const GradientCall<T, P>& call, const Parts& parts, std::size_t rank) {
  GradientCall<T, P> part = call;
  part.shape = with_images(call.shape, parts[rank]);
  part.x = images(call.x, call.shape, first_image(parts, rank), parts[rank]);
  part.dy = images(call.dy, call.shape, first_image(parts, rank), parts[rank]);
  return part;
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

/// The call in parts. The results of all ranks together: y in rank order, and what is the same for all.
template <class T>
DeviceResult<T> run_in_parts(const Call<T, batchnorm::parameter_t<T>>& call, const Parts& parts,
                             const DeviceOffsets& offsets = {}) {
  std::vector<DeviceResult<T>> results(parts.size());
  VirtualRanks(parts.size()).run([&](const VirtualRanks::Rank& rank) {
    const auto own = static_cast<std::size_t>(rank.rank());
    results[own] = run_on_device<T>(part_of(call, parts, own), batchnorm::Identity{}, false, offsets, rank);
  });
  DeviceResult<T> all = results.front();
  for (std::size_t r = 1; r < parts.size(); ++r) {
    const DeviceResult<T>& other = results[r];
    append(all.y, other.y);
    EXPECT_TRUE(same_bits(other.batch_mean, all.batch_mean) && same_bits(other.batch_variance, all.batch_variance)) << r;
    EXPECT_TRUE(same_bits(other.mean, all.mean) && same_bits(other.variance, all.variance)) << r;
    EXPECT_TRUE(same_bits(other.reserve_space_1, all.batch_mean) && same_bits(other.reserve_space_2, all.batch_variance)) << r;
  }
  return all;
}
template <class T>
GradientResult<T, batchnorm::parameter_t<T>> run_in_parts(const GradientCall<T, batchnorm::parameter_t<T>>& call,
                                                          const Parts& parts, const DeviceOffsets& offsets = {}) {
  std::vector<GradientResult<T, batchnorm::parameter_t<T>>> results(parts.size());
  VirtualRanks(parts.size()).run([&](const VirtualRanks::Rank& rank) {
    const auto own = static_cast<std::size_t>(rank.rank());
    results[own] = run_on_device<T>(part_of(call, parts, own), batchnorm::Identity{}, offsets, nullptr, rank);
  });
  auto all = results.front();
  for (std::size_t r = 1; r < parts.size(); ++r) {
    append(all.dx, results[r].dx);
    EXPECT_TRUE(same_bits(results[r].dscale, all.dscale) && same_bits(results[r].dbias, all.dbias)) << r;
  }
  return all;
}

}  // namespace support
