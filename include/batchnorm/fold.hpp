// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include <batchnorm/call/folding.hpp>
#include <batchnorm/tensor.hpp>
#include <batchnorm/views.hpp>

namespace batchnorm {

/// @file
/// Folding into the weights of a convolution or linear layer.
///
/// A batch norm in inference is an affine map per channel, and a convolution or linear layer beside it can do that map's work:
///
///   const AffineMap norm = affine_map<float>({.scale = s, .bias = b, .mean = m, .variance = v}, epsilon);
///   const auto folded = fold_after<float>(weights, layer_bias, norm);  // y = norm(layer(x)) == folded layer(x)
///
/// What folding costs: the sum of products and the bias cancel where |mean| is large beside the deviation, digits that
/// BatchNorm keeps. A factor may carry weights of half below the normal numbers, where they lose digits; one that carries them
/// beyond the largest is refused.

/// y = factor[c] * x + shift[c]
struct AffineMap {
  std::vector<double> factor;  ///< [C]
  std::vector<double> shift;   ///< [C]
};

/// A layer that does the batch norm's work too: weights of the shape they had, a bias for each channel that it puts out.
template <Element T, ParameterOf<T> B = T>
struct FoldedLayer {
  Tensor<T> weights;  ///< the shape of the layer's
  Tensor<B> bias;     ///< [O], the channels that it puts out
};

/// The caller's buffers for a folded layer; either may be the layer's own.
template <Element T, ParameterOf<T> B = T>
struct FoldedLayerViews {
  TensorView<T> weights;  ///< the shape of the layer's
  TensorView<B> bias;     ///< [O], the channels that it puts out
};

inline namespace BATCHNORM_KERNELS {

/// A batch norm in inference as a map, in double:
///
///   factor = scale / sqrt(variance + epsilon), shift = bias - mean * factor
///
///   mean, variance  [C]
///   scale, bias     [C], each may be absent (1 and 0)
///
/// Where variance + epsilon < 0 the channel is NaN.
/// @throws ShapeError, ValueError   as normalize does; epsilon must be in (0, 1]; also where finite arguments with
///                                  variance + epsilon > 0 give a factor or a shift beyond the range of double
template <Element P>
AffineMap affine_map(const InferenceParameters<P>& parameters, double epsilon, const CallOptions& call = {});

/// Folds a map that follows a convolution or linear layer, y = map(W x + b), into the layer:
///
///   W'[o,...] = factor[o] * W[o,...]        b'[o] = factor[o] * b[o] + shift[o]
///
///   weights   [O, I / groups, kernel...] with 1 to 3 spatial dimensions, or [O, I], with any strides
///   bias      [O], may be absent (0)
///   map       O channels
///   folded    weights of the same shape, which may be `weights` itself (with the same strides); bias, which may be `bias`
///             itself, and is there even if the layer had none; nothing else may overlap
///
/// Exact with any stride, dilation, padding and groups: but for one rounding of each W' to T and of each b' to B, which are
/// computed in double. A channel of the map that is NaN gives a channel that is NaN.
/// @throws ShapeError   rank or an extent does not fit, or the map's number of channels
/// @throws ValueError   absent, null or misaligned data, strides that reach beyond memory, arguments that overlap; a folded
///                      weight or bias made of finite numbers that leaves the range of its type, such as a half of 2 times a
///                      factor of 9.5e4
/// @throws std::bad_alloc
///
/// Nothing is written when one is thrown.
template <Element T, ParameterOf<T> B = T>
void fold_after(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                const std::type_identity_t<FoldedLayerViews<T, B>>& folded, const CallOptions& call = {});

/// The same as the other fold_after(), owned and dense.
template <Element T, ParameterOf<T> B = T>
FoldedLayer<T, B> fold_after(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                             const CallOptions& call = {});

/// The same for a transposed convolution, whose weights are [I, O / groups, kernel...] (or a linear layer's [I, O]): output
/// channel k of group g is o = g * (O / groups) + k.
/// @throws ValueError   also where groups is not a divisor of I
template <Element T, ParameterOf<T> B = T>
void fold_after_transposed(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                           const std::type_identity_t<FoldedLayerViews<T, B>>& folded, std::int64_t groups = 1,
                           const CallOptions& call = {});

/// The same as the other fold_after_transposed(), owned and dense.
template <Element T, ParameterOf<T> B = T>
FoldedLayer<T, B> fold_after_transposed(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias,
                                        const AffineMap& map, std::int64_t groups = 1, const CallOptions& call = {});

/// Folds a map that precedes a convolution or linear layer, y = W map(x) + b, into the layer:
///
///   W'[o,k,...] = W[o,k,...] * factor[i]        b'[o] = b[o] + sum over k, ... of W[o,k,...] * shift[i]
///
/// where input channel k of group g is i = g * (I / groups) + k. The map has I channels, all else is as in fold_after; b' is
/// summed in double.
///
/// Of a convolution this is exact only without zero padding: the zeros are put beside the map's result, so they are not
/// shifted, while b' counts the shift of every weight. With padding by zeros the outputs that reach into it differ (paddings
/// that repeat values of x do not). For the same reason there is no such form for transposed convolutions: near the border, and
/// with strides everywhere, an output meets only some of the weights.
/// @throws ValueError   also where groups is not a divisor of O
template <Element T, ParameterOf<T> B = T>
void fold_before(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                 const std::type_identity_t<FoldedLayerViews<T, B>>& folded, std::int64_t groups = 1,
                 const CallOptions& call = {});

/// The same as the other fold_before(), owned and dense.
template <Element T, ParameterOf<T> B = T>
FoldedLayer<T, B> fold_before(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                              std::int64_t groups = 1, const CallOptions& call = {});

/// fold_after() with T = B from the weights.
template <TensorLike W>
void fold_after(const W& weights, TensorView<const element_of<W>> bias, const AffineMap& map,
                const FoldedLayerViews<element_of<W>>& folded, const CallOptions& call = {}) {
  fold_after<element_of<W>>(TensorView<const element_of<W>>(weights), bias, map, folded, call);
}

/// fold_after() with T = B from the weights, owned and dense.
template <TensorLike W>
FoldedLayer<element_of<W>> fold_after(const W& weights, TensorView<const element_of<W>> bias, const AffineMap& map,
                                      const CallOptions& call = {}) {
  return fold_after<element_of<W>>(TensorView<const element_of<W>>(weights), bias, map, call);
}

/// fold_after_transposed() with T = B from the weights.
template <TensorLike W>
void fold_after_transposed(const W& weights, TensorView<const element_of<W>> bias, const AffineMap& map,
                           const FoldedLayerViews<element_of<W>>& folded, std::int64_t groups = 1,
                           const CallOptions& call = {}) {
  fold_after_transposed<element_of<W>>(TensorView<const element_of<W>>(weights), bias, map, folded, groups, call);
}

/// fold_after_transposed() with T = B from the weights, owned and dense.
template <TensorLike W>
FoldedLayer<element_of<W>> fold_after_transposed(const W& weights, TensorView<const element_of<W>> bias, const AffineMap& map,
                                                 std::int64_t groups = 1, const CallOptions& call = {}) {
  return fold_after_transposed<element_of<W>>(TensorView<const element_of<W>>(weights), bias, map, groups, call);
}

/// fold_before() with T = B from the weights.
template <TensorLike W>
void fold_before(const W& weights, TensorView<const element_of<W>> bias, const AffineMap& map,
                 const FoldedLayerViews<element_of<W>>& folded, std::int64_t groups = 1, const CallOptions& call = {}) {
  fold_before<element_of<W>>(TensorView<const element_of<W>>(weights), bias, map, folded, groups, call);
}

/// fold_before() with T = B from the weights, owned and dense.
template <TensorLike W>
FoldedLayer<element_of<W>> fold_before(const W& weights, TensorView<const element_of<W>> bias, const AffineMap& map,
                                       std::int64_t groups = 1, const CallOptions& call = {}) {
  return fold_before<element_of<W>>(TensorView<const element_of<W>>(weights), bias, map, groups, call);
}

// ----------------------------------------------------------------------------------------------------------------------------

template <Element P>
AffineMap affine_map(const InferenceParameters<P>& parameters, double epsilon, const CallOptions& call) {
  const arguments::Reporter reporter("batchnorm::affine_map", call);
  arguments::check_epsilon(reporter, epsilon);
  const Shape& shape = parameters.mean.shape();
  if (parameters.mean.present() && shape.rank() != 1) {
    reporter.fail<ShapeError>("mean has shape " + to_string(shape) + ", expected [C]");
  } else if (parameters.mean.present() && shape[0] < 0) {
    reporter.fail<ShapeError>("mean has a negative extent, its shape is " + to_string(shape));
  }
  arguments::Arguments arguments(reporter, shape.rank() == 1 ? shape[0] : 0);
  arguments.check_present("mean", parameters.mean.present(), "affine_map needs it");
  arguments.check_present("variance", parameters.variance.present(), "affine_map needs it");
  const P* mean = arguments.channel_vector("mean", parameters.mean);
  const P* variance = arguments.channel_vector("variance", parameters.variance);
  const P* scale = arguments.channel_vector("scale", parameters.scale);
  const P* bias = arguments.channel_vector("bias", parameters.bias);
  if (reporter.failed()) return {};
  AffineMap map;
  cpu::in_default_mode([&] {
    for (std::int64_t c = 0; c < arguments.channels(); ++c) {
      const double deviation = std::sqrt(folding::widened(variance[c]) + epsilon), m = folding::widened(mean[c]);
      const double s = scale == nullptr ? 1.0 : folding::widened(scale[c]);
      const double b = bias == nullptr ? 0.0 : folding::widened(bias[c]);
      const double factor = s / deviation, shift = std::fma(-m, factor, b);
      const bool is_made_of_finite = folding::is_finite(deviation) && deviation != 0 && folding::is_finite(m) &&
                                     folding::is_finite(s) && folding::is_finite(b);
      const bool is_in_range = folding::is_finite(factor) && folding::is_finite(shift);
      if (is_made_of_finite && !is_in_range && !reporter.failed()) {
        reporter.fail<ValueError>(folding::out_of_range<double>(
            "the map", "in channel " + std::to_string(c) + " the factor is " + arguments::to_string(factor) +
                           " and the shift " + arguments::to_string(shift)));
      }
      map.factor.push_back(factor);
      map.shift.push_back(shift);
    }
  });
  if (reporter.stops()) return {};
  return map;
}

namespace folding {

template <Element T, Element B>
void into(const Fold& fold, const TensorView<const T>& weights, const TensorView<const B>& bias, const AffineMap& map,
          const FoldedLayerViews<T, B>& folded, std::int64_t groups, const CallOptions& call) {
  const Layer layer(fold, {fold.call, call}, weights.present(), weights.shape(), groups);
  if (layer.failed()) return;
  cpu::in_default_mode([&] {
    folding::fold<T, B>(layer, {weights, bias, map.factor, map.shift, folded.weights, folded.bias});
  });
}

template <Element T, Element B>
FoldedLayer<T, B> owned(const Fold& fold, const TensorView<const T>& weights, const TensorView<const B>& bias,
                        const AffineMap& map, std::int64_t groups, const CallOptions& call) {
  const Layer layer(fold, {fold.call, call}, weights.present(), weights.shape(), groups);
  if (layer.failed()) return {};
  FoldedLayer<T, B> folded{Tensor<T>(weights.shape()), Tensor<B>(Shape{layer.outputs()})};
  cpu::in_default_mode([&] {
    folding::fold<T, B>(layer, {weights, bias, map.factor, map.shift, folded.weights, folded.bias});
  });
  if (layer.stops()) return {};
  return folded;
}

}  // namespace folding

template <Element T, ParameterOf<T> B>
void fold_after(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                const std::type_identity_t<FoldedLayerViews<T, B>>& folded, const CallOptions& call) {
  folding::into<T, B>(folding::after, weights, bias, map, folded, 1, call);
}

template <Element T, ParameterOf<T> B>
FoldedLayer<T, B> fold_after(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                             const CallOptions& call) {
  return folding::owned<T, B>(folding::after, weights, bias, map, 1, call);
}

template <Element T, ParameterOf<T> B>
void fold_after_transposed(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                           const std::type_identity_t<FoldedLayerViews<T, B>>& folded, std::int64_t groups,
                           const CallOptions& call) {
  folding::into<T, B>(folding::after_transposed, weights, bias, map, folded, groups, call);
}

template <Element T, ParameterOf<T> B>
FoldedLayer<T, B> fold_after_transposed(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias,
                                        const AffineMap& map, std::int64_t groups, const CallOptions& call) {
  return folding::owned<T, B>(folding::after_transposed, weights, bias, map, groups, call);
}

template <Element T, ParameterOf<T> B>
void fold_before(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                 const std::type_identity_t<FoldedLayerViews<T, B>>& folded, std::int64_t groups, const CallOptions& call) {
  folding::into<T, B>(folding::before, weights, bias, map, folded, groups, call);
}

template <Element T, ParameterOf<T> B>
FoldedLayer<T, B> fold_before(TensorView<const T> weights, std::type_identity_t<TensorView<const B>> bias, const AffineMap& map,
                              std::int64_t groups, const CallOptions& call) {
  return folding::owned<T, B>(folding::before, weights, bias, map, groups, call);
}

}  // namespace BATCHNORM_KERNELS
}  // namespace batchnorm
