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
      setting.format, setting.options,
      {.dy = view.tensor<const T>("dy", a.dy),
       .x = view.tensor<const T>("x", a.x),
       .scale = view.vector<const P>("scale", a.scale),
       .mean = view.vector<const P>("mean", a.mean),
       .variance = view.vector<const P>("variance", a.variance),
       .ddx = view.optional_tensor<const T>("ddx", a.ddx),
       .ddscale = view.vector<const P>("ddscale", a.ddscale),
       .ddbias = view.vector<const P>("ddbias", a.ddbias)},
      {view.optional_tensor<T>("dx", a.dx), view.optional_tensor<T>("ddy", a.ddy), view.vector<P>("dscale", a.dscale)},
      setting.call);
}

template <Element T, ParameterOf<T> P>
batchnorm::InferenceParameters<P> parameters_of(const Setting& setting, const batchnorm_prepare_arguments& a) {
  const Views view(setting);
  return {.scale = view.vector<const P>("scale", a.scale),
          .bias = view.vector<const P>("bias", a.bias),
          .mean = view.vector<const P>("mean", a.mean),
          .variance = view.vector<const P>("variance", a.variance)};
}

template <Element T, ParameterOf<T> P>
class Prepared final : public batchnorm_prepared {
 public:
  Prepared(const Setting& setting, const batchnorm::Shape& known, const batchnorm_prepare_arguments& a)
      : layer_(setting.format, parameters_of<T, P>(setting, a), a.epsilon, known) {}

  batchnorm::Format format() const noexcept override { return layer_.format(); }
  std::string_view type() const noexcept override { return batchnorm::element_name<T>(); }
  std::string_view parameter_type() const noexcept override { return batchnorm::element_name<P>(); }

  void refresh(const Setting& setting, const batchnorm_prepare_arguments& a) override {
    layer_.refresh(parameters_of<T, P>(setting, a));
  }

  void infer(const Setting& setting, Activation activation, const batchnorm_infer_arguments& a) const override {
    switch (activation) {
      case Activation::none: return infer(setting, batchnorm::Identity{}, a);
      case Activation::relu: return infer(setting, batchnorm::Relu{}, a);
      case Activation::leaky_relu: return infer(setting, batchnorm::LeakyRelu{a.slope}, a);
    }
  }

 private:
  template <class A>
  void infer(const Setting& setting, const A& activation, const batchnorm_infer_arguments& a) const {
    const Views view(setting);
    const auto x = view.tensor<const T>("x", a.x);
    const auto residual = view.optional_tensor<const T>("residual", a.residual);
    const auto y = view.tensor<T>("output_x", a.output_x);
    if (!residual.present()) return layer_(x, y, activation, setting.call);
    layer_(x, y, batchnorm::AddResidual<T, A>{residual, activation}, setting.call);
  }

  batchnorm::PreparedInference<T, P> layer_;
};

template <Element T, ParameterOf<T> P>
std::unique_ptr<batchnorm_prepared> prepare(const Setting& setting, const batchnorm::Shape& known,
                                            const batchnorm_prepare_arguments& arguments) {
  return std::make_unique<Prepared<T, P>>(setting, known, arguments);
}

}  // namespace c_interface

/// Compiles the calls for one pair of types.
#define BATCHNORM_C_CALLS(T, P)                                                                                    \
  template void c_interface::forward<T, P>(const Setting&, const batchnorm_forward_arguments&);                    \
  template void c_interface::backward<T, P>(const Setting&, const batchnorm_backward_arguments&);                  \
  template void c_interface::double_backward<T, P>(const Setting&, const batchnorm_double_backward_arguments&);    \
  template std::unique_ptr<batchnorm_prepared> c_interface::prepare<T, P>(const Setting&, const batchnorm::Shape&, \
                                                                          const batchnorm_prepare_arguments&);
