// SPDX-License-Identifier: MIT
#include "buffers.hpp"

#include <algorithm>
#include <memory>

#include <batchnorm/cuda.hpp>

#include "../suite/names.hpp"

namespace bench {
namespace {

using batchnorm::TensorView;

/// Noise in [-1, 1) that repeats after a prime number of values.
template <class T>
std::vector<T> noise(std::int64_t size, std::uint32_t seed) {
  constexpr std::int64_t period = 65521;
  std::vector<T> values(static_cast<std::size_t>(size));
  std::uint32_t state = seed;
  for (std::int64_t i = 0; i < size; ++i) {
    if (i < period) state = state * 1664525U + 1013904223U;
    const auto at = static_cast<std::size_t>(i);
    values[at] = i < period ? static_cast<T>(static_cast<float>(static_cast<double>(state >> 8U) * 0x1p-23 - 1))
                            : values[at - static_cast<std::size_t>(period)];
  }
  return values;
}

template <class T>
void fill(const DeviceMemory& memory, std::uint32_t seed) {
  const auto values = noise<T>(static_cast<std::int64_t>(memory.bytes() / sizeof(T)), seed);
  memory.upload(values.data(), memory.bytes());
}

template <class P>
void fill_with(const DeviceMemory& memory, double value) {
  const std::vector<P> values(memory.bytes() / sizeof(P), static_cast<P>(value));
  memory.upload(values.data(), memory.bytes());
}

template <class Function>
auto with_type(ElementType type, const Function& function) {
  switch (type) {
    case ElementType::float64: return function(double{});
    case ElementType::half: return function(batchnorm::half{});
    case ElementType::bfloat16: return function(batchnorm::bfloat16{});
    default: return function(float{});
  }
}

std::size_t channel_bytes(const Problem& problem) {
  return static_cast<std::size_t>(problem.c()) * (problem.type == ElementType::float64 ? 8 : 4);
}

std::size_t sets_of(const Problem& problem, const DeviceFacts& facts) {
  const auto bytes = static_cast<std::int64_t>(tensor_bytes(problem));
  return static_cast<std::size_t>(std::clamp<std::int64_t>(3 * facts.cache_bytes / (2 * bytes) + 1, 2, 512));
}

batchnorm::Shape shape_of(const Problem& problem) {
  Extents extents = problem.extents;
  if (problem.layout == Layout::nhwc) std::rotate(extents.begin() + 1, extents.begin() + 2, extents.end());
  return batchnorm::Shape(extents);
}

template <class T>
DeviceCall library_call_of(const Problem& problem, const DeviceBuffers& buffers) {
  using P = batchnorm::parameter_t<T>;
  const batchnorm::Shape shape = shape_of(problem);
  const auto format = problem.layout == Layout::nchw ? batchnorm::Format::NCHW : batchnorm::Format::NHWC;
  const batchnorm::Options options{.is_training = problem.operation != Operation::inference};
  const auto memory = std::make_shared<DeviceMemory>(batchnorm::cuda::workspace_bytes<T>(format, shape));
  const auto vector = [c = problem.c()](const DeviceMemory& m) { return TensorView<P>(m.as<P>(), {c}); };
  if (is_backward(problem.operation)) {
    return [=, &buffers](cudaStream_t stream, std::size_t number) {
      const DeviceBuffers::Set& set = buffers.sets[number];
      batchnorm::cuda::batch_norm_backward<T>(format, options, {set.dy.as<T>(), shape}, {set.x.as<T>(), shape},
                                              vector(buffers.scale), vector(buffers.mean), vector(buffers.variance),
                                              {{set.y.as<T>(), shape}, vector(buffers.dscale), vector(buffers.dbias)},
                                              batchnorm::Identity{}, {memory->data(), memory->bytes()}, stream);
    };
  }
  return [=, &buffers](cudaStream_t stream, std::size_t number) {
    const DeviceBuffers::Set& set = buffers.sets[number];
    batchnorm::OutputViews<T, P> out{{set.y.as<T>(), shape}};
    if (options.is_training) {
      out.reserve_space_1 = vector(buffers.saved_mean), out.reserve_space_2 = vector(buffers.saved_variance);
    }
    batchnorm::cuda::batch_norm<T>(format, options, {set.x.as<T>(), shape}, vector(buffers.scale), vector(buffers.bias),
                                   vector(buffers.mean), vector(buffers.variance), out, batchnorm::Identity{},
                                   {memory->data(), memory->bytes()}, stream);
  };
}

}  // namespace

std::size_t tensor_bytes(const Problem& problem) {
  return static_cast<std::size_t>(problem.elements() * bytes_of(problem.type));
}

DeviceBuffers::DeviceBuffers(const Problem& problem, const DeviceFacts& facts)
    : scale(channel_bytes(problem)),
      bias(channel_bytes(problem)),
      mean(channel_bytes(problem)),
      variance(channel_bytes(problem)),
      saved_mean(channel_bytes(problem)),
      saved_variance(channel_bytes(problem)),
      dscale(channel_bytes(problem)),
      dbias(channel_bytes(problem)) {
  const std::size_t bytes = tensor_bytes(problem);
  for (std::size_t i = 0; i < sets_of(problem, facts); ++i) {
    sets.push_back({DeviceMemory(bytes), DeviceMemory(bytes), DeviceMemory(is_backward(problem.operation) ? bytes : 0)});
  }
  with_type(problem.type, [&]<class T>(T) {
    using P = batchnorm::parameter_t<T>;
    fill<T>(sets[0].x, 1);
    if (sets[0].dy.bytes() > 0) fill<T>(sets[0].dy, 2);
    for (std::size_t i = 1; i < sets.size(); ++i) {
      check(cudaMemcpy(sets[i].x.data(), sets[0].x.data(), bytes, cudaMemcpyDeviceToDevice), "cudaMemcpy");
      check(cudaMemcpy(sets[i].dy.data(), sets[0].dy.data(), sets[i].dy.bytes(), cudaMemcpyDeviceToDevice), "cudaMemcpy");
    }
    fill<P>(scale, 3), fill<P>(bias, 4);
    fill_with<P>(mean, 0), fill_with<P>(variance, 1.0 / 3);
  });
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

DeviceCall library_call(const Problem& problem, const DeviceBuffers& buffers) {
  return with_type(problem.type, [&]<class T>(T) { return library_call_of<T>(problem, buffers); });
}

DeviceCall copy_call(const Problem& problem, const DeviceBuffers& buffers) {
  return [&buffers, bytes = tensor_bytes(problem)](cudaStream_t stream, std::size_t number) {
    const DeviceBuffers::Set& set = buffers.sets[number];
    check(cudaMemcpyAsync(set.y.data(), set.x.data(), bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
  };
}

}  // namespace bench
