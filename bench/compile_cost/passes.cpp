// SPDX-License-Identifier: MIT

// What a framework's operator needs of one type: training, inference and the gradients, each in both formats.

#include <batchnorm/batchnorm.hpp>

using batchnorm::BatchNorm, batchnorm::Format, batchnorm::Shape;

struct Layer {
  const float *scale, *bias;
  float *running_mean, *running_variance;
  float *batch_mean, *batch_variance;
  float *dscale, *dbias;
};

template <Format F>
void train(const Shape& shape, const Shape& channels, const float* x, const Layer& layer, float* y) {
  BatchNorm<float, F>(true)({x, shape}, {layer.scale, channels}, {layer.bias, channels}, {layer.running_mean, channels},
                            {layer.running_variance, channels},
                            {.output_x = {y, shape},
                             .reserve_space_1 = {layer.batch_mean, channels},
                             .reserve_space_2 = {layer.batch_variance, channels}});
}

template <Format F>
void infer(const Shape& shape, const Shape& channels, const float* x, const Layer& layer, float* y) {
  BatchNorm<float, F>()({x, shape}, {layer.scale, channels}, {layer.bias, channels}, {layer.running_mean, channels},
                        {layer.running_variance, channels}, {.output_x = {y, shape}});
}

template <Format F>
void differentiate(const Shape& shape, const Shape& channels, const float* dy, const float* x, const Layer& layer, float* dx) {
  BatchNorm<float, F>(true).backward({dy, shape}, {x, shape}, {layer.scale, channels}, {layer.batch_mean, channels},
                                     {layer.batch_variance, channels},
                                     {.dx = {dx, shape}, .dscale = {layer.dscale, channels}, .dbias = {layer.dbias, channels}});
}

template void train<Format::NCHW>(const Shape&, const Shape&, const float*, const Layer&, float*);
template void train<Format::NHWC>(const Shape&, const Shape&, const float*, const Layer&, float*);
template void infer<Format::NCHW>(const Shape&, const Shape&, const float*, const Layer&, float*);
template void infer<Format::NHWC>(const Shape&, const Shape&, const float*, const Layer&, float*);
template void differentiate<Format::NCHW>(const Shape&, const Shape&, const float*, const float*, const Layer&, float*);
template void differentiate<Format::NHWC>(const Shape&, const Shape&, const float*, const float*, const Layer&, float*);
