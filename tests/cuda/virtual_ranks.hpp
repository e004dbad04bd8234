// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include <batchnorm/cuda/synchronized.hpp>

#include "device_calls.hpp"

namespace support {

/// The ranks of a communicator in one program: each is a thread, one runs at a time, and gives way where it waits for others.
class VirtualRanks {
 public:
  /// A communicator (batchnorm/cuda/synchronized.hpp), and how a rank makes its calls (device_calls.hpp).
  class Rank {
   public:
    Rank(VirtualRanks& all, std::size_t rank) : all_(&all), rank_(rank) {}

    std::int64_t ranks() const { return static_cast<std::int64_t>(all_->data_.size()); }
    std::int64_t rank() const { return static_cast<std::int64_t>(rank_); }

    void all_gather(double* data, std::size_t doubles, batchnorm::cuda::Stream) const {
      all_->exchange(rank_, data, [&](std::size_t other, const void* its) {
        const std::size_t first = other * doubles;
        if (other != rank_) std::copy_n(static_cast<const double*>(its) + first, doubles, data + first);
      });
    }
    void maximum(std::int64_t* values, std::size_t count) const {
      const std::vector<std::int64_t> own(values, values + count);
      all_->exchange(rank_, own.data(), [&](std::size_t, const void* its) {
        const auto* others = static_cast<const std::int64_t*>(its);
        for (std::size_t k = 0; k < count; ++k) values[k] = std::max(values[k], others[k]);
      });
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

  explicit VirtualRanks(std::size_t count) : data_(count) {}

  /// body(rank) on every rank. The first exception ends the waiting of all and is thrown on.
  template <class Body>
  void run(const Body& body) {
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < data_.size(); ++rank) {
      threads.emplace_back([this, rank, &body] {
        const std::lock_guard lock(running_);
        try {
          body(Rank(*this, rank));
        } catch (...) {
          if (!failure_) failure_ = std::current_exception();
          all_there_.notify_all();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  /// take(other, its data) once all have given theirs, which nobody changes before all have taken.
  template <class Take>
  void exchange(std::size_t rank, const void* data, const Take& take) {
    data_[rank] = data;
    meet();
    for (std::size_t other = 0; other < data_.size(); ++other) take(other, data_[other]);
    meet();
  }
  void meet() {
    const std::int64_t round = round_;
    if (++arrived_ == data_.size()) {
      arrived_ = 0;
      ++round_;
      all_there_.notify_all();
    }
    while (round_ == round && !failure_) all_there_.wait(running_);
    if (failure_) throw std::runtime_error("another rank has failed");
  }

  std::mutex running_;
  std::condition_variable_any all_there_;
  std::vector<const void*> data_;
  std::size_t arrived_ = 0;
  std::int64_t round_ = 0;
  std::exception_ptr failure_;
};

}  // namespace support
