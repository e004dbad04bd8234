// SPDX-License-Identifier: MIT
#include <bit>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <vector>

#include <batchnorm/batch_norm.hpp>
#include <batchnorm/gradients.hpp>

// Prints a hash of each result on each instruction set. It is compiled twice, with the headers alone and against
// batchnorm::compiled; both must print the same.

using namespace batchnorm;

namespace {

template <class T>
std::uint64_t hash_of(const T* values, std::int64_t count) {
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint32_t>;
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (std::int64_t i = 0; i < count; ++i) hash = (hash ^ std::bit_cast<Bits>(values[i])) * 0x100000001b3U;
  return hash;
}

template <class T>
void print(std::string_view name, const Tensor<T>& tensor) {
  std::printf(" %.*s %016llx", static_cast<int>(name.size()), name.data(),
              static_cast<unsigned long long>(hash_of(tensor.data(), tensor.size())));
}

void print(std::string_view name, const std::vector<float>& values) {
  std::printf(" %.*s %016llx", static_cast<int>(name.size()), name.data(),
              static_cast<unsigned long long>(hash_of(values.data(), std::ssize(values))));
}

/// Values in [-1, 1) whose products and sums are rounded.
template <class T>
Tensor<T> noise(const Shape& shape, std::uint32_t state) {
  Tensor<T> tensor(shape);
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    tensor[i] = static_cast<T>(static_cast<float>(state >> 8) * 0x1p-23F - 1.0F);
  }
  return tensor;
}

std::vector<float> channels(float first, float step) {
  std::vector<float> values(37);
  for (std::size_t c = 0; c < values.size(); ++c) values[c] = first + step * static_cast<float>(c);
  return values;
}

Shape shape_in(Format format) { return format == Format::NCHW ? Shape{3, 37, 5, 7} : Shape{3, 5, 7, 37}; }

/// Training and its gradients.
void print_training(Format format) {
  const auto x = noise<float>(shape_in(format), 1), dy = noise<float>(x.shape(), 2);
  const auto scale = channels(0.7F, 0.01F), bias = channels(-0.2F, 0.03F);
  auto mean = channels(0.1F, 0.001F), variance = channels(1.1F, 0.02F);
  Tensor<float> y(x.shape()), dx(x.shape());
  std::vector<float> saved_mean(37), saved_variance(37), dscale(37), dbias(37);
  batch_norm<float>(format, {.is_training = true}, x, scale, bias, mean, variance,
                    {.output_x = y, .reserve_space_1 = saved_mean, .reserve_space_2 = saved_variance});
  batch_norm_backward<float>(format, {.is_training = true}, dy, x, scale, saved_mean, saved_variance,
                             {.dx = dx, .dscale = dscale, .dbias = dbias});
  print("y", y);
  print("mean", mean);
  print("variance", variance);
  print("dx", dx);
  print("dscale", dscale);
  print("dbias", dbias);
}

void print_inference(Format format) {
  const auto x = noise<half>(shape_in(format), 3);
  auto mean = channels(0.1F, 0.001F), variance = channels(1.1F, 0.02F);
  Tensor<half> y(x.shape());
  batch_norm<half, float>(format, {}, x, channels(0.7F, 0.01F), channels(-0.2F, 0.03F), mean, variance, {.output_x = y});
  print("y", y);
}

}  // namespace

int main() {
  for (const Isa isa : available_isas()) {
    force_isa(isa);
    for (const Format format : {Format::NCHW, Format::NHWC}) {
      const std::string_view names[] = {to_string(isa), to_string(format)};
      std::printf("%s %s: training of float", names[0].data(), names[1].data());
      print_training(format);
      std::printf(", inference of half");
      print_inference(format);
      std::printf("\n");
    }
  }
}
