// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "support/layouts.hpp"

// The memory of the arguments of one call, between pages that nobody may touch, and what the call did to it.
namespace fuzz {

using namespace support;
using batchnorm::TensorView;

/// What the fuzzer looks for.
class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw Failure(otherwise);
}

/// Which end of its pages a buffer touches; beyond the other end, canaries fill the page.
enum class Flush { begin, end };

/// `bytes` bytes right after, or right before, a page without access.
class GuardedPages {
 public:
  GuardedPages(std::size_t bytes, Flush flush) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    inner_ = (bytes + page - 1) / page * page;
    mapped_ = inner_ + 2 * page;
    void* const base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(base);
    begin_ = base_ + page;
    if (inner_ > 0 && mprotect(begin_, inner_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    std::memset(begin_, canary, inner_);
    data_ = flush == Flush::begin ? begin_ : begin_ + inner_ - bytes;
  }
  GuardedPages(const GuardedPages&) = delete;
  GuardedPages& operator=(const GuardedPages&) = delete;
  ~GuardedPages() { munmap(base_, mapped_); }

  unsigned char* data() const { return data_; }
  std::span<unsigned char> all() const { return {begin_, inner_}; }

 private:
  static constexpr unsigned char canary = 0xA5;

  unsigned char *base_ = nullptr, *begin_ = nullptr, *data_ = nullptr;
  std::size_t mapped_ = 0, inner_ = 0;
};

/// An argument of some type.
class Argument {
 public:
  Argument(std::string name, bool is_output) : name_(std::move(name)), is_output_(is_output) {}
  virtual ~Argument() = default;

  const std::string& name() const { return name_; }
  bool is_output() const { return is_output_; }
  virtual bool untouched() const = 0;    ///< every byte is as it was
  virtual bool gaps_intact() const = 0;  ///< every byte between and beside its elements is as it was

 private:
  std::string name_;
  bool is_output_;
};

/// A tensor with a layout, its elements at first those of a dense one.
template <class T>
class Placed final : public Argument {
 public:
  Placed(std::string name, bool is_output, const Shape& shape, const Layout& layout, std::span<const T> dense, Flush flush)
      : Argument(std::move(name), is_output),
        shape_(shape),
        layout_(layout),
        pages_(static_cast<std::size_t>(layout.size) * sizeof(T), flush) {
    for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { std::memcpy(at(place), &dense[i], sizeof(T)); });
    before_.assign(pages_.all().begin(), pages_.all().end());
  }

  TensorView<T> view() const { return {reinterpret_cast<T*>(pages_.data()) + layout_.first, shape_, layout_.strides}; }

  std::vector<T> values() const {
    std::vector<T> dense(static_cast<std::size_t>(batchnorm::element_count(shape_)));
    for_each_place(shape_, layout_, [&](std::size_t i, std::size_t place) { std::memcpy(&dense[i], at(place), sizeof(T)); });
    return dense;
  }

  bool untouched() const override { return std::ranges::equal(before_, pages_.all()); }
  bool gaps_intact() const override {
    std::vector<unsigned char> now(pages_.all().begin(), pages_.all().end());
    const auto first = static_cast<std::size_t>(pages_.data() - pages_.all().data());
    for_each_place(shape_, layout_, [&](std::size_t, std::size_t place) {
      std::memcpy(now.data() + first + place * sizeof(T), before_.data() + first + place * sizeof(T), sizeof(T));
    });
    return now == before_;
  }

 private:
  unsigned char* at(std::size_t place) const { return pages_.data() + place * sizeof(T); }

  Shape shape_;
  Layout layout_;
  GuardedPages pages_;
  std::vector<unsigned char> before_;
};

template <class T>
TensorView<T> view(const Placed<T>* placed) {
  return placed == nullptr ? TensorView<T>() : placed->view();
}

template <class T>
std::vector<T> values(const Placed<T>* placed) {
  return placed == nullptr ? std::vector<T>() : placed->values();
}

/// The arguments of one call. Each touches the other end of its pages than the one before.
class Stage {
 public:
  explicit Stage(Flush first) : flush_(first) {}

  template <class T>
  Placed<T>* input(const char* name, const Shape& shape, const Layout& layout, const std::vector<T>& values) {
    return add(name, false, shape, layout, values);
  }
  template <class T>
  Placed<T>* input(const char* name, const std::vector<T>& values) {
    const Shape shape{static_cast<std::int64_t>(values.size())};
    return input(name, shape, dense(shape), values);
  }
  /// Null where there is nothing.
  template <class T>
  Placed<T>* input(const char* name, const std::optional<std::vector<T>>& values) {
    return values ? input(name, *values) : nullptr;
  }

  /// A result, or what the call is to change in place: it holds `values` before.
  template <class T>
  Placed<T>* output(const char* name, const Shape& shape, const Layout& layout, const std::vector<T>& values) {
    return add(name, true, shape, layout, values);
  }
  template <class T>
  Placed<T>* output(const char* name, const std::vector<T>& values) {
    const Shape shape{static_cast<std::int64_t>(values.size())};
    return output(name, shape, dense(shape), values);
  }

  /// Makes the call. Where it throws, nothing may have been written; otherwise only elements of outputs.
  template <class Call>
  void run(Call&& call) const {
    try {
      call();
    } catch (const std::exception& error) {
      for (const auto& argument : arguments_) {
        require(argument->untouched(), argument->name() + " was written by a call that threw: " + error.what());
      }
      throw;
    }
    for (const auto& argument : arguments_) {
      require(argument->is_output() || argument->untouched(), argument->name() + ", an input, was written");
      require(argument->gaps_intact(), "something was written between or beside the elements of " + argument->name());
    }
  }

 private:
  template <class T>
  Placed<T>* add(const char* name, bool is_output, const Shape& shape, const Layout& layout, const std::vector<T>& values) {
    auto placed = std::make_unique<Placed<T>>(name, is_output, shape, layout, std::span<const T>(values), flush_);
    flush_ = flush_ == Flush::begin ? Flush::end : Flush::begin;
    Placed<T>* const result = placed.get();
    arguments_.push_back(std::move(placed));
    return result;
  }

  Flush flush_;
  std::vector<std::unique_ptr<Argument>> arguments_;
};

}  // namespace fuzz
