// SPDX-License-Identifier: MIT
#pragma once

// What every public call checks of its arguments, once, before anything is written.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <batchnorm/activation.hpp>
#include <batchnorm/call/checks.hpp>
#include <batchnorm/call/problem.hpp>
#include <batchnorm/call/region.hpp>
#include <batchnorm/call/reporter.hpp>
#include <batchnorm/statistic_view.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::arguments {

/// The arguments of one call: checks each against x, then all against each other. Where errors are reported, not thrown, x
/// counts as empty after one that concerns it, and what is found wrong is null.
class Arguments {
 public:
  /// Checks the rank and the extents of x. Where x is not empty its layout is found as well.
  /// `allowed_overlap` says to the reader of a message which tensors are Replaceable.
  template <class T>
  Arguments(const Reporter& call, const TensorView<T>& x, Format format, Replaceable replaceable = Replaceable::no,
            std::string_view allowed_overlap = {}, std::string_view name_of_x = "x")
      : reporter_(call),
        shape_(x.shape()),
        strides_{x.strides()},
        format_(format),
        allowed_overlap_(allowed_overlap),
        name_of_x_(name_of_x) {
    if (!has_extents(x.present()) || elements_ == 0) return;
    if (check_data(name_of_x, x) && find_layout(x.strides())) {
      add({name_of_x, Role::input, x, replaceable});
    } else {
      elements_ = 0;
    }
  }

  /// A tensor that `tensor` will be given: where x alone would be walked in a way that does not serve it, x is walked in one
  /// that serves both and those before, if there is one. To be called before the first of `tensor`, `mask`, `x` and `geometry`.
  template <class T>
  void fit(const TensorView<T>& view) {
    if (!view.present() || empty() || view.strides() == strides_[0]) return;
    if (view.shape() != shape_ || reaches_beyond_memory(view)) return;
    strides_[fitted_] = view.strides();
    if (!cpu::pitch_in(geometry_, shape_, view.strides(), format_)) {
      const auto of_all = cpu::geometry_of_all(of_x_, shape_, std::span(strides_).first(fitted_ + 1), format_);
      if (!of_all) return;  // `tensor` will refuse it
      geometry_ = *of_all;
      pitch_of_x_ = cpu::pitch_in(geometry_, shape_, strides_[0], format_);
    }
    ++fitted_;
  }

  /// A call without x: only channel vectors.
  Arguments(const Reporter& call, std::int64_t channels) : reporter_(call), channels_(channels) {}

  std::int64_t channels() const noexcept { return channels_; }
  bool empty() const noexcept { return elements_ == 0; }
  const cpu::Geometry& geometry() const noexcept { return geometry_; }

  /// An argument of the shape of x, laid out as x is, though perhaps with other strides. Where x is not empty, its pitch.
  template <class T>
  cpu::Operand<T> tensor(std::string_view name, const TensorView<T>& view, Replaceable replaceable = Replaceable::no) {
    if (!view.present()) {
      fail<ValueError>(std::string(name) + " is absent");
    } else if (view.shape() != shape_) {
      fail<ShapeError>(std::string(name) + " has shape " + batchnorm::to_string(view.shape()) + ", expected the shape of " +
                       std::string(name_of_x_) + about_x());
    }
    if (empty() || reporter_.failed()) return {};
    const bool is_as_x = view.strides() == strides_[0];
    const bool is_usual = is_as_x && is_dense_ && has_room(view.data(), elements_);
    if (!is_usual && !check_data(name, view)) return {};
    const auto pitch = is_as_x ? pitch_of_x_ : cpu::pitch_in(geometry_, shape_, view.strides(), format_);
    if (!pitch) return refuse_strides(name, view.strides()), cpu::Operand<T>();
    add({name, role_of<T>, view, replaceable});
    return {view.data(), *pitch};
  }

  /// The same for one that may be absent: then its data is null.
  template <class T>
  cpu::Operand<T> optional_tensor(std::string_view name, const TensorView<T>& view) {
    return view.present() ? tensor(name, view) : cpu::Operand<T>();
  }

  /// A mask over the elements of x; null when it is absent or there are none.
  template <class B>
  B* mask(const TensorView<B>& view) {
    if (!view.present()) return nullptr;
    const std::int64_t bytes = cpu::bytes_of_bits(elements_);
    if (view.shape() != Shape{bytes}) {
      fail<ShapeError>("mask has shape " + batchnorm::to_string(view.shape()) + ", expected [" + std::to_string(bytes) +
                       "], a bit for each element" + about_x());
    }
    if (empty() || reporter_.failed()) return nullptr;
    if (view.data() == nullptr) fail<ValueError>("mask has a null pointer for its data");
    if (view.strides()[0] != 1 && bytes > 1) fail<ValueError>("mask has gaps, its bytes must lie next to each other");
    if (!check_reach("mask", view)) return nullptr;
    add({"mask", role_of<B>, view.data(), bytes});
    return view.data();
  }

  /// x, once it is known not to be empty.
  template <class T>
  cpu::Operand<T> x(const TensorView<T>& view) const noexcept {
    return {view.data(), pitch_of_x_.value_or(cpu::Pitch{})};
  }

  /// An argument of shape [C]; null when it is absent.
  template <class P>
  P* channel_vector(std::string_view name, const TensorView<P>& view) {
    if (!view.present()) return nullptr;
    check_vector(name, view.shape());
    if (channels_ == 0 || reporter_.failed()) return nullptr;
    const bool is_usual = view.strides()[0] == 1 && has_room(view.data(), channels_);
    if (!is_usual && !check_data(name, view)) return nullptr;
    if (view.strides()[0] != 1 && channels_ > 1) {
      fail<ValueError>(std::string(name) + " has stride " + std::to_string(view.strides()[0]) +
                       ", the elements of a channel vector must lie next to each other");
    }
    add({name, role_of<P>, view.data(), channels_ * static_cast<std::int64_t>(sizeof(P))});
    return view.data();
  }

  /// x has that many channels.
  void check_channels(std::int64_t expected) const {
    if (channels_ == expected) return;
    fail<ShapeError>(std::string(name_of_x_) + " has " + std::to_string(channels_) +
                     " channels, expected C = " + std::to_string(expected) + about_x());
  }

  /// A running statistic that training updates; null when it is absent.
  template <class P>
  P* updated_statistic(std::string_view name, const StatisticView<P>& statistic) {
    if (statistic.is_constant()) {
      fail<ValueError>(std::string(name) + " is constant, but training updates it; only inference takes constants");
      return nullptr;
    }
    return channel_vector(name, statistic.updated());
  }

  /// Both or neither.
  void check_together(std::string_view first, bool has_first, std::string_view second, bool has_second) const {
    if (has_first == has_second) return;
    const auto [given, missing] = has_first ? std::pair(first, second) : std::pair(second, first);
    fail<ValueError>(std::string(missing) + " is absent while " + std::string(given) + " is given; they come together");
  }

  void check_present(std::string_view name, bool present, std::string_view reason) const {
    if (!present) fail<ValueError>(std::string(name).append(" is absent, ").append(reason));
  }

  /// Gradients pass that activation.
  template <class A>
  void check_trainable(const A& activation) const {
    if (const char* problem = batchnorm::detail::problem_of(activation)) {
      fail<ValueError>("gradients cannot pass the activation: " + std::string(problem));
    }
  }

  /// Moments of the channels of x, of at least one value where x has any.
  void check_moments(std::int64_t channels, std::int64_t count) const {
    if (channels != channels_) {
      fail<ShapeError>("moments have " + std::to_string(channels) + " channels, expected C = " + std::to_string(channels_) +
                       about_x());
    }
    if (count == 0 && !empty()) fail<ValueError>("moments are those of no values, they cannot normalise x" + about_x());
  }

  /// Gradient sums of the channels of x, of at least one value where x has any.
  void check_sums(std::int64_t channels, std::int64_t count) const {
    if (channels != channels_) {
      fail<ShapeError>("sums have " + std::to_string(channels) + " channels, expected C = " + std::to_string(channels_) +
                       about_x());
    }
    if (count == 0 && !empty()) fail<ValueError>("sums are those of no values, x has some" + about_x());
  }

  /// No output shares an element with another argument, but in place of a replaceable one with the same strides.
  void check_overlap() const {
    for (std::size_t i = 0; i < count_; ++i) {
      const Region& output = regions_[i];
      if (!output.is_output()) continue;
      if (output.overlaps_itself()) {
        fail<ValueError>(std::string(output.name()) + " overlaps itself: its strides put several elements in one place");
      }
      for (std::size_t j = 0; j < count_; ++j) {
        const bool is_done = i == j || (j < i && regions_[j].is_output());
        if (!is_done && !output.may_be_beside(regions_[j])) refuse_overlap(output, regions_[j]);
      }
    }
  }

  /// Returns only where errors are reported.
  template <class Exception>
  void fail(const std::string& what) const {
    reporter_.fail<Exception>(what);
  }

 private:
  /// Whether so many elements, at least one, can lie at p without gaps: a part of what check_data looks at, and fast.
  template <class T>
  static bool has_room(const T* p, std::int64_t count) noexcept {
    const std::uintptr_t first = address(p);
    return count <= batchnorm::detail::most_elements && p != nullptr && first % alignof(T) == 0 &&
           first + static_cast<std::uintptr_t>(count) * sizeof(T) > first;
  }

  /// Counts elements and channels of x: whether there can be as many.
  bool has_extents(bool is_present) {
    const auto refuse = [&](const std::string& what) { fail<ShapeError>(std::string(name_of_x_) + what + about_x()); };
    if (!is_present) return fail<ValueError>(std::string(name_of_x_) + " is absent"), false;
    if (shape_.rank() < 2 || shape_.rank() > 5) {
      return refuse(" has rank " + std::to_string(shape_.rank()) + ", expected 2 to 5"), false;
    }
    const std::int64_t elements = counted(reporter_, shape_, name_of_x_);
    if (reporter_.failed()) return false;
    const std::int64_t channels = shape_[cpu::channel_axis(shape_, format_)];
    if ((std::max)(elements, channels) > batchnorm::detail::most_elements) {
      return refuse(" has more than 2^53 elements or channels"), false;
    }
    elements_ = elements;
    channels_ = channels;
    return true;
  }

  /// The layout of an x that is not empty: whether there is one.
  bool find_layout(const Strides& strides) {
    is_dense_ = strides == dense_strides(shape_);
    if (is_dense_) {
      geometry_ = cpu::dense_geometry(shape_, elements_, format_);
      pitch_of_x_ = cpu::dense_pitch(geometry_);
    } else {
      const auto geometry = cpu::geometry_of(shape_, strides, format_);
      if (!geometry) return refuse_strides(name_of_x_, strides), false;
      geometry_ = *geometry;
      pitch_of_x_ = cpu::pitch_in(geometry_, shape_, strides, format_);
    }
    of_x_ = geometry_;
    return true;
  }

  std::string about_x() const {
    if (shape_.rank() == 0) return "";
    return " (" + std::string(name_of_x_) + " is " + batchnorm::to_string(shape_) + ", " +
           std::string(batchnorm::to_string(format_)) + ")";
  }

  void check_vector(std::string_view name, const Shape& shape) const {
    if (shape.rank() != 1) {
      fail<ShapeError>(std::string(name) + " has shape " + batchnorm::to_string(shape) + ", expected [C] = [" +
                       std::to_string(channels_) + "]" + about_x());
    } else if (shape[0] != channels_) {
      fail<ShapeError>(std::string(name) + " has " + std::to_string(shape[0]) +
                       " elements, expected C = " + std::to_string(channels_) + about_x());
    }
  }

  /// Data that is there and aligned, and strides within what memory can hold, so that arithmetic with them is safe.
  template <class T>
  bool check_data(std::string_view name, const TensorView<T>& view) const {
    if (view.data() == nullptr) {
      fail<ValueError>(std::string(name) + " has a null pointer for its data, its shape is " +
                       batchnorm::to_string(view.shape()));
    } else if (address(view.data()) % alignof(T) != 0) {
      fail<ValueError>(std::string(name) + " is misaligned: its address is not a multiple of " + std::to_string(alignof(T)) +
                       ", the alignment of " + std::string(element_name<std::remove_const_t<T>>()));
    }
    return check_reach(name, view) && !reporter_.failed();
  }

  template <class T>
  bool check_reach(std::string_view name, const TensorView<T>& view) const {
    if (!reaches_beyond_memory(view)) return true;
    fail<ValueError>(std::string(name) + " has strides " + to_string(view.strides(), view.shape().rank()) +
                     ", which reach beyond any memory" + about_x());
    return false;
  }

  void refuse_strides(std::string_view name, const Strides& strides) const {
    if (name == name_of_x_) {
      fail<ValueError>(std::string(name) + " has strides " + to_string(strides, shape_.rank()) +
                       "; supported are tensors where the channels of a position, or the values along the last spatial axis, "
                       "lie next to each other" +
                       (is_column_major(strides) ? "; this one is column major" : "") + advice_on(strides) + about_x());
      return;
    }
    fail<ValueError>(std::string(name) + " has strides " + to_string(strides, shape_.rank()) +
                     ", which is another memory layout than that of " + std::string(name_of_x_) + " (" +
                     (geometry_.channels_last ? "the channels of a position" : "the values along the last spatial axis") +
                     " next to each other)" + advice_on(strides) + about_x());
  }

  /// Where strides of 0, as those of the gradient of a sum or of a mean, repeat elements in memory.
  std::string advice_on(const Strides& strides) const {
    for (int axis = 0; axis < shape_.rank(); ++axis) {
      if (shape_[axis] == 1 || strides[static_cast<std::size_t>(axis)] != 0) continue;
      return "; its stride of 0 along axis " + std::to_string(axis) + " repeats elements, copy it to a dense tensor first";
    }
    return "";
  }

  bool is_column_major(const Strides& strides) const noexcept {
    std::int64_t stride = 1;
    for (int axis = 0; axis < shape_.rank(); ++axis) {
      if (strides[static_cast<std::size_t>(axis)] != stride) return false;
      stride *= shape_[axis];
    }
    return true;
  }

  template <class T>
  static constexpr Role role_of = std::is_const_v<T> ? Role::input : Role::output;

  void add(const Region& region) { regions_[count_++] = region; }

  void refuse_overlap(const Region& output, const Region& other) const {
    const bool explains = output.is_tensor() && other.is_tensor() && !allowed_overlap_.empty();
    fail<ValueError>(std::string(output.name()) + " overlaps " + std::string(other.name()) +
                     (explains ? "; allowed is only " + std::string(allowed_overlap_) + ", with the same strides"
                               : "; an output shares no element with another argument"));
  }

  Reporter reporter_;
  Shape shape_;
  std::array<Strides, 6> strides_;  // of x and of tensors that were fitted, `fitted_` of them
  std::size_t fitted_ = 1;
  Format format_ = Format::NCHW;
  std::int64_t elements_ = 0;
  std::int64_t channels_ = 0;
  cpu::Geometry of_x_, geometry_;
  std::optional<cpu::Pitch> pitch_of_x_;  // in geometry_
  bool is_dense_ = false;                 // x
  std::string_view allowed_overlap_;
  std::string_view name_of_x_ = "x";
  std::array<Region, 16> regions_;
  std::size_t count_ = 0;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::arguments
