// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include <batchnorm/cuda/synchronized.hpp>

#include "device_calls.hpp"

namespace support {

/// The ranks of a communicator in one thread. A rank that would wait for others is left by an exception, and starts anew when
/// all have come as far: what it has given before must then be the same, bit by bit.
class VirtualRanks {
  using Bytes = std::vector<std::byte>;

 public:
  /// A communicator (batchnorm/cuda/synchronized.hpp), and how a rank makes its calls (device_calls.hpp).
  class Rank {
   public:
    Rank(VirtualRanks& all, std::size_t rank) : all_(&all), rank_(rank) {}

    std::int64_t ranks() const { return static_cast<std::int64_t>(all_->count_); }
    std::int64_t rank() const { return static_cast<std::int64_t>(rank_); }

    void all_gather(double* data, std::size_t doubles, batchnorm::cuda::Stream) const {
      const std::vector<Bytes>& all = all_->exchange(rank_, std::span(data + rank_ * doubles, doubles));
      for (std::size_t r = 0; r < all.size(); ++r) std::memcpy(data + r * doubles, all[r].data(), all[r].size());
    }
    void maximum(std::int64_t* values, std::size_t count) const {
      for (const Bytes& bytes : all_->exchange(rank_, std::span(values, count))) {
        for (std::size_t k = 0; k < count; ++k) {
          std::int64_t other = 0;
          std::memcpy(&other, bytes.data() + k * sizeof(other), sizeof(other));
          values[k] = std::max(values[k], other);
        }
      }
    }

    template <class T>
    std::size_t workspace_bytes(Format format, const Shape& shape) const {
      return batchnorm::cuda::detail::synchronized_bytes<T>(format, shape, ranks());
    }
    template <class T, class... Arguments>
    void forward(const Arguments&... arguments) const {
      batchnorm::cuda::detail::synchronized_forward<T>(*this, arguments...);
    }
    template <class T, class... Arguments>
    void backward(const Arguments&... arguments) const {
      batchnorm::cuda::detail::synchronized_backward<T>(*this, arguments...);
    }

   private:
    VirtualRanks* all_;
    std::size_t rank_;
  };

  explicit VirtualRanks(std::size_t count) : count_(count) {}

  /// body(rank) on every rank.
  template <class Body>
  void run(const Body& body) {
    exchanges_.clear();
    for (std::size_t waiting = count_; waiting > 0;) {
      waiting = 0;
      for (std::size_t rank = 0; rank < count_; ++rank) {
        next_ = 0;
        try {
          body(Rank(*this, rank));
        } catch (const Waits&) {
          ++waiting;
        }
      }
      if (waiting != 0 && waiting != count_) throw std::runtime_error("some ranks wait for others, which have ended");
    }
  }

 private:
  struct Waits {};

  /// What all ranks give in the exchange that is next for this one.
  template <class V>
  const std::vector<Bytes>& exchange(std::size_t rank, std::span<V> values) {
    const auto bytes = std::as_bytes(values);
    const Bytes own(bytes.begin(), bytes.end());
    const std::size_t number = next_++;
    if (number == exchanges_.size()) exchanges_.emplace_back();
    std::vector<Bytes>& all = exchanges_[number];
    if (all.size() < count_) {
      all.push_back(own);
      throw Waits{};
    }
    if (all[rank] != own) throw std::runtime_error("a rank gives other bits when it starts anew");
    return all;
  }

  std::size_t count_, next_ = 0;
  std::vector<std::vector<Bytes>> exchanges_;
};

}  // namespace support
