// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "activations.hpp"
#include "cases.hpp"

// Every kind of call on one shape, for what holds of all of them.
namespace support {

using batchnorm::TensorView;

/// What every call on a shape reads and writes: finite values of order 1.
template <class T, class P>
struct Buffers {
  Shape shape;
  Format format;
  std::int64_t elements, channels;
  std::vector<T> x, dy, y, dx, ddy;
  std::vector<P> scale, bias, mean, variance, dscale, dbias;
  std::vector<std::uint8_t> mask;
  batchnorm::CallOptions call;

  Buffers(const Shape& of, Format in, const batchnorm::CallOptions& options)
      : shape(of),
        format(in),
        elements(element_count(of)),
        channels(of[in == Format::NCHW ? 1 : of.rank() - 1]),
        x(uniform<T>(elements, -1, 1, 1)),
        dy(uniform<T>(elements, -1, 1, 2)),
        y(x.size()),
        dx(x.size()),
        ddy(x.size()),
        scale(uniform<P>(channels, 1, 2, 3)),
        bias(uniform<P>(channels, -1, 1, 4)),
        mean(scale.size(), element<P>(0.5)),
        variance(scale.size(), element<P>(2)),
        dscale(scale.size()),
        dbias(scale.size()),
        mask(static_cast<std::size_t>(batchnorm::mask_bytes(of))),
        call(options) {}

  TensorView<const T> in(const std::vector<T>& v) const { return {v.data(), shape}; }
  TensorView<T> out(std::vector<T>& v) const { return {v.data(), shape}; }
};

/// note(name, call) for each, in an order in which those that need the results of others come later; call() makes it.
template <class T, class P, class Note>
void for_each_call(Buffers<T, P>& b, const Note& note) {
  using batchnorm::Relu;
  const auto x = b.in(b.x), dy = b.in(b.dy);
  for (const bool is_training : {true, false}) {
    const batchnorm::Options options{.is_training = is_training};
    const std::string mode = is_training ? " in training" : " in inference";
    note("batch_norm" + mode, [&] {
      batchnorm::batch_norm<T, P>(b.format, options, x, b.scale, b.bias, b.mean, b.variance, {.output_x = b.out(b.y)},
                                  batchnorm::Identity{}, b.call);
    });
    note("batch_norm with a mask" + mode, [&] {
      batchnorm::batch_norm<T, P>(b.format, options, x, b.scale, b.bias, b.mean, b.variance,
                                  {.output_x = b.out(b.y), .mask = b.mask}, Relu{}, b.call);
    });
    note("batch_norm_backward" + mode, [&] {
      batchnorm::batch_norm_backward<T, P>(b.format, options, dy, x, b.scale, b.mean, b.variance,
                                           {b.out(b.dx), b.dscale, b.dbias}, batchnorm::Identity{}, b.call);
    });
    note("batch_norm_backward through a mask" + mode, [&] {
      batchnorm::batch_norm_backward<T, P>(b.format, options, dy, x, b.scale, b.mean, b.variance,
                                           {b.out(b.dx), b.dscale, b.dbias}, batchnorm::ThroughMask<Relu>{b.mask}, b.call);
    });
    note("batch_norm_backward through the output" + mode, [&] {
      batchnorm::batch_norm_backward<T, P>(b.format, options, dy, x, b.scale, b.mean, b.variance,
                                           {b.out(b.dx), b.dscale, b.dbias}, batchnorm::ThroughOutput<T, Relu>{x}, b.call);
    });
    note("batch_norm_double_backward" + mode, [&] {
      batchnorm::batch_norm_double_backward<T, P>(b.format, options,
                                                  {.dy = dy,
                                                   .x = x,
                                                   .scale = b.scale,
                                                   .mean = b.mean,
                                                   .variance = b.variance,
                                                   .ddx = dy,
                                                   .ddscale = b.scale,
                                                   .ddbias = b.bias},
                                                  {b.out(b.dx), b.out(b.ddy), b.dscale}, b.call);
    });
  }
  batchnorm::Moments moments;
  batchnorm::GradientSums sums;
  note("moments", [&] { moments = batchnorm::moments(x, b.format, b.call); });
  note("merge", [&] { batchnorm::merge(moments, batchnorm::Moments(moments)); });
  note("finalize", [&] {
    batchnorm::finalize<P>(moments, {.is_training = true},
                           {.batch_mean = b.dscale, .running_mean = b.mean, .running_variance = b.variance}, b.call);
  });
  note("normalize", [&] {
    batchnorm::normalize<T, P>(b.format, {.x = x, .scale = TensorView<const P>(b.scale), .bias = b.bias}, moments, 1e-5,
                               b.out(b.y), batchnorm::Identity{}, b.call);
  });
  note("PreparedInference", [&] {
    const batchnorm::PreparedInference<T, P> layer(b.format,
                                                   {.scale = b.scale, .bias = b.bias, .mean = b.mean, .variance = b.variance});
    layer(x, b.out(b.y), batchnorm::Identity{}, b.call);
  });
  note("gradient_sums", [&] {
    sums = batchnorm::gradient_sums<T, P>(b.format, {.dy = dy, .x = x, .mean = TensorView<const P>(b.mean)},
                                          batchnorm::Identity{}, b.call);
  });
  note("input_gradient", [&] {
    batchnorm::input_gradient<T, P>(
        b.format, {.dy = dy, .x = x, .scale = b.scale, .mean = TensorView<const P>(b.mean), .variance = b.variance}, sums, 1e-5,
        {b.out(b.dx), b.dscale, b.dbias}, batchnorm::Identity{}, b.call);
  });
}

}  // namespace support
