// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Tensors, owned and not owned.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <ranges>
#include <type_traits>
#include <utility>

#include <batchnorm/element.hpp>
#include <batchnorm/format.hpp>

namespace batchnorm {

/// Distance, in elements, between neighbours along each axis.
using Strides = std::array<std::int64_t, Shape::max_rank>;

/// Strides of a dense row-major tensor of that shape.
inline Strides dense_strides(const Shape& shape) noexcept {
  Strides strides{};
  std::uint64_t stride = 1;  // unsigned: a product that overflows is refused later, by element_count
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(stride);
    stride *= static_cast<std::uint64_t>(shape[axis]);
  }
  return strides;
}

namespace detail {

/// Elements U, const or not, that a view of T reads as its own: those of the compiler's type of the same bits. T may be const
/// where U is not, but not the other way.
template <class U, class T>
concept SameBitsAs = requires {
  typename SameBits<std::remove_const_t<U>>::type;
}
&&std::same_as<typename SameBits<std::remove_const_t<U>>::type, std::remove_const_t<T>> &&
    (std::is_const_v<T> || !std::is_const_v<U>);

/// A vector, an array or a span of such elements.
template <class R, class T>
concept VectorOfSameBits = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> && !requires(R & range) {
  range.shape();
}
&&SameBitsAs<std::remove_reference_t<std::ranges::range_reference_t<R>>, T>;

}  // namespace detail

/// A tensor somebody else owns: pointer, shape, strides. Dense unless strides are given. Default-constructed (or nullptr) it
/// stands for an argument that is absent. Of a temporary, a view is good only within the call that it is an argument of.
///
/// Strides serve slices of a larger tensor: they are read and written in place, whatever lies between their elements, as long
/// as either the channels of a position, or the values along the last spatial axis, lie next to each other.
template <class T>
class TensorView {
 public:
  /// Stands for an argument that is absent.
  TensorView() = default;

  /// The same, so that a call may name it nullptr.
  TensorView(std::nullptr_t) noexcept {}

  /// A dense tensor, the last axis varies fastest.
  TensorView(T* data, const Shape& shape) noexcept : TensorView(data, shape, dense_strides(shape)) {}

  /// The element of indices i, j, ... is data[i * strides[0] + j * strides[1] + ...].
  TensorView(T* data, const Shape& shape, const Strides& strides) noexcept
      : data_(data), shape_(shape), strides_(strides), present_(true) {}

  /// Of half also _Float16 and std::float16_t, of bfloat16 also std::bfloat16_t, where the compiler has them: the bits are the
  /// same.
  template <detail::SameBitsAs<T> U>
  TensorView(U* data, const Shape& shape) noexcept : TensorView(reinterpret_cast<T*>(data), shape) {}

  /// The same with strides.
  template <detail::SameBitsAs<T> U>
  TensorView(U* data, const Shape& shape, const Strides& strides) noexcept
      : TensorView(reinterpret_cast<T*>(data), shape, strides) {}

  /// A vector of them.
  template <detail::VectorOfSameBits<T> R>
  TensorView(R&& range) noexcept
      : TensorView(std::ranges::data(range), Shape{static_cast<std::int64_t>(std::ranges::size(range))}) {}

  /// A vector, an array or a span is a tensor of rank 1.
  template <std::ranges::contiguous_range R>
    requires std::ranges::sized_range<R> &&(!requires(R & range) { range.shape(); }) &&
        std::is_convertible_v<std::remove_reference_t<std::ranges::range_reference_t<R>> (*)[], T (*)[]> TensorView(
            R&& range) noexcept
        : TensorView(std::ranges::data(range), Shape{static_cast<std::int64_t>(std::ranges::size(range))}) {}

    /// TensorView<float> converts to TensorView<const float>.
    template <class U>
      requires(!std::same_as<U, T> && std::is_convertible_v<U (*)[], T (*)[]>)
    TensorView(const TensorView<U>& other)
    noexcept : data_(other.data()), shape_(other.shape()), strides_(other.strides()), present_(other.present()) {}

    T* data() const noexcept { return data_; }              ///< the element whose indices are all 0; null where it is absent
    const Shape& shape() const noexcept { return shape_; }  ///< rank 0 where the argument is absent
    const Strides& strides() const noexcept { return strides_; }  ///< one for each axis of the shape

    /// Elements [begin, begin + count) along one axis, in place: a slice of channels, a part of a batch, columns of a picture.
    /// @throws ShapeError   an axis that is not in [0, rank), a range that leaves its extent, or a stride that leaves memory
    TensorView slice(int axis, std::int64_t begin, std::int64_t count) const {
      const bool is_axis = axis >= 0 && axis < shape_.rank();
      if (!is_axis || begin < 0 || count < 0 || count > shape_[axis] || begin > shape_[axis] - count) {
        detail::fail<ShapeError>("batchnorm::TensorView::slice: [" + std::to_string(begin) + ", " + std::to_string(begin) +
                                 " + " + std::to_string(count) + ") along axis " + std::to_string(axis) + " is not within " +
                                 to_string(shape_));
      }
      std::array<std::int64_t, Shape::max_rank> extents{};
      std::ranges::copy(shape_.extents(), extents.begin());
      extents[static_cast<std::size_t>(axis)] = count;
      const Shape shape(std::span<const std::int64_t>(extents).first(static_cast<std::size_t>(shape_.rank())));
      std::int64_t first = 0, bytes = 0;
      std::uintptr_t address = 0;
      if (__builtin_mul_overflow(begin, strides_[static_cast<std::size_t>(axis)], &first) ||
          __builtin_mul_overflow(first, static_cast<std::int64_t>(sizeof(T)), &bytes) ||
          (data_ != nullptr && __builtin_add_overflow(reinterpret_cast<std::uintptr_t>(data_), bytes, &address))) {
        detail::fail<ShapeError>("batchnorm::TensorView::slice: the stride along axis " + std::to_string(axis) +
                                 " reaches beyond any memory");
      }
      return {data_ == nullptr ? data_ : data_ + first, shape, strides_};
    }

    /// False for a default-constructed view: the argument is absent.
    bool present() const noexcept { return present_; }

   private:
    T* data_ = nullptr;
    Shape shape_;
    Strides strides_{};
    bool present_ = false;
};

namespace detail {

template <class X>
struct ElementOf {};
template <class T>
struct ElementOf<TensorView<T>> {
  using type = std::remove_const_t<T>;
};
template <std::ranges::contiguous_range R>
struct ElementOf<R> {
  using type = std::remove_cv_t<std::remove_reference_t<std::ranges::range_reference_t<const R>>>;
};

}  // namespace detail

/// The elements of what a TensorView is made of.
template <class X>
using element_of = typename detail::ElementOf<X>::type;

/// A TensorView, or what one is made of: a Tensor, a vector, an array, a span.
template <class X>
concept TensorLike = Element<element_of<X>> && std::convertible_to<const X&, TensorView<const element_of<X>>>;

/// An owner of a dense tensor, aligned to 64 bytes, zero at first. Moves, copies, converts to a TensorView.
template <Element T>
class Tensor {
 public:
  /// No elements: rank 0, size 0, no memory.
  Tensor() = default;

  /// A tensor of that shape, all zeros.
  /// @throws ShapeError   negative extent or more than 2^63 - 1 elements
  /// @throws std::bad_alloc
  explicit Tensor(const Shape& shape)
      : shape_(shape), size_(element_count(shape, "batchnorm::Tensor")), data_(allocate(size_)) {
    std::fill_n(data_, size_, T(0));
  }

  /// A copy of the elements.
  /// @throws std::bad_alloc
  Tensor(const Tensor& other) : shape_(other.shape_), size_(other.size_), data_(allocate(size_)) {
    std::copy_n(other.data_, size_, data_);
  }

  /// Takes the memory of the other, which is left without elements.
  Tensor(Tensor&& other) noexcept
      : shape_(std::exchange(other.shape_, Shape())),
        size_(std::exchange(other.size_, 0)),
        data_(std::exchange(other.data_, nullptr)) {}

  // Two operators: one that takes a copy of its argument would not throw itself, and what has a tensor as a member would seem
  // not to either.

  /// A copy of the elements.
  /// @throws std::bad_alloc   and this tensor is as it was
  Tensor& operator=(const Tensor& other) { return *this = Tensor(other); }

  /// Takes the memory of the other, which is left without elements.
  Tensor& operator=(Tensor&& other) noexcept {
    Tensor taken(std::move(other));
    std::swap(shape_, taken.shape_);
    std::swap(size_, taken.size_);
    std::swap(data_, taken.data_);
    return *this;
  }

  /// Views of it must not be used any more.
  ~Tensor() { ::operator delete(data_, alignment); }

  const Shape& shape() const noexcept { return shape_; }   ///< the extents, outermost first
  std::int64_t size() const noexcept { return size_; }     ///< the number of elements
  T* data() noexcept { return data_; }                     ///< the elements, the last axis varies fastest
  const T* data() const noexcept { return data_; }         ///< the elements, the last axis varies fastest
  T* begin() noexcept { return data_; }                    ///< the first element in memory
  T* end() noexcept { return data_ + size_; }              ///< after the last element in memory
  const T* begin() const noexcept { return data_; }        ///< the first element in memory
  const T* end() const noexcept { return data_ + size_; }  ///< after the last element in memory

  /// Element i in memory, i in [0, size()).
  T& operator[](std::int64_t i) noexcept { return data_[i]; }
  /// Element i in memory, i in [0, size()).
  const T& operator[](std::int64_t i) const noexcept { return data_[i]; }

  TensorView<T> view() noexcept { return {data_, shape_}; }              ///< valid as long as this tensor is and stays in place
  TensorView<const T> view() const noexcept { return {data_, shape_}; }  ///< valid as long as this tensor is and stays in place
  operator TensorView<T>() noexcept { return view(); }                   ///< view(), so that a call takes the tensor itself
  operator TensorView<const T>() const noexcept { return view(); }       ///< view(), so that a call takes the tensor itself

 private:
  static constexpr std::align_val_t alignment{64};

  static T* allocate(std::int64_t size) {
    if (size > INT64_MAX / static_cast<std::int64_t>(sizeof(T))) {
#if defined(__cpp_exceptions)
      throw std::bad_alloc();
#else
      detail::fail<ShapeError>("batchnorm::Tensor: more bytes than the address space holds");
#endif
    }
    return static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), alignment));
  }

  Shape shape_;
  std::int64_t size_ = 0;
  T* data_ = nullptr;
};

}  // namespace batchnorm
