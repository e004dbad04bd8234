// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <batchnorm/cuda/call.hpp>

namespace selftest {

/// The machine has not what a launch needs.
class NotHere : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the calls run on: a device, or the emulator in its place.
class Machine {
 public:
  Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  virtual ~Machine() = default;

  /// Device memory aligned to 256 bytes.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* p) noexcept = 0;
  /// Both are done when they return.
  virtual void to_device(void* to, const void* from, std::size_t bytes) = 0;
  virtual void from_device(void* to, const void* from, std::size_t bytes) = 0;

  /// The ways in which it runs a call; the bits must not depend on them.
  virtual std::vector<std::string> ways() const = 0;
  /// Runs what `enqueue` enqueues, and waits for it.
  /// @throws NotHere   the case is left out
  virtual void run(std::size_t way, const std::function<void(batchnorm::cuda::Stream)>& enqueue) = 0;
};

/// Elements of device memory between borders that a call must leave as they are.
template <class V>
class DeviceArray {
 public:
  /// Begins `offset` elements past a border of 16 bytes.
  DeviceArray(Machine& machine, std::size_t size, int offset = 0)
      : machine_(machine),
        before_(border + static_cast<std::size_t>(offset) * sizeof(V)),
        size_(size),
        image_(before_ + size * sizeof(V) + border),
        memory_(machine.allocate(image_.size())) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { machine_.release(memory_); }

  V* data() const { return reinterpret_cast<V*>(static_cast<std::byte*>(memory_) + before_); }
  std::size_t size() const { return size_; }

  void put(const std::vector<V>& values) {
    std::fill(image_.begin(), image_.end(), untouched);
    std::copy_n(reinterpret_cast<const std::byte*>(values.data()), size_ * sizeof(V), image_.data() + before_);
    machine_.to_device(memory_, image_.data(), image_.size());
  }
  void poison() {
    std::fill(image_.begin(), image_.end(), untouched);
    machine_.to_device(memory_, image_.data(), image_.size());
  }
  std::vector<V> get() {
    machine_.from_device(image_.data(), memory_, image_.size());
    std::vector<V> values(size_);
    std::copy_n(image_.data() + before_, size_ * sizeof(V), reinterpret_cast<std::byte*>(values.data()));
    return values;
  }
  /// Of what was read last.
  bool has_intact_borders() const {
    const auto is_untouched = [](std::byte b) { return b == untouched; };
    const auto* end = image_.data() + before_ + size_ * sizeof(V);
    return std::all_of(image_.data(), image_.data() + before_, is_untouched) && std::all_of(end, end + border, is_untouched);
  }

 private:
  static constexpr std::size_t border = 256;
  static constexpr std::byte untouched{0xFF};

  Machine& machine_;
  std::size_t before_, size_;
  std::vector<std::byte> image_;
  void* memory_;
};

}  // namespace selftest
