// SPDX-License-Identifier: MIT
#pragma once

// The work of fold.hpp: the axes of a layer's weights, what is checked of them, and the arithmetic.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <batchnorm/call/arguments.hpp>
#include <batchnorm/detail/numbers.hpp>
#include <batchnorm/tensor.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::folding {

/// Of weights [first, second, kernel...]: the first axis counts all channels on one side of the layer, the second those of one
/// group on the other side.
enum class Axis { first, second };

/// Which axis counts the channels of the batch norm, and which those that the layer puts out.
struct Fold {
  std::string_view call;
  Axis normalized, output;
};

inline constexpr Fold after{"batchnorm::fold_after", Axis::first, Axis::first};
inline constexpr Fold after_transposed{"batchnorm::fold_after_transposed", Axis::second, Axis::second};
inline constexpr Fold before{"batchnorm::fold_before", Axis::second, Axis::first};

inline constexpr int max_weights_rank = 5;

/// Where a weight stands; 0 on axes that are not there.
using Position = std::array<std::int64_t, max_weights_rank>;

/// The channels that a weight joins: counted by the first axis, and by the second over all groups.
struct Channels {
  std::size_t first, second;

  std::size_t of(Axis axis) const noexcept { return axis == Axis::first ? first : second; }
};

inline std::int64_t index(std::size_t i) noexcept { return static_cast<std::int64_t>(i); }

inline std::int64_t offset_of(const Position& at, const Strides& strides) noexcept {
  std::int64_t offset = 0;
  for (std::size_t axis = 0; axis < at.size(); ++axis) offset += at[axis] * strides[axis];
  return offset;
}

/// The shape of a layer, checked.
class Layer {
 public:
  Layer(const Fold& fold, const arguments::Reporter& reporter, bool has_weights, const Shape& weights, std::int64_t groups)
      : fold_(fold), reporter_(reporter), shape_(weights), groups_(groups) {
    check_extents(has_weights);
  }

  /// Whether something was found wrong, which is reported.
  bool failed() const noexcept { return reporter_.failed(); }
  /// Whether the call ends when its arguments are checked.
  bool stops() const noexcept { return reporter_.stops(); }

  std::int64_t outputs() const noexcept { return channels(fold_.output); }
  std::size_t output_of(const Channels& c) const noexcept { return c.of(fold_.output); }
  std::size_t normalized_of(const Channels& c) const noexcept { return c.of(fold_.normalized); }

  /// The batch norm's channels are the layer's outputs: it comes after the layer.
  bool normalizes_outputs() const noexcept { return fold_.normalized == fold_.output; }

  /// body(position, channels) for every weight.
  template <class Body>
  void for_each_weight(Body&& body) const {
    if (is_empty_) return;  // however many steps the extents that are not 0 would make
    const auto extent = [&](int axis) { return axis < shape_.rank() ? shape_[axis] : 1; };
    Position at{};
    for (at[0] = 0; at[0] < extent(0); ++at[0]) {
      const std::int64_t group = at[0] / (shape_[0] / groups_);
      for (at[1] = 0; at[1] < extent(1); ++at[1]) {
        const Channels joined{static_cast<std::size_t>(at[0]), static_cast<std::size_t>(group * shape_[1] + at[1])};
        for (at[2] = 0; at[2] < extent(2); ++at[2]) {
          for (at[3] = 0; at[3] < extent(3); ++at[3]) {
            for (at[4] = 0; at[4] < extent(4); ++at[4]) body(std::as_const(at), joined);
          }
        }
      }
    }
  }

  void check_map(std::size_t factors, std::size_t shifts) const {
    if (factors != shifts) {
      return fail<ShapeError>("map has " + std::to_string(factors) + " factors and " + std::to_string(shifts) + " shifts");
    }
    const std::int64_t expected = channels(fold_.normalized);
    if (static_cast<std::int64_t>(factors) != expected) {
      fail<ShapeError>("map has " + std::to_string(factors) + " channels, expected " + std::to_string(expected) +
                       ", as many as the layer " + (normalizes_outputs() ? "puts out" : "takes in") + about_weights());
    }
  }

  void check_weights(std::string_view name, const Shape& shape) const {
    if (shape == shape_) return;
    fail<ShapeError>(std::string(name) + " has shape " + batchnorm::to_string(shape) + ", expected the shape of weights" +
                     about_weights());
  }

  void check_bias(std::string_view name, const Shape& shape) const {
    if (shape == Shape{outputs()}) return;
    fail<ShapeError>(std::string(name) + " has shape " + batchnorm::to_string(shape) + ", expected [" +
                     std::to_string(outputs()) + "], one element for each channel that the layer puts out" + about_weights());
  }

  /// Returns only where errors are reported.
  template <class Exception>
  void fail(const std::string& what) const {
    reporter_.fail<Exception>(what);
  }

 private:
  void check_extents(bool has_weights) {
    if (!has_weights) return fail<ValueError>("weights is absent");
    if (shape_.rank() < 2 || shape_.rank() > max_weights_rank) {
      return fail<ShapeError>("weights has rank " + std::to_string(shape_.rank()) + ", expected 2 to 5 (weights is " +
                              batchnorm::to_string(shape_) + ")");
    }
    const std::int64_t elements = arguments::counted(reporter_, shape_, "weights");
    is_empty_ = elements == 0;
    if (groups_ < 1 || shape_[0] % groups_ != 0) {
      return fail<ValueError>("groups is " + std::to_string(groups_) + ", it must divide " + std::to_string(shape_[0]) +
                              ", the first extent of weights (weights is " + batchnorm::to_string(shape_) + ")");
    }
    second_channels_ = arguments::counted(reporter_, Shape{groups_, shape_[1]}, "[groups, channels of a group]");
    if ((std::max)({elements, shape_[0], second_channels_}) > batchnorm::detail::most_elements) {
      fail<ShapeError>("weights has more than 2^53 elements or channels" + about_weights());
    }
  }

  std::int64_t channels(Axis axis) const noexcept { return axis == Axis::first ? shape_[0] : second_channels_; }

  std::string about_weights() const {
    return " (weights is " + batchnorm::to_string(shape_) +
           (groups_ == 1 ? ")" : ", groups is " + std::to_string(groups_) + ")");
  }

  Fold fold_;
  arguments::Reporter reporter_;
  Shape shape_;
  std::int64_t groups_;
  std::int64_t second_channels_ = 0;
  bool is_empty_ = false;
};

/// The memory of an argument, once its pointer and strides are found right; empty where the argument is.
template <class T>
std::optional<arguments::Region> region_of(const Layer& layer, std::string_view name, const TensorView<T>& view) {
  const Shape& shape = view.shape();
  if (!view.present() || element_count(shape) == 0) return std::nullopt;
  if (view.data() == nullptr) {
    layer.fail<ValueError>(std::string(name) + " has a null pointer for its data, its shape is " + to_string(shape));
  } else if (arguments::address(view.data()) % alignof(T) != 0) {
    layer.fail<ValueError>(std::string(name) + " is misaligned: its address is not a multiple of " +
                           std::to_string(alignof(T)) + ", the alignment of " +
                           std::string(element_name<std::remove_const_t<T>>()));
  } else if (arguments::reaches_beyond_memory(view)) {
    layer.fail<ValueError>(std::string(name) + " has strides " + arguments::to_string(view.strides(), shape.rank()) +
                           ", which reach beyond any memory");
  }
  if (layer.failed()) return std::nullopt;
  return arguments::Region(name, arguments::Role::output, view, arguments::Replaceable::no);
}

enum class InPlace { forbidden, allowed };

using OptionalRegion = std::optional<arguments::Region>;

inline void check_overlap(const Layer& layer, const OptionalRegion& output, const OptionalRegion& other, InPlace in_place) {
  if (!output || !other || (in_place == InPlace::allowed && output->coincides(*other))) return;
  if (output->is_disjoint(*other)) return;
  layer.fail<ValueError>(std::string(output->name()) + " overlaps " + std::string(other->name()) +
                         (in_place == InPlace::allowed ? "; allowed is only its very place, with the same strides"
                                                       : "; an output shares no element with another argument"));
}

template <Element T>
double widened(T value) {
  if constexpr (std::same_as<T, double>) return value;
  return static_cast<float>(value);
}

/// A double as a float, towards zero, with the last bit set where anything was lost. A further rounding to at most 22 digits
/// then gives what one rounding of the double gives (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums:
/// proved algorithms using rounding to odd", 2008).
inline float rounded_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value)) return nearest;
  const auto bits = std::bit_cast<std::uint32_t>(nearest);
  const bool is_away_from_zero = std::abs(static_cast<double>(nearest)) > std::abs(value);
  return std::bit_cast<float>((is_away_from_zero ? bits - 1 : bits) | 1U);
}

/// One rounding, to nearest even.
template <Element T>
T rounded(double value) {
  if constexpr (sizeof(T) == 2) return static_cast<T>(rounded_to_odd(value));
  return static_cast<T>(value);
}

template <Element T, Element B>
struct Arguments {
  TensorView<const T> weights;
  TensorView<const B> bias;
  std::span<const double> factor, shift;
  TensorView<T> folded_weights;
  TensorView<B> folded_bias;
};

template <Element T, Element B>
void check(const Layer& layer, const Arguments<T, B>& a) {
  layer.check_map(a.factor.size(), a.shift.size());
  if (a.bias.present()) layer.check_bias("bias", a.bias.shape());
  if (!a.folded_weights.present()) layer.fail<ValueError>("folded.weights is absent");
  layer.check_weights("folded.weights", a.folded_weights.shape());
  if (!a.folded_bias.present()) layer.fail<ValueError>("folded.bias is absent, a folded layer always has one");
  layer.check_bias("folded.bias", a.folded_bias.shape());
  if (layer.failed()) return;

  const OptionalRegion weights = region_of(layer, "weights", a.weights), bias = region_of(layer, "bias", a.bias);
  const OptionalRegion folded_weights = region_of(layer, "folded.weights", a.folded_weights);
  const OptionalRegion folded_bias = region_of(layer, "folded.bias", a.folded_bias);
  for (const OptionalRegion& output : {folded_weights, folded_bias}) {
    if (!output || !output->overlaps_itself()) continue;
    layer.fail<ValueError>(std::string(output->name()) + " overlaps itself: its strides put several elements in one place");
  }
  check_overlap(layer, folded_weights, weights, InPlace::allowed);
  check_overlap(layer, folded_weights, bias, InPlace::forbidden);
  check_overlap(layer, folded_weights, folded_bias, InPlace::forbidden);
  check_overlap(layer, folded_bias, bias, InPlace::allowed);
  check_overlap(layer, folded_bias, weights, InPlace::forbidden);
}

/// The bias of the folded layer, before it is rounded.
template <Element T, Element B>
std::vector<double> folded_bias(const Layer& layer, const Arguments<T, B>& a) {
  std::vector<double> result(static_cast<std::size_t>(layer.outputs()));
  if (a.bias.present()) {
    for (std::size_t o = 0; o < result.size(); ++o) result[o] = widened(a.bias.data()[index(o) * a.bias.strides()[0]]);
  }
  if (layer.normalizes_outputs()) {
    for (std::size_t o = 0; o < result.size(); ++o) result[o] = std::fma(a.factor[o], result[o], a.shift[o]);
    return result;
  }
  layer.for_each_weight([&](const Position& at, const Channels& joined) {
    double& sum = result[layer.output_of(joined)];
    sum = std::fma(widened(a.weights.data()[offset_of(at, a.weights.strides())]), a.shift[layer.normalized_of(joined)], sum);
  });
  return result;
}

using batchnorm::detail::is_finite;

/// Whether a finite double is beyond the largest T.
template <Element T>
bool leaves_range(double value) {
  return !is_finite(widened(rounded<T>(value)));
}

/// Says that a result made of finite numbers is beyond its type: `where` is "in channel 3 it is 1e5".
template <Element T>
std::string out_of_range(std::string_view name, const std::string& where) {
  return std::string(name) + " leaves the range of " + std::string(element_name<T>()) + ": " + where +
         "; use a wider type, or keep the batch norm as a layer of its own";
}

/// Refuses finite weights and finite factors whose product is no finite T.
template <Element T, Element B>
void check_weights_range(const Layer& layer, const Arguments<T, B>& a) {
  layer.for_each_weight([&](const Position& at, const Channels& joined) {
    if (layer.failed()) return;
    const std::size_t channel = layer.normalized_of(joined);
    const double weight = widened(a.weights.data()[offset_of(at, a.weights.strides())]), factor = a.factor[channel];
    if (!is_finite(weight) || !is_finite(factor) || !leaves_range<T>(factor * weight)) return;
    layer.fail<ValueError>(out_of_range<T>("folded.weights", "in channel " + std::to_string(channel) + " of the map " +
                                                                 batchnorm::arguments::to_string(factor) + " * " +
                                                                 batchnorm::arguments::to_string(weight) + " is " +
                                                                 batchnorm::arguments::to_string(factor * weight)));
  });
}

/// Refuses a bias that is no finite B though all that it is made of is finite.
template <Element T, Element B>
void check_bias_range(const Layer& layer, const Arguments<T, B>& a, const std::vector<double>& bias) {
  std::vector<bool> is_made_of_finite(bias.size(), true);
  const auto exclude = [&](std::size_t o, double value) {
    if (!is_finite(value)) is_made_of_finite[o] = false;
  };
  for (std::size_t o = 0; o < bias.size(); ++o) {
    if (a.bias.present()) exclude(o, widened(a.bias.data()[index(o) * a.bias.strides()[0]]));
    if (layer.normalizes_outputs()) exclude(o, a.factor[o]), exclude(o, a.shift[o]);
  }
  if (!layer.normalizes_outputs()) {
    layer.for_each_weight([&](const Position& at, const Channels& joined) {
      exclude(layer.output_of(joined), widened(a.weights.data()[offset_of(at, a.weights.strides())]));
      exclude(layer.output_of(joined), a.shift[layer.normalized_of(joined)]);
    });
  }
  for (std::size_t o = 0; o < bias.size(); ++o) {
    if (layer.failed() || !is_made_of_finite[o] || !leaves_range<B>(bias[o])) continue;
    layer.fail<ValueError>(out_of_range<B>(
        "folded.bias", "in channel " + std::to_string(o) + " it is " + batchnorm::arguments::to_string(bias[o])));
  }
}

template <Element T, Element B>
void fold(const Layer& layer, const Arguments<T, B>& a) {
  check(layer, a);
  if (layer.failed()) return;
  // Before the weights are written: in place they are what it is made of.
  const std::vector<double> bias = folded_bias(layer, a);
  check_weights_range(layer, a);
  check_bias_range(layer, a, bias);
  if (layer.stops()) return;
  for (std::size_t o = 0; o < bias.size(); ++o) {
    a.folded_bias.data()[index(o) * a.folded_bias.strides()[0]] = rounded<B>(bias[o]);
  }
  layer.for_each_weight([&](const Position& at, const Channels& joined) {
    const double weight = widened(a.weights.data()[offset_of(at, a.weights.strides())]);
    a.folded_weights.data()[offset_of(at, a.folded_weights.strides())] =
        rounded<T>(a.factor[layer.normalized_of(joined)] * weight);
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::folding
