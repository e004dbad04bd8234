// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "calls.hpp"

namespace c_interface {

/// The pointers of a call as views; Pointed is void or const void.
class Views {
 public:
  explicit Views(const Setting& setting)
      : shape_(setting.shape), channels_{shape_[batchnorm::cpu::channel_axis(shape_, setting.format)]} {}

  template <class T, class Pointed>
  batchnorm::TensorView<T> tensor(Pointed* data, const std::int64_t* strides) const {
    if (strides == nullptr) return {static_cast<T*>(data), shape_};
    batchnorm::Strides copy{};
    std::copy_n(strides, shape_.rank(), copy.begin());
    return {static_cast<T*>(data), shape_, copy};
  }

  template <class T, class Pointed>
  batchnorm::TensorView<T> optional_tensor(Pointed* data, const std::int64_t* strides) const {
    return data == nullptr ? batchnorm::TensorView<T>() : tensor<T>(data, strides);
  }

  /// Without channels an address means nothing, and NULL is none of absence.
  template <class P, class Pointed>
  batchnorm::TensorView<P> vector(Pointed* data) const {
    return data == nullptr && channels_[0] != 0 ? batchnorm::TensorView<P>()
                                                : batchnorm::TensorView<P>(static_cast<P*>(data), channels_);
  }

 private:
  batchnorm::Shape shape_, channels_;
};

template <Element T, ParameterOf<T> P>
void forward(const Setting& setting, const batchnorm_forward_arguments& a) {
  const Views view(setting);
  batchnorm::batch_norm<T, P>(
      setting.format, setting.options, view.tensor<const T>(a.x, a.x_strides), view.vector<const P>(a.scale),
      view.vector<const P>(a.bias), view.vector<P>(a.mean), view.vector<P>(a.variance),
      {view.tensor<T>(a.output_x, a.output_x_strides), view.vector<P>(a.batch_mean), view.vector<P>(a.batch_variance),
       view.vector<P>(a.reserve_space_1), view.vector<P>(a.reserve_space_2)},
      batchnorm::Identity{}, setting.call);
}

template <Element T, ParameterOf<T> P>
void backward(const Setting& setting, const batchnorm_backward_arguments& a) {
  const Views view(setting);
  batchnorm::batch_norm_backward<T, P>(
      setting.format, setting.options, view.tensor<const T>(a.dy, a.dy_strides), view.tensor<const T>(a.x, a.x_strides),
      view.vector<const P>(a.scale), view.vector<const P>(a.mean), view.vector<const P>(a.variance),
      {view.optional_tensor<T>(a.dx, a.dx_strides), view.vector<P>(a.dscale), view.vector<P>(a.dbias)}, batchnorm::Identity{},
      setting.call);
}

template <Element T, ParameterOf<T> P>
void double_backward(const Setting& setting, const batchnorm_double_backward_arguments& a) {
  const Views view(setting);
  batchnorm::batch_norm_double_backward<T, P>(
      setting.format, setting.options, view.tensor<const T>(a.x, a.x_strides), view.tensor<const T>(a.dy, a.dy_strides),
      view.vector<const P>(a.scale), view.vector<const P>(a.mean), view.vector<const P>(a.variance),
      view.optional_tensor<const T>(a.ddx, a.ddx_strides), view.vector<const P>(a.ddscale), view.vector<const P>(a.ddbias),
      {view.optional_tensor<T>(a.dx, a.dx_strides), view.optional_tensor<T>(a.ddy, a.ddy_strides), view.vector<P>(a.dscale)},
      setting.call);
}

}  // namespace c_interface

/// Compiles the three calls for one pair of types.
#define BATCHNORM_C_CALLS(T, P)                                                                   \
  template void c_interface::forward<T, P>(const Setting&, const batchnorm_forward_arguments&);   \
  template void c_interface::backward<T, P>(const Setting&, const batchnorm_backward_arguments&); \
  template void c_interface::double_backward<T, P>(const Setting&, const batchnorm_double_backward_arguments&);
