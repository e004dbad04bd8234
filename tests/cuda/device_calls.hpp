// SPDX-License-Identifier: MIT
#pragma once

#include <batchnorm/cuda.hpp>

#include "emulated_library.hpp"
#include "support/calls.hpp"
#include "support/gradient_calls.hpp"

// Calls of the tests (support/calls.hpp, support/gradient_calls.hpp) on the emulated device, in buffers between guard pages.
namespace support {

/// A workspace of as many bytes as are asked for, poisoned.
class DeviceWorkspace {
 public:
  explicit DeviceWorkspace(std::size_t bytes) : memory_(bytes) {}
  operator batchnorm::cuda::Workspace() const { return {memory_.data(), memory_.size()}; }

 private:
  DeviceBuffer<std::uint8_t> memory_;
};

/// Elements past a 16-byte border at which the tensors begin.
struct DeviceOffsets {
  std::size_t in = 0, out = 0;
};

template <class T>
batchnorm::TensorView<T> view_of(const DeviceBuffer<T>& buffer, const Shape& shape) {
  return {buffer.data(), shape};
}
template <class T>
DeviceBuffer<T> device_copy(const std::optional<std::vector<T>>& values) {
  return values ? DeviceBuffer<T>(*values) : DeviceBuffer<T>(std::size_t{0});
}

/// What a call on the device leaves, with the mask where there is one.
template <class T>
struct DeviceResult : Result<T, batchnorm::parameter_t<T>> {
  std::vector<std::uint8_t> mask{};
};

/// How a call is made: by one device for all of a batch.
struct Alone {
  template <class T>
  std::size_t workspace_bytes(Format format, const Shape& shape) const {
    return batchnorm::cuda::workspace_bytes<T>(format, shape);
  }
  template <class T, class... Arguments>
  void forward(const Arguments&... arguments) const {
    batchnorm::cuda::batch_norm<T>(arguments...);
  }
  template <class T, class... Arguments>
  void backward(const Arguments&... arguments) const {
    batchnorm::cuda::batch_norm_backward<T>(arguments...);
  }
};

template <class T, class E = batchnorm::Identity, class Caller = Alone>
DeviceResult<T> run_on_device(const Call<T, batchnorm::parameter_t<T>>& call, const E& epilogue = {}, bool writes_mask = false,
                              const DeviceOffsets& offsets = {}, const Caller& caller = {}) {
  using P = batchnorm::parameter_t<T>;
  const auto channels = static_cast<std::size_t>(call.extents().c);
  const DeviceBuffer<T> x(call.x, {.offset = offsets.in}), y(call.x.size(), {.offset = offsets.out});
  const DeviceBuffer<P> scale = device_copy(call.scale), bias = device_copy(call.bias), mean = device_copy(call.mean),
                        variance = device_copy(call.variance);
  const DeviceBuffer<P> batch_mean(channels), batch_variance(channels), reserve_1(channels), reserve_2(channels);
  const auto mask_size = writes_mask ? static_cast<std::size_t>(batchnorm::mask_bytes(call.shape)) : 0;
  const DeviceBuffer<std::uint8_t> mask(mask_size);
  const DeviceWorkspace workspace(caller.template workspace_bytes<T>(call.format, call.shape));
  const auto vector = [](const auto& values, const DeviceBuffer<P>& buffer) {
    return values ? batchnorm::TensorView<P>(buffer.span()) : batchnorm::TensorView<P>();
  };
  batchnorm::OutputViews<T, P> out{view_of(y, call.shape), batch_mean.span(), batch_variance.span(), reserve_1.span(),
                                   reserve_2.span()};
  if (writes_mask) out.mask = mask.span();
  caller.template forward<T>(call.format, call.options, batchnorm::TensorView<const T>(x.data(), call.shape),
                             batchnorm::TensorView<const P>(vector(call.scale, scale)),
                             batchnorm::TensorView<const P>(vector(call.bias, bias)), vector(call.mean, mean),
                             vector(call.variance, variance), out, epilogue, batchnorm::cuda::Workspace(workspace), nullptr);
  EXPECT_TRUE(same_bits(x.values(), call.x)) << "x was changed";
  DeviceResult<T> result;
  result.y = y.values();
  result.batch_mean = batch_mean.values(), result.batch_variance = batch_variance.values();
  result.reserve_space_1 = reserve_1.values(), result.reserve_space_2 = reserve_2.values();
  result.mean = mean.values(), result.variance = variance.values();
  result.mask = mask.values();
  return result;
}

template <class T, class G = batchnorm::Identity, class Caller = Alone>
GradientResult<T, batchnorm::parameter_t<T>> run_on_device(const GradientCall<T, batchnorm::parameter_t<T>>& call,
                                                           const G& through = {}, const DeviceOffsets& offsets = {},
                                                           DeviceBuffer<T>* dresidual = nullptr, const Caller& caller = {}) {
  using P = batchnorm::parameter_t<T>;
  const auto channels = static_cast<std::size_t>(call.extents().c);
  const DeviceBuffer<T> dy(call.dy, {.offset = offsets.in}), x(call.x, {.offset = offsets.in});
  const DeviceBuffer<T> dx(call.x.size(), {.offset = offsets.out});
  const DeviceBuffer<P> scale = device_copy(call.scale), mean(call.mean), variance(call.variance), dscale(channels),
                        dbias(channels);
  const DeviceWorkspace workspace(caller.template workspace_bytes<T>(call.format, call.shape));
  batchnorm::GradientViews<T, P> out{view_of(dx, call.shape), dscale.span(), dbias.span()};
  if (dresidual != nullptr) out.dresidual = view_of(*dresidual, call.shape);
  batchnorm::TensorView<const P> scale_view;
  if (call.scale) scale_view = scale.span();
  caller.template backward<T>(call.format, call.options, batchnorm::TensorView<const T>(dy.data(), call.shape),
                              batchnorm::TensorView<const T>(x.data(), call.shape), scale_view,
                              batchnorm::TensorView<const P>(mean.span()), batchnorm::TensorView<const P>(variance.span()), out,
                              through, batchnorm::cuda::Workspace(workspace), nullptr);
  EXPECT_TRUE(same_bits(dy.values(), call.dy) && same_bits(x.values(), call.x)) << "an input was changed";
  return {dx.values(), dscale.values(), dbias.values()};
}

}  // namespace support
