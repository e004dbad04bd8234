// SPDX-License-Identifier: MIT
#pragma once

#include "views.hpp"

namespace c_interface {

template <Element T, ParameterOf<T> P>
void forward(const Setting& setting, const batchnorm_forward_arguments& a) {
  const Views view(setting);
  batchnorm::batch_norm<T, P>(
      setting.format, setting.options, view.tensor<const T>("x", a.x), view.vector<const P>("scale", a.scale),
      view.vector<const P>("bias", a.bias), view.vector<P>("mean", a.mean), view.vector<P>("variance", a.variance),
      {view.tensor<T>("output_x", a.output_x), view.vector<P>("batch_mean", a.batch_mean),
       view.vector<P>("batch_variance", a.batch_variance), view.vector<P>("reserve_space_1", a.reserve_space_1),
       view.vector<P>("reserve_space_2", a.reserve_space_2)},
      batchnorm::Identity{}, setting.call);
}

template <Element T, ParameterOf<T> P>
void backward(const Setting& setting, const batchnorm_backward_arguments& a) {
  const Views view(setting);
  batchnorm::batch_norm_backward<T, P>(
      setting.format, setting.options, view.tensor<const T>("dy", a.dy), view.tensor<const T>("x", a.x),
      view.vector<const P>("scale", a.scale), view.vector<const P>("mean", a.mean),
      view.vector<const P>("variance", a.variance),
      {view.optional_tensor<T>("dx", a.dx), view.vector<P>("dscale", a.dscale), view.vector<P>("dbias", a.dbias)},
      batchnorm::Identity{}, setting.call);
}

template <Element T, ParameterOf<T> P>
void double_backward(const Setting& setting, const batchnorm_double_backward_arguments& a) {
  const Views view(setting);
  batchnorm::batch_norm_double_backward<T, P>(
      setting.format, setting.options, view.tensor<const T>("x", a.x), view.tensor<const T>("dy", a.dy),
      view.vector<const P>("scale", a.scale), view.vector<const P>("mean", a.mean),
      view.vector<const P>("variance", a.variance), view.optional_tensor<const T>("ddx", a.ddx),
      view.vector<const P>("ddscale", a.ddscale), view.vector<const P>("ddbias", a.ddbias),
      {view.optional_tensor<T>("dx", a.dx), view.optional_tensor<T>("ddy", a.ddy), view.vector<P>("dscale", a.dscale)},
      setting.call);
}

}  // namespace c_interface

/// Compiles the three calls for one pair of types.
#define BATCHNORM_C_CALLS(T, P)                                                                   \
  template void c_interface::forward<T, P>(const Setting&, const batchnorm_forward_arguments&);   \
  template void c_interface::backward<T, P>(const Setting&, const batchnorm_backward_arguments&); \
  template void c_interface::double_backward<T, P>(const Setting&, const batchnorm_double_backward_arguments&);
