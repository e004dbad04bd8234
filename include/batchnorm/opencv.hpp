// SPDX-License-Identifier: MIT
#pragma once

// OpenCV's cv::Mat. The one header that includes OpenCV: the component opencv of the package.

#include <concepts>
#include <string>
#include <type_traits>

#include <opencv2/core/mat.hpp>

#include <batchnorm/tensor.hpp>

namespace batchnorm {

namespace detail {

template <Element T>
inline constexpr int cv_depth = std::same_as<T, float>    ? CV_32F
                                : std::same_as<T, double> ? CV_64F
                                                          : CV_16F;

inline std::string cv_depth_name(int depth) {
  constexpr const char* names[] = {"CV_8U", "CV_8S", "CV_16U", "CV_16S", "CV_32S", "CV_32F", "CV_64F", "CV_16F"};
  return depth >= 0 && depth < 8 ? names[depth] : "depth " + std::to_string(depth);
}

template <class T>
TensorView<T> view_of_mat(const cv::Mat& mat) {
  using Scalar = std::remove_const_t<T>;
  if (mat.depth() != cv_depth<Scalar>) {
    const std::string wanted = cv_depth_name(cv_depth<Scalar>);
    detail::fail<ValueError>("batchnorm::view_of: the cv::Mat holds " + cv_depth_name(mat.depth()) + ", expected " + wanted +
                             "; mat.convertTo(other, " + wanted + ") converts it");
  }
  std::array<std::int64_t, Shape::max_rank> extents{1};
  Strides strides{};
  std::size_t rank = mat.dims <= 2 ? 1 : 0;
  const bool has_channel_axis = mat.channels() > 1 || mat.dims <= 3;
  if (rank + static_cast<std::size_t>(mat.dims) + has_channel_axis > extents.size()) {
    detail::fail<ShapeError>("batchnorm::view_of: the cv::Mat has " + std::to_string(mat.dims) +
                             " dimensions, expected up to " + std::to_string(Shape::max_rank - 1));
  }
  for (int axis = 0; axis < mat.dims; ++axis, ++rank) {
    extents[rank] = mat.size[axis];
    strides[rank] = static_cast<std::int64_t>(mat.step[axis] / sizeof(T));  // OpenCV refuses steps that are no multiple
  }
  for (; mat.dims == 0 && rank < 3; ++rank) extents[rank] = 0;  // cv::Mat()
  if (has_channel_axis) {
    extents[rank] = mat.channels();
    strides[rank++] = 1;
  }
  return {reinterpret_cast<T*>(mat.data), Shape(std::span<const std::int64_t>(extents).first(rank)), strides};
}

}  // namespace detail

/// What a cv::Mat may hold: OpenCV has no bfloat16.
template <class T>
concept MatElement = Element<std::remove_const_t<T>> && !std::same_as<std::remove_const_t<T>, bfloat16>;

/// The elements of a cv::Mat, in place, rows with a step (a region of a larger picture) included. Its channels are interleaved,
/// which is Format::NHWC:
///
///   a picture, rows x columns            [1, H, W, C]
///   3 dimensions, a stack of pictures    [N, H, W, C]
///   4 dimensions, 1 channel              [d0, d1, d2, d3], as it is: a blob of cv::dnn is Format::NCHW
///
/// T: float for CV_32F, half for CV_16F, double for CV_64F; const T for a Mat that is const. The view does not keep the Mat
/// alive.
/// @throws ValueError   another depth
/// @throws ShapeError   more dimensions than a Shape has
template <MatElement T>
TensorView<T> view_of(cv::Mat& mat) {
  return detail::view_of_mat<T>(mat);
}

/// The same of a Mat that is const, to be read.
template <MatElement T>
  requires(std::is_const_v<T>)
TensorView<T> view_of(const cv::Mat& mat) { return detail::view_of_mat<T>(mat); }

/// The same of a temporary that shares its elements, such as a region: view_of<float>(picture(rectangle)).
/// @throws ValueError   also where it alone holds its elements, as of picture.clone(): they would be gone
template <MatElement T>
TensorView<T> view_of(cv::Mat&& mat) {
  if (mat.u != nullptr && mat.u->refcount <= 1) {
    detail::fail<ValueError>("batchnorm::view_of: the cv::Mat is a temporary that alone holds its elements; give it a name");
  }
  return detail::view_of_mat<T>(mat);
}

}  // namespace batchnorm
