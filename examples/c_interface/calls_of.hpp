// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>

#include "views.hpp"

namespace c_interface {

/// body(activation) with that of the setting.
template <class Body>
void with_activation(const Setting& setting, double slope, const Body& body) {
  switch (setting.activation) {
    case Activation::none: return body(batchnorm::Identity{});
    case Activation::relu: return body(batchnorm::Relu{});
    case Activation::leaky_relu: return body(batchnorm::LeakyRelu{slope});
  }
}

/// body(epilogue) with the activation of the setting, after a residual that may be absent.
template <Element T, class Body>
void with_epilogue(const Setting& setting, double slope, const batchnorm::TensorView<const T>& residual, const Body& body) {
  with_activation(setting, slope, [&]<class A>(const A& activation) {
    if (!residual.present()) return body(activation);
    body(batchnorm::AddResidual<T, A>{residual, activation});
  });
}

template <Element T, ParameterOf<T> P>
void forward(const Setting& setting, const batchnorm_forward_arguments& a) {
  const Views view(setting);
  const batchnorm::InputViews<T, P> in{.x = view.tensor<const T>("x", a.x),
                                       .scale = view.vector<const P>("scale", a.scale),
                                       .bias = view.vector<const P>("bias", a.bias),
                                       .mean = view.vector<P>("mean", a.mean),
                                       .variance = view.vector<P>("variance", a.variance)};
  const batchnorm::OutputViews<T, P> out{.output_x = view.tensor<T>("output_x", a.output_x),
                                         .batch_mean = view.vector<P>("batch_mean", a.batch_mean),
                                         .batch_variance = view.vector<P>("batch_variance", a.batch_variance),
                                         .reserve_space_1 = view.vector<P>("reserve_space_1", a.reserve_space_1),
                                         .reserve_space_2 = view.vector<P>("reserve_space_2", a.reserve_space_2),
                                         .mask = view.bytes<std::uint8_t>("mask", a.mask)};
  with_epilogue<T>(setting, a.slope, view.optional_tensor<const T>("residual", a.residual), [&](const auto& epilogue) {
    batchnorm::batch_norm<T, P>(setting.format, setting.options, in, out, epilogue, setting.call);
  });
}

template <Element T, ParameterOf<T> P>
void backward(const Setting& setting, const batchnorm_backward_arguments& a) {
  const Views view(setting);
  const batchnorm::GradientInputViews<T, P> in{.dy = view.tensor<const T>("dy", a.dy),
                                               .x = view.tensor<const T>("x", a.x),
                                               .scale = view.vector<const P>("scale", a.scale),
                                               .mean = view.vector<const P>("mean", a.mean),
                                               .variance = view.vector<const P>("variance", a.variance)};
  const batchnorm::GradientViews<T, P> out{.dx = view.optional_tensor<T>("dx", a.dx),
                                           .dscale = view.vector<P>("dscale", a.dscale),
                                           .dbias = view.vector<P>("dbias", a.dbias),
                                           .dresidual = view.optional_tensor<T>("dresidual", a.dresidual)};
  const auto mask = view.bytes<const std::uint8_t>("mask", a.mask);
  const auto y = view.optional_tensor<const T>("output_x", a.output_x);
  const auto run = [&](const auto& through) {
    batchnorm::batch_norm_backward<T, P>(setting.format, setting.options, in, out, through, setting.call);
  };
  with_activation(setting, a.slope, [&]<class A>(const A& activation) {
    if constexpr (std::same_as<A, batchnorm::Identity>) {
      if (mask.present() || y.present()) refuse(setting.name, "mask or output_x is given, but no activation");
      run(activation);
    } else if (batchnorm::element_count(setting.shape) == 0 && !mask.present() && !y.present()) {
      run(batchnorm::ThroughMask<A>{{nullptr, batchnorm::Shape{0}}, activation});  // of no elements NULL is no absence
    } else if (mask.present() == y.present()) {
      refuse(setting.name, std::string("mask and output_x are ") + (y.present() ? "both given" : "absent") +
                               ", an activation needs one of them");
    } else if (mask.present()) {
      run(batchnorm::ThroughMask<A>{mask, activation});
    } else {
      run(batchnorm::ThroughOutput<T, A>{y, activation});
    }
  });
}

/// body(layer) with the in-place layer of the format.
template <Element T, ParameterOf<T> P, class Body>
void with_in_place(const Setting& setting, double slope, double largest_ratio, const Body& body) {
  using batchnorm::Format, batchnorm::InPlaceBatchNorm;
  const batchnorm::LeakyRelu activation{slope};
  const double ratio = largest_ratio == 0 ? InPlaceBatchNorm<T, Format::NCHW, P>::usual_ratio : largest_ratio;
  if (setting.format == Format::NCHW) {
    body(InPlaceBatchNorm<T, Format::NCHW, P>(setting.options, activation, ratio));
  } else {
    body(InPlaceBatchNorm<T, Format::NHWC, P>(setting.options, activation, ratio));
  }
}

template <Element T, ParameterOf<T> P>
void forward_in_place(const Setting& setting, const batchnorm_forward_in_place_arguments& a) {
  const Views view(setting);
  const batchnorm::InPlaceViews<T, P> of{.x = view.tensor<T>("x", a.x),
                                         .scale = view.vector<const P>("scale", a.scale),
                                         .bias = view.vector<const P>("bias", a.bias),
                                         .mean = view.vector<P>("mean", a.mean),
                                         .variance = view.vector<P>("variance", a.variance),
                                         .batch_mean = view.vector<P>("batch_mean", a.batch_mean),
                                         .batch_variance = view.vector<P>("batch_variance", a.batch_variance)};
  with_in_place<T, P>(setting, a.slope, a.largest_ratio, [&](const auto& layer) { layer.forward(of, setting.call); });
}

template <Element T, ParameterOf<T> P>
void backward_in_place(const Setting& setting, const batchnorm_backward_in_place_arguments& a) {
  const Views view(setting);
  const batchnorm::InPlaceGradientInputViews<T, P> in{.dy = view.tensor<const T>("dy", a.dy),
                                                      .y = view.tensor<const T>("y", a.y),
                                                      .scale = view.vector<const P>("scale", a.scale),
                                                      .bias = view.vector<const P>("bias", a.bias),
                                                      .variance = view.vector<const P>("variance", a.variance)};
  const batchnorm::GradientViews<T, P> out{.dx = view.optional_tensor<T>("dx", a.dx),
                                           .dscale = view.vector<P>("dscale", a.dscale),
                                           .dbias = view.vector<P>("dbias", a.dbias)};
  with_in_place<T, P>(setting, a.slope, a.largest_ratio, [&](const auto& layer) { layer.backward(in, out, setting.call); });
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

  void infer(const Setting& setting, const batchnorm_infer_arguments& a) const override {
    const Views view(setting);
    const auto x = view.tensor<const T>("x", a.x);
    const auto residual = view.optional_tensor<const T>("residual", a.residual);
    const auto y = view.tensor<T>("output_x", a.output_x);
    with_epilogue<T>(setting, a.slope, residual, [&](const auto& epilogue) { layer_(x, y, epilogue, setting.call); });
  }

 private:
  batchnorm::PreparedInference<T, P> layer_;
};

template <Element T, ParameterOf<T> P>
std::unique_ptr<batchnorm_prepared> prepare(const Setting& setting, const batchnorm::Shape& known,
                                            const batchnorm_prepare_arguments& arguments) {
  return std::make_unique<Prepared<T, P>>(setting, known, arguments);
}

}  // namespace c_interface

/// Compiles the calls for one pair of types.
#define BATCHNORM_C_CALLS(T, P)                                                                                     \
  template void c_interface::forward<T, P>(const Setting&, const batchnorm_forward_arguments&);                     \
  template void c_interface::backward<T, P>(const Setting&, const batchnorm_backward_arguments&);                   \
  template void c_interface::double_backward<T, P>(const Setting&, const batchnorm_double_backward_arguments&);     \
  template void c_interface::forward_in_place<T, P>(const Setting&, const batchnorm_forward_in_place_arguments&);   \
  template void c_interface::backward_in_place<T, P>(const Setting&, const batchnorm_backward_in_place_arguments&); \
  template std::unique_ptr<batchnorm_prepared> c_interface::prepare<T, P>(const Setting&, const batchnorm::Shape&,  \
                                                                          const batchnorm_prepare_arguments&);
